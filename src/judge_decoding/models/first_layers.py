"""A draft for a model without a smaller model of its family: its own first layers."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.errors import JudgeDecodingError, reason
from judge_decoding.models.abilities import is_quantized
from judge_decoding.models.anatomy import anatomy
from judge_decoding.models.forward import input_device, plain_forward, undisturbed
from judge_decoding.models.hidden import HiddenStateHook

Module = TypeVar("Module", bound=nn.Module)


def first_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """Return ``model`` with only its first ``count`` layers, followed by its norm and head; weights are shared."""
    name = anatomy(model).layers
    if name is None:
        raise JudgeDecodingError(f"{type(model).__name__} has no list of layers; give a draft model instead.")
    layers = model.get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    if not 1 <= count < len(layers):
        raise JudgeDecodingError(
            f"The draft is to have {count} layers, and {type(model).__name__} has {len(layers)}; take from 1 to "
            f"{len(layers) - 1}."
        )
    config = copy.deepcopy(model.config)
    text = config.get_text_config(decoder=True)
    text.num_hidden_layers = count
    for key, value in vars(text).items():
        if isinstance(value, list | tuple) and len(value) == len(layers) and ("layer" in key or "block_type" in key):
            setattr(text, key, value[:count])
    short = _shallow(model)
    *above, last = name.split(".")
    holders: list[nn.Module] = [short]
    for part in above:
        holders.append(_shallow(getattr(holders[-1], part)))
        setattr(holders[-2], part, holders[-1])
    for holder in holders:
        if isinstance(holder, PreTrainedModel):
            holder.config = text if holder.config.model_type == text.model_type else config
    setattr(holders[-1], last, layers[:count])
    if model.generation_config is not None:
        short.generation_config = copy.deepcopy(model.generation_config)
    return short


def cut_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """Copy the first ``count`` layers of ``model``, its embeddings, final norm and head into a new float32 model."""
    if is_quantized(model):
        raise JudgeDecodingError(
            f"The weights of {type(model).__name__} are quantised, and its layers cannot be trained; load the target "
            "as it was before, in bfloat16 or float32."
        )
    if len({parameter.device for parameter in model.parameters()}) > 1 or getattr(model, "hf_device_map", None):
        raise JudgeDecodingError(
            f"{type(model).__name__} is spread over several devices, and a draft is trained on one; load the target on "
            "one device."
        )
    # Shared parts stay shared within the copy.
    short = copy.deepcopy(first_layers(model, count))
    short.float().eval()
    if problem := _not_a_stack(model, short, count):
        raise JudgeDecodingError(
            f"The layers of {type(model).__name__} cannot be cut, because the first ones are not a model by "
            f"themselves ({problem}); give a draft model of the same family instead."
        )
    return short


def _not_a_stack(model: PreTrainedModel, short: PreTrainedModel, count: int) -> str:
    """Return why ``short`` contradicts its configuration, or computes something else than the layers of ``model``."""
    try:
        with torch.device("meta"):
            plain = type(model)(copy.deepcopy(short.config))
        wanted = {name: value.shape for name, value in plain.state_dict().items()}
        given = {name: value.shape for name, value in short.state_dict().items()}
        if wanted != given:
            other = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
            return f"{other[0]} differs"
        layers = model.get_submodule(anatomy(model).layers or "")
        assert isinstance(layers, nn.ModuleList)
        ids = torch.tensor([[0, 1, 2, 3]], device=input_device(model))
        states = []
        for one, source in (
            (model, HiddenSource(count - 1 - len(layers), "before")),
            (short, HiddenSource(-1, "before")),
        ):
            with HiddenStateHook(one, source) as tap, undisturbed(one):
                plain_forward(one, ids, 1)
                states.append(tap.states.float())
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return reason(error)
    slack = 1e-3 if model.dtype == torch.float32 else 0.05
    return "" if (states[0] - states[1]).norm() <= slack * states[0].norm() else "it computes something else"


def _shallow(module: Module) -> Module:
    """Return a copy that shares its submodules, and whose submodules can be replaced without changing the original."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other
