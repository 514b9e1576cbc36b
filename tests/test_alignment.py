"""Weights that are moved to aligned memory are the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from judge_decoding.decoding.backends.static.alignment import CACHE_LINE, align


def misaligned(values: Tensor) -> Tensor:
    """The same, as a file may have it in memory."""
    found = torch.empty(values.numel() + 4, dtype=values.dtype)[4:].view(values.shape).copy_(values)
    assert found.data_ptr() % CACHE_LINE
    return found


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(30, 16), nn.Linear(16, 16, bias=True), nn.Linear(16, 30, bias=False))
    for weight in model.parameters():
        weight.data = misaligned(weight.data)
    model[2].weight = model[0].weight
    model.add_module("brain", nn.Linear(16, 16, dtype=torch.bfloat16))
    model.register_parameter("aligned", nn.Parameter(torch.randn(3)))
    model.register_parameter("empty_one", nn.Parameter(torch.empty(0)))
    model.register_parameter("turned", nn.Parameter(misaligned(torch.randn(3, 16)).T))
    return model


def addresses(model: nn.Module) -> dict[str, int]:
    return {name: weight.data_ptr() for name, weight in model.named_parameters(remove_duplicate=False)}


def test_weights_are_the_same_at_better_places() -> None:
    model, untouched = network(), network()
    parameters, before = list(model.parameters()), addresses(model)
    align(model)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(a.equal(b) for a, b in zip(model.parameters(), untouched.parameters(), strict=True))
    now = addresses(model)
    assert {name for name in now if now[name] != before[name]} == {"0.weight", "1.weight", "1.bias", "2.weight"}
    assert not any(now[name] % CACHE_LINE for name in now if now[name] != before[name])
    assert now["0.weight"] == now["2.weight"]  # still tied
    assert all(weight.requires_grad for weight in model.parameters())
    moved = [weight for name, weight in model.named_parameters() if now[name] != before[name]]
    # Those that share a storage count as tied where a model is saved.
    assert len({weight.untyped_storage().data_ptr() for weight in moved}) == len(moved)


def test_weights_that_code_may_be_bound_to_stay() -> None:
    """It has their bare addresses, also of those of a part that was compiled before the whole."""
    model = network()
    align(nn.Sequential(model[1]))
    bound = addresses(model)
    model[1].weight.data = moved = misaligned(model[1].weight.data)
    align(model)
    now = addresses(model)
    assert now["1.bias"] == bound["1.bias"]
    assert now["0.weight"] != bound["0.weight"]
    assert now["1.weight"] != moved.data_ptr()  # somebody else has moved it since
    align(model)
    assert addresses(model) == now


def test_a_weight_that_is_a_part_of_another_stays_one() -> None:
    model = network()
    model.register_parameter("part", nn.Parameter(model[0].weight.data[:5]))
    before = addresses(model)
    align(model)
    assert addresses(model) == before


def test_two_parameters_of_the_same_memory_stay_so() -> None:
    model = network()
    model.register_parameter("same", nn.Parameter(model[0].weight.data))
    before = addresses(model)
    align(model)
    now = addresses(model)
    assert now["same"] == now["0.weight"] != before["same"]


@pytest.mark.filterwarnings("ignore:.*[Qq]uantiz.*", "ignore:Sparse.*")
def test_weights_that_are_no_plain_numbers_stay() -> None:
    model = network()
    some = torch.randn(15, 15)
    quantized = torch.quantize_per_tensor(some, 0.1, 0, torch.qint8)
    model.register_parameter("quantized", nn.Parameter(quantized, requires_grad=False))
    model.register_parameter("sparse", nn.Parameter(some.relu().to_sparse_csr()))
    align(model)
    assert model.get_parameter("quantized").equal(quantized)
    assert model.get_parameter("sparse").to_dense().equal(some.relu())
