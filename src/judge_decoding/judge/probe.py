"""Identify a model by the output of each of its layers for one fixed input."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.judge.config import PROBE_IDS, PROBE_NUMBERS, Probe
from judge_decoding.models.anatomy import anatomy, first_tensor, hooked
from judge_decoding.models.forward import input_device, input_rows, plain_forward, undisturbed
from judge_decoding.models.hidden import decoder_layer
from judge_decoding.models.weights import adapters, quantization

_POSITIONS = (3, 7, 11, 15)
_DIMENSIONS = PROBE_NUMBERS // len(_POSITIONS)
_MOST = torch.finfo(torch.float16).max
# Small next to what a layer adds, so that rounding the sum loses nothing, and large next to the epsilon of a norm.
_SCALE = 0.05

ROUNDING = {"float32": 0.002, "float16": 0.006, "bfloat16": 0.03}
"""Largest difference of a layer's outputs due to rounding, by data type: about twice the measured values."""

QUANTIZED = 0.7
"""The same for low-bit quantisation. Unrelated models differ by about 1."""


def probe_model(model: PreTrainedModel, source: HiddenSource, ids: Sequence[int] | None = None) -> Probe:
    """Probe ``model`` where a judge reads it at ``source``."""
    ids = list(ids) if ids is not None else spread_ids(input_rows(model), PROBE_IDS)
    rows = _numbers(model, ids, source)
    return Probe(
        ids=ids,
        norm=source.norm,
        layer=source.layer,
        dtype=str(model.dtype).removeprefix("torch."),
        quantization=quantization(model),
        numbers=base64.b64encode(rows.clamp(-_MOST, _MOST).numpy().astype("<f2").tobytes()).decode(),
    )


def difference(one: Probe, other: Probe) -> float:
    """Return the relative difference of the layer that differs most: the median over its coordinates.

    The median is used because in many models a few dimensions are hundreds of times larger than all others.
    Unrelated models differ by about 1.
    """
    mine, its = (torch.tensor(probe.values()).reshape(-1, PROBE_NUMBERS) for probe in (one, other))
    if mine.shape != its.shape:
        return math.inf
    worst = 0.0
    for here, there in zip(mine, its, strict=True):
        nonzero = (here != 0) | (there != 0)
        if nonzero.any():
            scale = torch.maximum(here.abs(), there.abs())[nonzero].median()
            worst = max(worst, float((here - there).abs()[nonzero].median() / scale))
    return worst


def allowed(one: Probe, other: Probe) -> float:
    """Return the largest allowed difference, for the coarser of the two data types."""
    return max(ROUNDING.get(each.dtype, ROUNDING["bfloat16"]) for each in (one, other))


def spread_ids(rows: int, count: int) -> list[int]:
    """Return ``count`` ids from the lower half of a vocabulary of ``rows``, as the upper end may be padding.

    Golden-section steps keep them far apart and unordered.
    """
    half = max(rows // 2, 1)
    return [int(half * (number * 0.6180339887498949 % 1)) for number in range(1, count + 1)]


_Known = dict[tuple[tuple[int, ...], HiddenSource], tuple[Any, Tensor]]
_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _numbers(model: PreTrainedModel, ids: Sequence[int], source: HiddenSource) -> Tensor:
    """Return the rows of a probe, cached while the model and its weights are the same."""
    known, key, state = _known.setdefault(model, {}), (tuple(ids), source), _state(model)
    if key not in known or known[key][0] != state:
        known[key] = state, _compute(model, ids, source)
    return known[key][1]


def _state(model: PreTrainedModel) -> tuple[Any, ...]:
    """Return a value that changes when weights are replaced or changed in place, or adapters are switched."""
    tensors = (*model.parameters(), *model.buffers())
    return adapters(model), [(id(each), 0 if each.is_inference() else each._version) for each in tensors]


def _compute(model: PreTrainedModel, ids: Sequence[int], source: HiddenSource) -> Tensor:
    """Run one forward pass in which each part gets the same input."""
    modules, first = _parts(model, source)
    seen: dict[int, Tensor] = {}

    def before(number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states = next((each for each in (*args, *kwargs.values()) if _is_states(each)), None)
        if states is None or number < first:
            return args, kwargs
        if number == first:
            seen[-1] = states
        fixed = _fixed(states)
        changed = {name: fixed if each is states else each for name, each in kwargs.items()}
        return tuple(fixed if each is states else each for each in args), changed

    def behind(number: int, output: object) -> None:
        found = first_tensor(output)
        if found is not None:
            seen[number] = found

    with undisturbed(model), hooked(enumerate(modules), before, behind):  # lock the model before adding hooks
        plain_forward(model, torch.tensor([list(ids)], device=input_device(model)), len(ids))
    return torch.stack([_coordinates(seen[number]) for number in sorted(seen)])


def _parts(model: PreTrainedModel, source: HiddenSource) -> tuple[list[nn.Module], int]:
    """Return the modules to probe, in order, and the index of the first one whose input is replaced."""
    parts, norm, layer = anatomy(model), source.norm, source.layer
    if parts.layers is None:  # then there is a norm, and only its input depends on the layers
        assert parts.norm is not None
        return [model.get_submodule(parts.norm)], 1
    layers = model.get_submodule(parts.layers)
    assert isinstance(layers, nn.ModuleList)
    decoder_layer(model, layer)
    modules: list[nn.Module] = list(layers)[: len(layers) + layer + 1]
    if parts.norm is not None and norm == "after":
        modules.append(model.get_submodule(parts.norm))
    return modules, 0


def _is_states(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 3


def _fixed(like: Tensor) -> Tensor:
    """Return pseudo-random numbers of this shape that are the same on every machine."""
    place = torch.arange(like.numel())
    uniform = ((place * place * 2654435761 + place * 40503) & 0xFFFFFFFF).double() / 2**32
    return (_SCALE * 12**0.5 * (uniform - 0.5)).reshape(like.shape).to(like.device, like.dtype)


def _coordinates(states: Tensor) -> Tensor:
    """Return a few evenly spread values of states [..., T, H]: [`PROBE_NUMBERS`]."""
    states = states.reshape(-1, *states.shape[-2:])[0]
    columns = torch.linspace(0, states.shape[-1] - 1, _DIMENSIONS, dtype=torch.float64).long()
    return states[list(_POSITIONS)].float().cpu()[:, columns].flatten()
