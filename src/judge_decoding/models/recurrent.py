"""Recurrent and linear-attention layers: copies of their states, which cannot be cropped, and their time steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin


class SavedStates:
    """The states of a one-row KV cache after its first ``length`` tokens.

    Only states that cannot be cropped are copied: convolutional and recurrent states, and the window of a layer that
    also has such states. Keys and values of attention layers are cropped.
    """

    def __init__(self, cache: DynamicCache, length: int) -> None:
        self.length = length
        self._states = {
            i: {name: _copied(value) for name, value in vars(layer).items() if name not in _cropped(layer)}
            for i, layer in enumerate(cache.layers)
            if is_recurrent(layer)
        }

    def restore(self, cache: DynamicCache, length: int) -> None:
        """Restore the states of the same cache, which has read ``length`` tokens by now."""
        crop_attention(cache, self.length - length)
        for i, states in self._states.items():
            for name, value in states.items():
                setattr(cache.layers[i], name, _copied(value))


def is_recurrent(layer: object) -> bool:
    """Whether a layer of a KV cache has states that depend on all tokens read so far."""
    return isinstance(layer, LinearAttentionCacheLayerMixin)


def record_past(cache: DynamicCache) -> None:
    """Make the sliding windows of attention layers keep the history needed for rollback."""
    for layer in cache.layers:
        if not is_recurrent(layer) and hasattr(layer, "activate_past_recording"):
            layer.activate_past_recording()


_UNBOUNDED = (0.0, math.inf)

_BOUNDED: WeakKeyDictionary[nn.Module, tuple[Any, ...]] = WeakKeyDictionary()


def bounded_steps(model: nn.Module) -> tuple[Any, ...]:
    """Return the Mamba 2 layers of ``model`` that bound their time steps when they read several tokens at once.

    In transformers a token that is read alone has no such bound (Nemotron-H and Zamba2 have one by default). The layers
    are remembered, as another thread may be within `unbounded_steps`.
    """
    if model not in _BOUNDED:
        limits = ((module, getattr(module, "time_step_limit", _UNBOUNDED)) for module in model.modules())
        _BOUNDED[model] = tuple(module for module, limit in limits if tuple(limit) != _UNBOUNDED)
    return _BOUNDED[model]


@contextmanager
def unbounded_steps(layers: Sequence[Any]) -> Iterator[None]:
    """Within the block, ``layers`` read several tokens as they read each alone. Hold the model's lock."""
    before = [layer.time_step_limit for layer in layers]
    try:
        for layer in layers:
            layer.time_step_limit = _UNBOUNDED
        yield
    finally:
        for layer, limit in zip(layers, before, strict=True):
            layer.time_step_limit = limit


def _cropped(layer: object) -> tuple[str, ...]:
    """Return the attributes of a recurrent layer that can be cropped: keys and values of its attention."""
    attends = isinstance(layer, DynamicLayer) and not isinstance(layer, DynamicSlidingWindowLayer)
    return ("keys", "values") if attends else ()


def crop_attention(cache: DynamicCache, count: int) -> None:
    """Crop ``-count`` tokens from attention layers only; 0 trims the recorded history of sliding windows."""
    layers: list[Any] = cache.layers  # not all layer types declare the method
    for layer in layers:
        if not is_recurrent(layer):
            layer.crop(count)
        elif isinstance(layer, DynamicLayer) and _cropped(layer):
            DynamicLayer.crop(layer, count)


def _copied(value: Any) -> Any:  # noqa: ANN401  (whatever a layer of a cache holds)
    """Copy values to other memory, as a forward pass writes into the existing states."""
    if isinstance(value, Tensor):
        return value.clone()
    return {key: _copied(part) for key, part in value.items()} if isinstance(value, dict) else value
