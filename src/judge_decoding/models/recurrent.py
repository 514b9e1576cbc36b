"""Recurrent and linear-attention layers: copies of their states, as what they have read cannot be cut off."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin


class SavedStates:
    """The states of a KV cache after its first ``length`` tokens, of one row.

    Only what cannot be cropped is copied: convolutional and recurrent states, and the window of a layer that has one
    beside them. Keys and values of attention layers are cropped.

    Args:
        cache: the cache.
        length: how many tokens it has read.
    """

    def __init__(self, cache: DynamicCache, length: int) -> None:
        self.length = length
        self._states = {
            i: {name: _copied(value) for name, value in vars(layer).items() if name not in _cropped(layer)}
            for i, layer in enumerate(cache.layers)
            if is_recurrent(layer)
        }

    def restore(self, cache: DynamicCache, length: int) -> None:
        """Put the states back into the same cache, which has read ``length`` tokens by now."""
        crop_attention(cache, self.length - length)
        for i, states in self._states.items():
            for name, value in states.items():
                setattr(cache.layers[i], name, _copied(value))

    @property
    def bytes(self) -> int:
        """The memory of the copies."""
        return sum(_bytes(value) for states in self._states.values() for value in states.values())


def is_recurrent(layer: object) -> bool:
    """Whether a layer of a KV cache has states that depend on all tokens it has read."""
    return isinstance(layer, LinearAttentionCacheLayerMixin)


def record_past(cache: DynamicCache) -> None:
    """Let the sliding windows of attention layers keep what they need to go back."""
    for layer in cache.layers:
        if not is_recurrent(layer) and hasattr(layer, "activate_past_recording"):
            layer.activate_past_recording()


def _cropped(layer: object) -> tuple[str, ...]:
    """What a recurrent layer has that is cropped: the keys and values of the attention inside it."""
    attends = isinstance(layer, DynamicLayer) and not isinstance(layer, DynamicSlidingWindowLayer)
    return ("keys", "values") if attends else ()


def crop_attention(cache: DynamicCache, count: int) -> None:
    """Take ``-count`` tokens back from attention alone; 0 trims what sliding windows have recorded."""
    layers: list[Any] = cache.layers  # not all kinds have the method by their types
    for layer in layers:
        if not is_recurrent(layer):
            layer.crop(count)
        elif isinstance(layer, DynamicLayer) and _cropped(layer):
            DynamicLayer.crop(layer, count)


def _copied(value: Any) -> Any:  # noqa: ANN401  (whatever a layer of a cache holds)
    """The same values in other memory: a forward writes into the states that it finds."""
    if isinstance(value, Tensor):
        return value.clone()
    return {key: _copied(part) for key, part in value.items()} if isinstance(value, dict) else value


def _bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    return sum(map(_bytes, value.values())) if isinstance(value, dict) else 0
