"""Weights that are moved into huge pages are the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from judge_decoding.decoding.static import pages
from judge_decoding.decoding.static.pages import LEAST_BYTES, settle


@pytest.fixture(autouse=True)
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As on a system with huge pages for those who ask."""
    path = tmp_path / "enabled"
    path.write_text("always [madvise] never\n")
    monkeypatch.setattr(pages, "_SETTING", path)
    return path


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(3000, 512), nn.Linear(512, 512, bias=True), nn.Linear(512, 3000, bias=False))
    model[2].weight = model[0].weight
    model.add_module("brain", nn.Linear(512, 512, dtype=torch.bfloat16))
    model.register_parameter("empty_one", nn.Parameter(torch.empty(0)))
    model.register_parameter("turned", nn.Parameter(torch.randn(3, 512).T))
    return model


def addresses(model: nn.Module) -> dict[str, int]:
    return {name: weight.data_ptr() for name, weight in model.named_parameters(remove_duplicate=False)}


def test_weights_are_the_same_in_one_place(tmp_path: Path) -> None:
    model, untouched = network(), network()
    parameters, before = list(model.parameters()), addresses(model)
    settle(model)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(a.equal(b) for a, b in zip(model.parameters(), untouched.parameters(), strict=True))
    now = addresses(model)
    assert {name for name in now if now[name] == before[name]} == {"empty_one", "turned"}
    assert now["0.weight"] == now["2.weight"]  # still tied
    assert all(address % 64 == 0 for name, address in now.items() if name != "turned")
    moved = [weight for weight in model.parameters() if weight.is_contiguous() and weight.numel()]
    size = max(weight.data_ptr() + weight.nbytes for weight in moved) - min(weight.data_ptr() for weight in moved)
    assert size < sum(weight.nbytes for weight in moved) + 64 * len(moved)
    assert all(weight.requires_grad for weight in model.parameters())
    save_model(model, str(tmp_path / "a.safetensors"))  # which refuses weights that share their memory by chance
    save_model(untouched, str(tmp_path / "b.safetensors"))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_weights_that_others_are_bound_to_stay() -> None:
    """Compiled code has their bare addresses, also of a part that was too small to be moved by itself."""
    model = network()
    part = nn.Sequential(model[1])
    assert sum(weight.nbytes for weight in part.parameters()) < LEAST_BYTES
    settle(part)
    bound = addresses(model)
    settle(model)
    now = addresses(model)
    assert now["1.weight"] == bound["1.weight"]
    assert now["0.weight"] != bound["0.weight"]
    settle(model)
    assert addresses(model) == now


@pytest.mark.parametrize("said", ["always madvise [never]\n", None])
def test_systems_without_huge_pages(setting: Path, said: str | None) -> None:
    if said is None:
        setting.unlink()
    else:
        setting.write_text(said)
    model = network()
    before = addresses(model)
    settle(model)
    assert addresses(model) == before


def test_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(pages.mmap, "mmap", fail)
    model = network()
    before = addresses(model)
    settle(model)
    assert addresses(model) == before
