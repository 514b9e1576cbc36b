"""Weights in huge pages.

A forward of few tokens does little but read the weights, from first to last. In pages of 4 KB the processor looks up
one every thousand numbers, and forgets what it knew of Python's pages meanwhile; pages of 2 MB spare both.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

LEAST_BYTES = 2**22
"""Models that would fill less than two such pages stay where they are."""

_ALIGNMENT = 64
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SETTLED = "_judge_decoding_settled"


def settle(model: nn.Module) -> None:
    """Move a CPU model's weights into huge pages, where the system has them; they stay the same parameters.

    It is done once, before compiled code is given their addresses: weights that another model has brought along, of
    which this one may be a part, stay where they are. Each is freed where it was as soon as it is copied, if nobody
    else uses it there. Only on Linux, unless it is told never to use huge pages.
    """
    weights = [weight for weight in model.parameters() if not hasattr(weight, _SETTLED)]
    for weight in weights:
        setattr(weight, _SETTLED, True)
    _move([weight for weight in weights if _can_move(weight)])


def _move(weights: Sequence[nn.Parameter]) -> None:
    total = sum(_padded(weight.nbytes) for weight in weights)
    if total < LEAST_BYTES or not _available():
        return
    try:
        # Private: shared memory has a setting of its own for huge pages, which is mostly "never".
        memory = mmap.mmap(-1, total, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError as error:  # no memory for that, or a kernel without huge pages
        logger.info("The weights stay in small pages: %s", error)
        return
    offset = 0
    moved: dict[tuple[int, torch.Size], Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for weight in weights:
            place = (weight.data_ptr(), weight.shape)
            if place not in moved:  # else it is one under two names
                # A storage of its own each: those that share one count as tied where a model is saved.
                flat = torch.frombuffer(memory, dtype=weight.dtype, count=weight.numel(), offset=offset)
                moved[place] = flat.view(weight.shape).copy_(weight)
                offset += _padded(weight.nbytes)
            weight.data = moved[place]


def _can_move(weight: nn.Parameter) -> bool:
    return (
        type(weight) is nn.Parameter  # quantized weights have types of their own
        and weight.device.type == "cpu"
        and weight.numel() > 0
        and weight.is_contiguous()
        and not (weight.is_shared() or weight.is_inference())
    )


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _available() -> bool:
    try:
        return hasattr(mmap, "MADV_HUGEPAGE") and "[never]" not in _SETTING.read_text()
    except OSError:
        return False
