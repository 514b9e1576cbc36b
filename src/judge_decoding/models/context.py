"""The maximum sequence length, and the length at which rotary positions change their scale."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from judge_decoding.models.forward import CACHE_NAMES

# For these types the configured length is the one before scaling; the others store the scaled length.
_SCALED = ("linear", "dynamic", "yarn")


def context_length(model: PreTrainedModel) -> int | None:
    """Return the context length of ``model`` in tokens; None if it is unlimited.

    Scaled rotary positions (linear, dynamic, YaRN) reach ``factor`` times the trained length, unless the configuration
    already contains the scaled length.
    """
    config = model.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length <= 0:
        return None
    rope = _rope(config)
    if rope.get("rope_type") in _SCALED and isinstance(factor := rope.get("factor"), int | float):
        trained = rope.get("original_max_position_embeddings") or length
        length = max(length, int(trained * factor))
    return length


@dataclass(frozen=True, slots=True)
class RopeBorder:
    """The sequence length at which rotary positions change their scale.

    Sequences of up to ``length`` tokens use one scale. Beyond it LongRoPE (the Phi-3 family) uses a second scale for
    all tokens, and dynamic scaling uses another scale for every length (``changes_always``). Where ``starts_anew``,
    ``generate`` reads the whole sequence again when it crosses the border.
    """

    length: int
    changes_always: bool
    starts_anew: bool

    def longest_draft(self, tokens: int) -> int | None:
        """Return how many draft tokens may follow ``tokens`` in one correct forward pass; None for any number."""
        if tokens <= self.length:
            return self.length - tokens
        return 0 if self.changes_always else None

    def rereads(self, cached: int, reading: int) -> bool:
        """Whether the ``cached`` tokens must be read again in a forward pass that ends at length ``reading``."""
        return self.starts_anew and 0 < cached <= self.length < reading

    def splits(self, reading: int) -> bool:
        """Whether a sequence of this length may be read in parts."""
        return reading <= self.length or not self.changes_always


_BORDERS: WeakKeyDictionary[PreTrainedModel, RopeBorder | None] = WeakKeyDictionary()


def rope_border(model: PreTrainedModel) -> RopeBorder | None:
    """Return where the positions of ``model`` change their scale; None if they never do."""
    if model not in _BORDERS:
        _BORDERS[model] = _find_border(model)
    return _BORDERS[model]


def _find_border(model: PreTrainedModel) -> RopeBorder | None:
    config = model.config.get_text_config()
    rope = _rope(config)
    kind = rope.get("rope_type")
    if kind not in ("longrope", "dynamic"):
        return None
    trained = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    length = trained or config.max_position_embeddings
    if kind == "dynamic":
        return RopeBorder(length, changes_always=True, starts_anew=False)
    return RopeBorder(length, changes_always=False, starts_anew=_drops_cache(model, length))


def rotary_modules(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules of ``model`` that compute rotary positions."""
    return [module for module in model.modules() if hasattr(module, "original_max_seq_len")]


def reset_positions(rotary_modules: Iterable[nn.Module]) -> None:
    """Reset dynamically scaled positions, which remember the longest sequence read so far."""
    for module in rotary_modules:
        rotary: Any = module
        trained = rotary.original_max_seq_len
        if getattr(rotary, "max_seq_len_cached", trained) != trained:
            rotary.max_seq_len_cached = trained
            rotary.register_buffer("inv_freq", rotary.original_inv_freq.to(rotary.inv_freq.device), persistent=False)


def _drops_cache(model: PreTrainedModel, length: int) -> bool:
    """Whether ``generate`` drops the KV cache when a sequence grows beyond ``length``, tested on the model."""
    prepare = getattr(model, "prepare_inputs_for_generation", None)
    if prepare is None:
        return False
    cache = DynamicCache()
    cache.update(torch.zeros(1, 1, length, 1), torch.zeros(1, 1, length, 1), 0)
    ids = torch.zeros(1, length + 1, dtype=torch.long)
    name = next(n for n in CACHE_NAMES if n in inspect.signature(prepare).parameters or n == CACHE_NAMES[-1])
    prepared: Mapping[str, Any] = prepare(
        ids, attention_mask=torch.ones_like(ids), use_cache=True, next_sequence_length=1, **{name: cache}
    )
    return not any(prepared.get(known) is not None for known in CACHE_NAMES)


def _rope(config: Any) -> Mapping[str, Any]:  # noqa: ANN401  (each family has its own class)
    """Return the parameters of rotary positions; empty if layers differ in them or there are no such parameters."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        return {}
    return {"rope_type": rope.get("rope_type", rope.get("type")), **rope}
