"""What tells a model from another: what each of its layers makes of one fixed input."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.models.anatomy import anatomy, first_tensor
from judge_decoding.models.forward import input_device, input_rows, plain_forward, undisturbed
from judge_decoding.models.hidden import decoder_layer
from judge_decoding.models.weights import adapters, quantization

LENGTH = 16
_POSITIONS = (3, 7, 11, 15)
_DIMENSIONS = 16
_NUMBERS = len(_POSITIONS) * _DIMENSIONS
_MOST = torch.finfo(torch.float16).max
# Small beside what a layer adds to it, so that rounding the sum takes nothing away, and large beside a norm's epsilon.
_SCALE = 0.05

ROUNDING = {"float32": 0.002, "float16": 0.006, "bfloat16": 0.03}
"""How far the outputs of a layer may be apart for the rounding of a data type: about twice what was measured."""

QUANTIZED = 0.7
"""The same for quantisation to few bits. Models that have nothing in common are about 1 apart."""


class Probe(BaseModel):
    """What the layers of a model make of one fixed input, in a few coordinates of each.

    Every layer that a judge's hidden states come through is given the same numbers, whatever the layers below it have
    made. So a change of any layer shows, one layer's rounding is all the rounding there is, and nothing else matters:
    not the size of the vocabulary, nor how the weights are stored.

    Attributes:
        ids: the tokens of the forward pass.
        norm, layer: where the judge reads; what lies above is not looked at.
        dtype: in which the model computed.
        quantization: how its weights were quantised; None if they were not.
        numbers: float16, little-endian, in base64: `_NUMBERS` of what the first layer is given for ``ids``, as many of
            each layer's output, and of the final norm's where the judge reads behind it.
    """

    ids: list[int] = Field(min_length=LENGTH, max_length=LENGTH)
    norm: Norm
    layer: int = Field(le=-1)
    dtype: str
    quantization: str | None = None
    numbers: str

    @model_validator(mode="after")
    def _numbers_can_be_read(self) -> Self:
        try:
            found = self.rows()
        except (ValueError, binascii.Error) as error:
            raise ValueError("the numbers of the probe cannot be read") from error
        if not len(found) or not found.isfinite().all() or min(self.ids) < 0:
            raise ValueError("the probe holds no finite numbers, or ids below 0")
        return self

    @classmethod
    def of(cls, model: PreTrainedModel, source: HiddenSource, ids: Sequence[int] | None = None) -> Self:
        """Probe ``model`` where a judge reads it at ``source``.

        Raises:
            JudgeDecodingError: the model has no such layer.
        """
        ids = list(ids) if ids is not None else probe_ids(model)
        rows = _numbers(model, ids, source)
        return cls(
            ids=ids,
            norm=source.norm,
            layer=source.layer,
            dtype=str(model.dtype).removeprefix("torch."),
            quantization=quantization(model),
            numbers=base64.b64encode(rows.clamp(-_MOST, _MOST).numpy().astype("<f2").tobytes()).decode(),
        )

    def rows(self) -> Tensor:
        """What each layer made of it [layers, `_NUMBERS`]."""
        content = base64.b64decode(self.numbers, validate=True)
        return torch.from_numpy(np.frombuffer(content, "<f2").astype(np.float32)).reshape(-1, _NUMBERS)

    def difference(self, other: Probe) -> float:
        """How far the layer that differs most is from this one's: the median difference of a coordinate, relative.

        Medians, as a few dimensions of many models are hundreds of times larger than all others. 1 or so between
        models that have nothing in common.
        """
        mine, its = self.rows(), other.rows()
        if mine.shape != its.shape:
            return math.inf
        worst = 0.0
        for one, two in zip(mine, its, strict=True):
            said = (one != 0) | (two != 0)
            if said.any():
                scale = torch.maximum(one.abs(), two.abs())[said].median()
                worst = max(worst, float((one - two).abs()[said].median() / scale))
        return worst

    def allowed(self, other: Probe) -> float:
        """How far apart the two may be for the coarser of their data types."""
        return max(ROUNDING.get(each.dtype, ROUNDING["bfloat16"]) for each in (self, other))


def probe_ids(model: PreTrainedModel) -> list[int]:
    """Tokens from the lower half of the model's vocabulary: the upper end may be padding.

    In steps of the golden section, so that they are far apart and in no order.
    """
    half = max(input_rows(model) // 2, 1)
    return [int(half * (number * 0.6180339887498949 % 1)) for number in range(1, LENGTH + 1)]


_Known = dict[tuple[tuple[int, ...], HiddenSource], tuple[Any, Tensor]]
_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def _numbers(model: PreTrainedModel, ids: Sequence[int], source: HiddenSource) -> Tensor:
    """The rows of a probe, remembered for as long as the model and its weights are the same."""
    known, key, state = _known.setdefault(model, {}), (tuple(ids), source), _state(model)
    if key not in known or known[key][0] != state:
        known[key] = state, _ask(model, ids, source)
    return known[key][1]


def _state(model: PreTrainedModel) -> tuple[Any, ...]:
    """Changes when weights are replaced, or changed in place, or adapters are switched."""
    tensors = (*model.parameters(), *model.buffers())
    return adapters(model), [(id(each), 0 if each.is_inference() else each._version) for each in tensors]


def _ask(model: PreTrainedModel, ids: Sequence[int], source: HiddenSource) -> Tensor:
    """One forward pass in which each part is given the same input."""
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

    with undisturbed(model), ExitStack() as stack:  # with the model to itself before it has hooks
        for number, module in enumerate(modules):
            for hook in (
                module.register_forward_pre_hook(
                    lambda _module, args, kwargs, number=number: before(number, args, kwargs), with_kwargs=True
                ),
                module.register_forward_hook(lambda _module, _args, output, number=number: behind(number, output)),
            ):
                stack.callback(hook.remove)
        plain_forward(model, torch.tensor([list(ids)], device=input_device(model)), len(ids))
    return torch.stack([_coordinates(seen[number]) for number in sorted(seen)])


def _parts(model: PreTrainedModel, source: HiddenSource) -> tuple[list[nn.Module], int]:
    """What to ask, in order, and from which of them on the input is replaced."""
    parts, norm, layer = anatomy(model), source.norm, source.layer
    if parts.layers is None:  # then there is a norm, and only what comes to it says anything of the layers
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
    """Numbers of this shape that look random and are the same on every machine."""
    place = torch.arange(like.numel())
    uniform = ((place * place * 2654435761 + place * 40503) & 0xFFFFFFFF).double() / 2**32
    return (_SCALE * 12**0.5 * (uniform - 0.5)).reshape(like.shape).to(like.device, like.dtype)


def _coordinates(states: Tensor) -> Tensor:
    """A few numbers of states [..., T, H], spread evenly [`_NUMBERS`]."""
    states = states.reshape(-1, *states.shape[-2:])[0]
    columns = torch.linspace(0, states.shape[-1] - 1, _DIMENSIONS, dtype=torch.float64).long()
    return states[list(_POSITIONS)].float().cpu()[:, columns].flatten()
