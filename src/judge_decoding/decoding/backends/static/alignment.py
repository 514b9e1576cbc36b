"""Weights at aligned addresses.

The loops that read a matrix for few tokens load 32 or 64 bytes at once. Weights that are mapped from a file lie where
the file has them, at any multiple of 8, and then every second load, or each, meets two cache lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

CACHE_LINE = 64
"""Bytes. What torch allocates on a CPU begins at a multiple of it."""

_SETTLED = "_judge_decoding_settled"


def align(model: nn.Module) -> None:
    """Copy a CPU model's float32 weights to aligned memory, those that need it; they stay the same parameters.

    It is done once, before compiled code is given their addresses: weights that another model has brought along, of
    which this one may be a part, stay where they are.
    """
    weights = [weight for weight in model.parameters() if _address(weight) != getattr(weight, _SETTLED, None)]
    usual = [weight for weight in weights if _can_move(weight)]
    if not _overlap(usual):
        _move([weight for weight in usual if weight.data_ptr() % CACHE_LINE])
    for weight in weights:
        setattr(weight, _SETTLED, _address(weight))


def _move(weights: Sequence[nn.Parameter]) -> None:
    moved: dict[int, Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for weight in weights:
            address = weight.data_ptr()
            if address not in moved:  # else it is one under two names
                moved[address] = weight.clone()
            weight.data = moved[address]


def _can_move(weight: nn.Parameter) -> bool:
    return (
        type(weight) is nn.Parameter  # no quantized weights
        and weight.layout is torch.strided
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and weight.numel() > 0
        and weight.is_contiguous()
        and not (weight.is_shared() or weight.is_inference())
    )


def _overlap(weights: Sequence[nn.Parameter]) -> bool:
    """Whether some are parts of others: copies would be that no more."""
    spans = sorted({(weight.data_ptr(), weight.nbytes, weight.shape) for weight in weights})
    return any(start + size > after for (start, size, _), (after, _, _) in pairwise(spans))


def _address(weight: nn.Parameter) -> int | None:
    return weight.data_ptr() if type(weight) is nn.Parameter and weight.layout is torch.strided else None
