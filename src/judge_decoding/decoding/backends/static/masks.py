"""Attention masks by position: which columns of a cache each token attends to, whatever pattern its layer has.

Models make their masks (causal, sliding window, chunked) with transformers' own functions, which number the tokens of
all rows alike. Here every row is at a position of its own. So the functions that say which pairs may attend are kept,
and asked about the true positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from judge_decoding.errors import CannotCompileError
from judge_decoding.models.abilities import window_sizes

IMPLEMENTATIONS = ("sdpa", "eager")
"""The attention implementations of transformers that can be compiled."""

_ONE_AT_A_TIME = RLock()
"""transformers has one table of mask functions for all models and threads."""


def has_windows(model: PreTrainedModel) -> bool:
    """Whether some layers of ``model`` attend to the latest tokens only."""
    layers = DynamicCache(config=model.config).layers
    return any(getattr(layer, "is_sliding", False) for layer in layers) or bool(window_sizes(model))


def causal_mask(model: PreTrainedModel, positions: Tensor, columns: Tensor) -> Tensor:
    """Return the mask [B, 1, T, W] of tokens at ``positions`` [B, T] for ``columns`` [W], as the model takes it."""
    allowed = (columns <= positions[:, :, None])[:, None]
    return _in_form(allowed, model.config.get_text_config()._attn_implementation, model.dtype)


@contextmanager
def masks_by_position(model: PreTrainedModel, positions: Tensor, columns: Tensor) -> Iterator[None]:
    """Within the block, the masks that ``model`` makes in this thread are for its tokens' true positions.

    The model must be given no mask. Its new tokens are at ``positions`` [B, T], and may attend to ``columns`` [W] of
    the cache. Raises `CannotCompileError` at the end of the block if the model has not asked for the mask of its
    windows, so that code of its own must look after them; or if its masks come from functions that cannot be asked so.
    """
    thread, sizes = get_ident(), set[int]()

    def made(name: str, original: Callable[..., Any], *args: object, **given: Any) -> Any:  # noqa: ANN401  (transformers' own)
        if get_ident() != thread:
            return original(*args, **given)
        if given.get("use_vmap"):
            raise CannotCompileError("its attention masks come from functions of its own")
        if (size := given.get("local_size")) is not None:
            sizes.add(size)
        rows = torch.arange(positions.shape[0], device=positions.device)[:, None, None, None]
        head = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=positions.device)
        allowed = given["mask_function"](rows, head, positions[:, None, :, None], columns[None, None, None, :])
        return _in_form(allowed.expand(positions.shape[0], -1, -1, -1), name, given.get("dtype", model.dtype))

    with _ONE_AT_A_TIME:
        before = {name: ALL_MASK_ATTENTION_FUNCTIONS[name] for name in IMPLEMENTATIONS}
        try:
            for name, original in before.items():
                AttentionMaskInterface.register(name, partial(made, name, original))
            yield
        finally:
            for name, original in before.items():
                AttentionMaskInterface.register(name, original)
    if not sizes:
        raise CannotCompileError("code of its own looks after its attention windows")


def _in_form(allowed: Tensor, implementation: str | None, dtype: torch.dtype) -> Tensor:
    """Return a mask of bools as ``implementation`` reads it: plain attention adds it to the scores."""
    if implementation != "eager":
        return allowed
    return torch.where(allowed, torch.zeros((), dtype=dtype, device=allowed.device), torch.finfo(dtype).min)
