"""Linear layers with weights of 8 bits, in the form that can be compiled: plain tensors of integers and their scales.

torchao keeps both in a tensor subclass, whose parts `torch.export` cannot bind to weights that stay the model's own.
The compiled code reads the integers themselves: a quarter of the bytes of float32. For few tokens it reads four of them
as one number of 32 bits, since the compiler's loads of single bytes on a CPU take longer than all the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import wrap_torch_function
from transformers import PreTrainedModel

from judge_decoding.errors import CannotCompileError
from judge_decoding.models.abilities import is_quantized


@wrap_torch_function(lambda x, weight, words: (x, weight, words))
def int8_linear(x: Tensor, weight: Tensor, words: Tensor | None) -> Tensor:  # noqa: ARG001  (for `FewTokens`)
    """Return the product [..., out] of ``x`` [..., in] and integers [out, in]; `FewTokens` computes it from ``words``.

    Args:
        x: floating-point numbers [..., in].
        weight: integers of 8 bits [out, in].
        words: the same memory as float32 [out, in / 4], or None; see `words_of`.
    """
    return nn.functional.linear(x, weight.to(x.dtype))


def words_of(weight: Tensor) -> Tensor | None:
    """Return integers of 8 bits [out, in] as float32 [out, in / 4] of the same memory; None where that cannot be.

    The numbers mean nothing. They are float32, not int32, because the compiler loads only those in one instruction.
    """
    fits = weight.is_contiguous() and weight.shape[1] % 4 == 0 and weight.data_ptr() % 4 == 0
    return weight.view(torch.float32) if fits else None


def bytes_of(words: Tensor) -> Iterator[Tensor]:
    """Split the output of `words_of` [...] into its four integers a word, the first first, as int32 [...] each."""
    bits = words.view(torch.int32)
    for unused in (24, 16, 8, 0):  # the bits above the byte; those below it are shifted out, and the sign is kept
        yield (bits << unused) >> 24


class Int8Linear(nn.Module):
    """A linear layer of integers [out, in], shared and not copied, with a scale for each row [out] or for all [1]."""

    weight: Tensor
    words: Tensor | None
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("words", words_of(weight))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the product [..., out] with ``x`` [..., in], in the order in which torchao computes it."""
        found = int8_linear(x, self.weight, self.words) * self.scale.to(x.dtype)
        return found if self.bias is None else found + self.bias


def is_torchao(weight: object) -> bool:
    """Whether this is a quantised weight of torchao."""
    return type(weight).__module__.startswith("torchao")


def check_weights(model: PreTrainedModel) -> None:
    """Raise `CannotCompileError` if ``model`` has quantised weights that compiled code cannot read."""
    if not is_quantized(model):
        return
    found = _layers(model)
    why = next(filter(None, map(_unreadable, found.values())), "" if found else "its weights are not torchao's")
    if why:
        raise CannotCompileError(
            f"{type(model).__name__} is quantised in a way that does not compile ({why}), unlike Int8WeightOnlyConfig"
        )


def _unreadable(module: nn.Module) -> str:
    weight: Any = module.weight
    if type(module) is not nn.Linear:
        return f"it has a quantised {type(module).__name__}"
    if type(weight).__name__ != "Int8Tensor":
        return f"its weights are {type(weight).__name__}s"
    if weight.act_quant_kwargs is not None or weight.act_pre_scale is not None:
        return "its activations are quantised, too"
    if weight.scale.numel() not in (1, weight.shape[0]):
        return "its weights have a scale for each group"
    zero = weight.zero_point
    return "its weights are not symmetric" if zero is not None and bool(zero.any()) else ""


def _layers(model: nn.Module) -> dict[str, Any]:
    """Return the layers of ``model`` whose weights are torchao's, by name."""
    return {name: module for name, module in model.named_modules() if is_torchao(getattr(module, "weight", None))}


def scales_of(model: nn.Module) -> dict[str, int]:
    """Return the number of scales of each quantised layer of ``model``, by name."""
    return {name: layer.weight.scale.numel() for name, layer in _layers(model).items()}


@contextmanager
def plain_weights(model: nn.Module) -> Iterator[None]:
    """Within the block, ``model`` has an `Int8Linear` in the place of each quantised layer. Hold its lock."""
    before = _layers(model)
    try:
        for name, layer in before.items():
            weight = layer.weight  # its parts are shared, not copied
            model.set_submodule(name, Int8Linear(weight.qdata, weight.scale.flatten(), layer.bias))
        yield
    finally:
        for name, layer in before.items():
            model.set_submodule(name, layer)
