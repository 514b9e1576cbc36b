"""A draft for a model without a small sibling: its own first layers."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from transformers import PreTrainedModel

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.anatomy import anatomy

Module = TypeVar("Module", bound=nn.Module)


def first_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """``model`` with only its first ``count`` layers, and its own norm and head behind them; weights are shared.

    Raises:
        JudgeDecodingError: it has not that many, or keeps them where nobody knows.
    """
    name = anatomy(model).layers
    if name is None:
        raise JudgeDecodingError(f"{type(model).__name__} keeps its layers in no list; name a draft model instead.")
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
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:count]
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


def _shallow(module: Module) -> Module:
    """A copy that shares its parts, and to which parts can be given that the original does not get."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other
