"""A draft for a model without a small sibling: its own first layers."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel

from judge_decoding.decoding.models import layers_name
from judge_decoding.errors import JudgeDecodingError


def first_layers(model: PreTrainedModel, count: int) -> PreTrainedModel:
    """``model`` with only its first ``count`` layers, and its own norm and head behind them; weights are shared.

    Raises:
        JudgeDecodingError: it has not that many, or keeps them where nobody knows.
    """
    decoder = model.get_decoder()
    name = layers_name(decoder)
    inside = next((own for own, module in model.named_children() if module is decoder), None)
    if name is None or inside is None:
        raise JudgeDecodingError(
            f"{type(model).__name__} keeps its layers under no known name; name a draft model instead."
        )
    layers: nn.ModuleList = getattr(decoder, name)
    if not 1 <= count < len(layers):
        raise JudgeDecodingError(
            f"The draft is to have {count} layers, and {type(model).__name__} has {len(layers)}; take from 1 to "
            f"{len(layers) - 1}."
        )
    short, inner = _shallow(model), _shallow(decoder)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:count]
    inner.config = short.config = config
    setattr(inner, name, layers[:count])
    setattr(short, inside, inner)
    if model.generation_config is not None:
        short.generation_config = copy.deepcopy(model.generation_config)
    return short


def _shallow(module: PreTrainedModel) -> PreTrainedModel:
    """A copy that shares its parts, and to which parts can be given that the original does not get."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other
