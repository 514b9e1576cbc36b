"""A compiled model and the KV cache of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from judge_decoding.core.hidden import LAST, HiddenSource
from judge_decoding.decoding.backends.static.compiling import (
    Compiled,
    CompileProgress,
    compile_target,
    default_folder,
    has_few,
)
from judge_decoding.decoding.backends.static.graphs import TargetOutput
from judge_decoding.decoding.backends.static.kv_cache import StaticKVCache
from judge_decoding.decoding.backends.static.slots import KeysValues

PREFILL = 512
"""The number of prompt tokens read at once: the activation memory of a forward pass grows with it."""

FEW = 20
"""Up to this many tokens, over all rows, are read by the forward pass for few tokens, if there is one."""


def in_parts(rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Split padded prompts [T_i] into parts of `PREFILL` tokens, as `TargetGraph` reads them, with each part's end."""
    ids = pad_sequence(list(rows), batch_first=True)
    for start in range(0, ids.shape[1], PREFILL):
        part = ids[:, start : start + PREFILL]
        yield nn.functional.pad(part, (1, 0), value=start), start + part.shape[1]


def are_few(tokens: Tensor) -> bool:
    """Whether the forward pass for few tokens reads ``tokens``, which are as in `TargetGraph.forward`."""
    rows, width = tokens.shape
    return rows * (width - 1) <= FEW


class CompiledForward:
    """A target's forward pass, compiled for any number of tokens and, where that is faster, for up to `FEW` tokens."""

    def __init__(self, wide: Compiled, few: Compiled | None) -> None:
        self._wide, self._few = wide, few or wide

    def __call__(self, tokens: Tensor, *others: Tensor | KeysValues) -> list[Tensor]:
        """See `TargetGraph.forward`."""
        return (self._few if are_few(tokens) else self._wide)(tokens, *others)


class CompiledForwards:
    """The compiled forward passes of a model; each returns the hidden states of some sources."""

    def __init__(self, model: PreTrainedModel, progress: CompileProgress, folder: Path | None = None) -> None:
        self.model = model
        self._progress, self._folder = progress, folder or default_folder()
        self._compiled: dict[tuple[HiddenSource, ...], CompiledForward] = {}
        self._lock = Lock()

    def for_sources(self, sources: set[HiddenSource]) -> tuple[tuple[HiddenSource, ...], CompiledForward]:
        """Return a forward pass with at least these sources, and its sources; it is compiled if there is none."""
        with self._lock:
            for known, compiled in self._compiled.items():
                if sources <= set(known):
                    return known, compiled
            wanted = tuple(sorted(sources)) or (LAST,)
            make = partial(compile_target, self.model, wanted, self._progress, self._folder)
            self._compiled[wanted] = CompiledForward(make(), make(few=True) if has_few(self.model) else None)
            return wanted, self._compiled[wanted]


class StaticLM:
    """The counterpart of `CachedLM` with a compiled forward pass, ``run``, and a preallocated KV cache.

    Every forward pass applies a judge with this ``weight`` [1, H] and ``bias`` [1].
    """

    def __init__(
        self,
        model: PreTrainedModel,
        run: Callable[..., list[Tensor]],
        kv_cache: StaticKVCache,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        self._run, self.kv_cache = run, kv_cache
        size = model.config.get_text_config().hidden_size
        self._weight = torch.zeros(1, size, device=model.device) if weight is None else weight
        self._bias = torch.zeros(1, device=model.device) if bias is None else bias

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each row in the cache."""
        return self.kv_cache.lengths

    def prefill(self, rows: Sequence[Tensor]) -> None:
        """Read the first tokens of empty rows, ``rows[i]`` [T_i] each."""
        last = self.kv_cache.arange(1)  # logits of one position, the minimum
        for tokens, end in in_parts(rows):
            self._forward(tokens, end, last)
        self.kv_cache.lengths = [len(row) for row in rows]

    def append(self, known: Sequence[Sequence[int]], rows: Sequence[Tensor]) -> TargetOutput:
        """Append ``known[i]`` (equally many for each row) and then ``rows[i]`` [T_i]; return the target's output.

        Its K is the number of appended tokens of the longest row.
        """
        first = [[length, *ids] for length, ids in zip(self.lengths, known, strict=True)]
        tokens = self.kv_cache.tokens(first)
        more = [row.shape[0] for row in rows]
        if any(more):
            tokens = torch.cat((tokens, pad_sequence(list(rows), True) if len(rows) > 1 else rows[0][None]), 1)
        return self.read_batch(tokens, [len(ids) + new for ids, new in zip(known, more, strict=True)])

    def read_batch(self, tokens: Tensor, counts: Sequence[int]) -> TargetOutput:
        """Append ``counts[i]`` tokens to each row; ``tokens`` are as in `TargetGraph.forward`."""
        count = tokens.shape[1] - 1
        output = self._forward(tokens, max(self.lengths) + count, self.kv_cache.arange(count))
        self.kv_cache.lengths = [length + new for length, new in zip(self.lengths, counts, strict=True)]
        return output

    def read(self, rows: Sequence[Tensor], logits_to_keep: Sequence[int]) -> list[Tensor]:
        """See `CachedLM.read`."""
        if not any(self.lengths) and not any(logits_to_keep):
            self.prefill(rows)
            return [torch.empty(0) for _ in rows]
        logits = self.append([()] * len(rows), rows).logits
        return [
            logits[i, len(row) - count : len(row)].float()
            for i, (row, count) in enumerate(zip(rows, logits_to_keep, strict=True))
        ]

    def rewind_to(self, lengths: Sequence[int]) -> None:
        """See `CachedLM.rewind_to`."""
        self.kv_cache.lengths = [min(pair) for pair in zip(self.lengths, lengths, strict=True)]

    def checkpoint(self) -> None:
        """See `CachedLM.checkpoint`; nothing to do, as compiled models have no recurrent layers."""

    def select(self, rows: Sequence[int]) -> None:
        """See `CachedLM.select`."""
        self.kv_cache.select(rows)

    def prepare(self, lengths: Sequence[int]) -> None:
        """See `CachedLM.prepare`; nothing to do, as models whose positions change their scale are not compiled."""

    def _forward(self, tokens: Tensor, end: int, logits_to_keep: Tensor) -> TargetOutput:
        columns = self.kv_cache.columns(end)
        packed, logits, *states = self._run(
            tokens, columns, logits_to_keep, self._weight, self._bias, self.kv_cache.cache
        )
        return TargetOutput(packed, logits, tuple(states))
