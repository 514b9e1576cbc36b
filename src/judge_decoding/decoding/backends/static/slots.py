"""KV caches in which token i of a row is always at column i: their memory, and the view of them that a model gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from judge_decoding.models.forward import Forward, row_positions, undisturbed

KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, each [B, heads, L, D]."""


class SlotLayer(CacheLayerMixin):
    """One layer of a KV cache that writes the new tokens at the columns of their ``positions`` [B, T].

    Keys and values [B, heads, L, D] are written in place. The first ``width`` columns, all that hold tokens, are
    attended.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor, width: int) -> None:
        self.keys, self.values = self._slots = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._positions, self._width = positions, width

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing, as the memory is preallocated."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the new tokens, and return the keys and values of all attended columns."""
        rows = torch.arange(key_states.shape[0], device=self.device)[:, None, None]
        heads = torch.arange(key_states.shape[1], device=self.device)[None, :, None]
        place = (rows, heads, self._positions[:, None, :])
        keys, values = self._slots
        keys.index_put_(place, key_states)
        values.index_put_(place, value_states)
        return keys[:, :, : self._width], values[:, :, : self._width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns of a mask, and its offset."""
        return self._width, 0

    def get_seq_length(self) -> int:
        """Return 0; unused, as positions are given."""
        return 0

    def get_max_length(self) -> int:
        """Return the capacity in tokens."""
        return self._slots[0].shape[2]


@dataclass(frozen=True, slots=True)
class LayerShape:
    """The number of heads and their size in one layer, of keys and of values; a layer without a cache has one of 1."""

    key_heads: int = 1
    key_size: int = 1
    value_heads: int = 1
    value_size: int = 1


_SHAPES: WeakKeyDictionary[PreTrainedModel, Sequence[LayerShape]] = WeakKeyDictionary()


def layer_shapes(model: PreTrainedModel) -> Sequence[LayerShape]:
    """Return the shape of each layer's keys and values, which a forward pass over one token shows.

    Configurations do not say it in one way: latent attention has keys and values of other sizes than its heads, and
    some models have wider heads in some layers, or layers that read the keys of another layer.
    """
    if model not in _SHAPES:
        cache = DynamicCache(config=model.config)
        with undisturbed(model):
            ids = torch.zeros(1, 1, dtype=torch.long, device=model.device)
            Forward(model)(ids, cache, 1, positions=row_positions(0, 1, ids.device))
        _SHAPES[model] = [_shape(getattr(one, "keys", None), getattr(one, "values", None)) for one in cache.layers]
    return _SHAPES[model]


def _shape(keys: object, values: object) -> LayerShape:
    if isinstance(keys, Tensor) and isinstance(values, Tensor) and keys.ndim == values.ndim == 4:
        return LayerShape(keys.shape[1], keys.shape[3], values.shape[1], values.shape[3])
    return LayerShape()


def new_cache(model: PreTrainedModel, rows: int, columns: int) -> KeysValues:
    """Allocate a KV cache of ``rows`` rows of ``columns`` tokens. Zeros, as values after a row's end must be finite."""

    def zeros(heads: int, size: int) -> Tensor:
        return torch.zeros(rows, heads, columns, size, dtype=model.dtype, device=model.device)

    return [(zeros(one.key_heads, one.key_size), zeros(one.value_heads, one.value_size)) for one in layer_shapes(model)]
