"""The compiled graphs: one forward pass of a target, and a few greedy steps of a draft, on caches passed as inputs.

Token i of a row is always at column i of the cache. So a row's only state is its length: to roll back, decoding
continues from an earlier position, whose columns the next forward pass overwrites; rows of a batch advance by different
amounts without padding between them; and columns after a row's end are never attended to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import Cache, PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.static.masks import causal_mask, has_windows, masks_by_position
from judge_decoding.decoding.backends.static.quantized import bytes_of, int8_linear, is_torchao
from judge_decoding.decoding.backends.static.slots import KeysValues, SlotLayer
from judge_decoding.models.draft_vocabulary import compact
from judge_decoding.models.forward import Forward, input_rows
from judge_decoding.models.hidden import HiddenStateHook, opened

CHUNK_BYTES = 2**18
"""This much of a matrix stays in a core's own cache while it is multiplied with one token after another."""


class FewTokens(TorchFunctionMode):
    """Linear layers for few tokens, as sums that compile to plain loops: the fastest way in float32 on a CPU.

    A forward pass of few tokens can be as fast as reading the weights. MKL's product of a few rows with a matrix takes
    two to four times that. Here some rows of the matrix are multiplied with all tokens before the next rows are read.
    """

    def __torch_function__(  # torch's own protocol
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Replace linear layers by an equivalent computation."""
        given = kwargs or {}
        if function is nn.functional.linear and not is_torchao(args[1] if len(args) > 1 else given["weight"]):
            function = _few_tokens_linear
        elif function is int8_linear:
            function = _few_tokens_int8
        return function(*args, **given)


def _few_tokens_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rows = _in_memory(x.reshape(-1, x.shape[-1]))
    found = _few_rows(weight) * rows[:, None]  # [chunks, tokens, rows of a chunk, in]
    found = _each_token(found.sum(-1), x)
    return found if bias is None else found + bias


def _few_tokens_int8(x: Tensor, weight: Tensor, words: Tensor | None) -> Tensor:
    if words is None:
        return _few_tokens_linear(x, weight.to(x.dtype))
    places = _in_memory(x.reshape(-1, words.shape[1], 4).transpose(1, 2))  # [tokens, 4, in / 4]
    products = [
        weights.to(x.dtype) * places[:, place, None] for place, weights in enumerate(bytes_of(_few_rows(words)))
    ]
    return _each_token((products[0] + products[1] + products[2] + products[3]).sum(-1), x)


def _in_memory(x: Tensor) -> Tensor:
    """A strided view must be in memory. Without it, the compiler would recompute ``x`` for each product."""
    x = x.contiguous()
    return x.as_strided(x.shape, x.stride())


def _few_rows(matrix: Tensor) -> Tensor:
    """Split a matrix [out, n] into chunks of at most `CHUNK_BYTES`: [chunks, 1, rows, n]."""
    out, size = matrix.shape
    most = max(CHUNK_BYTES // (size * matrix.element_size()), 1)
    chunk = next(count for count in range(min(most, out), 0, -1) if out % count == 0)
    return matrix.view(out // chunk, 1, chunk, size)


def _each_token(found: Tensor, x: Tensor) -> Tensor:
    """Join products [chunks, tokens, rows] to [..., out], as ``x`` [..., in] has its tokens."""
    return found.transpose(0, 1).reshape(*x.shape[:-1], -1)


def read(
    model: PreTrainedModel, start: Tensor, ids: Tensor, columns: Tensor, cache: KeysValues, keep: Tensor | int
) -> Tensor:
    """Read ``ids`` [B, T] from each row's position ``start`` [B] on; return the logits at ``keep`` [B, K, V].

    Raises `CannotCompileError` as `masks_by_position`.
    """
    positions = (start[:, None] + torch.arange(ids.shape[1], device=ids.device)).clamp(min=0)
    layers: list[Any] = [SlotLayer(keys, values, positions, columns.shape[0]) for keys, values in cache]
    windows = has_windows(model)
    mask = None if windows else causal_mask(model, positions, columns)
    with masks_by_position(model, positions, columns) if windows else nullcontext():
        return Forward(model)(ids, Cache(layers=layers), keep, mask, positions)


@dataclass(frozen=True, slots=True)
class TargetOutput:
    """The output of one forward pass of the target.

    Attributes:
        packed: [3, B, K] in float32, which represents every id below 2 ** 24 exactly: the ids read, the target's own
            token after each, and the judge's probability that the id read is correct, NaN where logits are not finite.
            A round whose rule is fused needs nothing else.
        logits: the logits [B, K, V], in the model's dtype.
        states: the hidden states at the ids read [B, K, H], one tensor per source.
    """

    packed: Tensor
    logits: Tensor
    states: tuple[Tensor, ...]


class TargetGraph(nn.Module):
    """One forward pass of the target, including the judge.

    Args:
        model: the target.
        sources: the sources of the hidden states to return; the judge reads the first.
        few: optimise for few tokens at a time; see `FewTokens`.
    """

    def __init__(self, model: PreTrainedModel, sources: tuple[HiddenSource, ...], *, few: bool = False) -> None:
        super().__init__()
        self.model, self._few = model, few
        # Created here, as finding the place of a hook takes a forward pass of its own.
        self._hooks = [HiddenStateHook(model, source) for source in sources]

    def forward(
        self, tokens: Tensor, columns: Tensor, keep: Tensor, weight: Tensor, bias: Tensor, cache: KeysValues
    ) -> tuple[Tensor, ...]:
        """Return the parts of `TargetOutput`.

        Args:
            tokens: the position of each row's first token, followed by the ids to read [B, 1 + T]. This is one tensor,
                as each tensor costs time to create and pass.
            columns: 0, 1, ... up to the number of attended columns [W].
            keep: the positions, out of T, to return results for [K].
            weight: the judge's weight [1, H].
            bias: the judge's bias [1].
            cache: keys and values, written in place.
        """
        start, ids = tokens[:, 0], tokens[:, 1:]
        with opened(self._hooks):
            with FewTokens() if self._few else nullcontext():
                logits = read(self.model, start, ids, columns, cache, keep)
            states = [hook.states[:, keep] for hook in self._hooks]
        scores = torch.sigmoid(nn.functional.linear(states[0].float(), weight, bias)[..., 0])
        best = logits.max(-1)
        scores = torch.where(best.values.isfinite(), scores, torch.nan)
        packed = torch.stack((ids[:, keep].float(), best.indices.float(), scores))
        return packed, logits, *states


class DraftGraph(nn.Module):
    """Reads some tokens, then continues greedily for ``steps`` tokens; for ``few`` see `TargetGraph`.

    The draft chooses from its own tokens below ``vocab_size``, that of the target.
    """

    def __init__(self, model: PreTrainedModel, steps: int, vocab_size: int, *, few: bool = False) -> None:
        super().__init__()
        self.model, self._steps, self._vocab_size, self._few = model, steps, vocab_size, few
        self._last_id = input_rows(model) - 1

    def forward(self, tokens: Tensor, columns: Tensor, cache: KeysValues) -> tuple[Tensor, Tensor]:
        """Return the target's next input: position and id of the last token, and the chosen tokens [B, 2 + steps].

        The second result is the input of the next call: position and id of the last chosen token [B, 2]. The arguments
        are those of `TargetGraph.forward`.
        """
        start, ids = tokens[:, 0], tokens[:, 1:]
        chosen = [(start + ids.shape[1] - 1)[:, None], ids[:, -1:]]
        for _ in range(self._steps):
            with compact(self.model) as kept, FewTokens() if self._few else nullcontext():
                logits = read(self.model, start, ids.clamp(max=self._last_id), columns, cache, 1)
            start = start + ids.shape[1]
            ids = logits[:, -1, : self._vocab_size].argmax(-1, keepdim=True)
            if kept is not None:  # map indices of a cut head to token ids
                ids = kept[ids]
            chosen.append(ids)
        return torch.cat(chosen, 1), torch.cat((start[:, None], ids), 1)
