"""A compiled model and the cache of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from judge_decoding.decoding.models import Place
from judge_decoding.decoding.static.compiling import Compiled, Progress, compile_target, default_folder, is_skinny
from judge_decoding.decoding.static.graphs import KeysValues, TargetOutput
from judge_decoding.decoding.static.memory import Memory

PREFILL = 512
"""Tokens of a prompt that are read at once: what a forward needs beside weights and cache grows with them."""

SKINNY = 8
"""Up to so many tokens, of all rows together, are read by the forward for few tokens, where there is one."""

_USUAL: Place = ("after", -1)


def in_parts(rows: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Prompts [T_i] side by side, `PREFILL` tokens at a time: where each part begins, and its ids [B, T]."""
    ids = pad_sequence(list(rows), batch_first=True)
    for start in range(0, ids.shape[1], PREFILL):
        yield start, ids[:, start : start + PREFILL].contiguous()


class Forward:
    """A target's forward, compiled for any number of tokens and, where that gains, for few.

    Args:
        wide: for any number.
        skinny: for 2 to `SKINNY`.
    """

    def __init__(self, wide: Compiled, skinny: Compiled | None) -> None:
        self._wide, self._skinny = wide, skinny

    def __call__(self, ids: Tensor, *others: Tensor | KeysValues) -> list[Tensor]:
        """See `TargetGraph.forward`; one token may be written behind a single one, where nothing looks."""
        if self._skinny is None or ids.numel() > SKINNY:
            return self._wide(ids, *others)
        if ids.numel() == 1:  # read twice, for the same time and less
            ids = torch.cat((ids, ids), 1)
        return self._skinny(ids, *others)


class Forwards:
    """The compiled forwards of a model; each tells the hidden states of some places.

    Raises:
        CannotCompileError: this model cannot be compiled.
    """

    def __init__(self, model: PreTrainedModel, progress: Progress, folder: Path | None = None) -> None:
        self.model = model
        self._progress, self._folder = progress, folder or default_folder()
        self._compiled: dict[tuple[Place, ...], Forward] = {}

    def telling(self, places: set[Place]) -> tuple[tuple[Place, ...], Forward]:
        """One that tells at least these places, and which it tells; it is compiled if there is none."""
        for known, compiled in self._compiled.items():
            if places <= set(known):
                return known, compiled
        wanted = tuple(sorted(places)) or (_USUAL,)
        make = partial(compile_target, self.model, wanted, self._progress, self._folder)
        self._compiled[wanted] = Forward(make(), make(skinny=True) if is_skinny(self.model) else None)
        return wanted, self._compiled[wanted]


class StaticLM:
    """What `CachedLM` is, with a compiled forward and memory that was there before.

    Args:
        model: what was compiled.
        run: its forward; see `Forward`.
        memory: the cache of its rows.
        weight: a judge's [1, H], to ask it in every forward.
        bias: that judge's [1].
    """

    def __init__(
        self,
        model: PreTrainedModel,
        run: Callable[..., list[Tensor]],
        memory: Memory,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> None:
        self._run, self.memory = run, memory
        size = model.config.get_text_config().hidden_size
        self._weight = torch.zeros(1, size, device=model.device) if weight is None else weight
        self._bias = torch.zeros(1, device=model.device) if bias is None else bias

    @property
    def lengths(self) -> list[int]:
        """How many tokens of each row the cache holds."""
        return self.memory.lengths

    def prefill(self, rows: Sequence[Tensor]) -> None:
        """Read the first tokens of empty rows, ``rows[i]`` [T_i] each."""
        last = self.memory.arange(1)  # one position's logits are the least there is
        for start, ids in in_parts(rows):
            self._forward(ids, [start] * len(rows), last)
        self.memory.lengths = [len(row) for row in rows]

    def append(self, rows: Sequence[Tensor]) -> TargetOutput:
        """Append ``rows[i]`` [T_i] to each row; what the target tells of all of them, K being the longest's T."""
        ids = pad_sequence(list(rows), batch_first=True) if len(rows) > 1 else rows[0][None]
        output = self._forward(ids, self.lengths, self.memory.arange(ids.shape[1]))
        self.memory.lengths = [length + row.shape[0] for length, row in zip(self.lengths, rows, strict=True)]
        return output

    def read(self, rows: Sequence[Tensor], keep: Sequence[int]) -> list[Tensor]:
        """As `CachedLM.read`."""
        if not any(self.lengths) and not any(keep):
            self.prefill(rows)
            return [torch.empty(0) for _ in rows]
        logits = self.append(rows).logits
        return [
            logits[i, len(row) - count : len(row)].float()
            for i, (row, count) in enumerate(zip(rows, keep, strict=True))
        ]

    def rewind_to(self, lengths: Sequence[int]) -> None:
        """As `CachedLM.rewind_to`."""
        self.memory.lengths = [min(pair) for pair in zip(self.lengths, lengths, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """As `CachedLM.select`."""
        self.memory.select(rows)

    def check_rewinds(self) -> None:
        """As `CachedLM.check_rewinds`: what was compiled can."""

    def _forward(self, ids: Tensor, start: Sequence[int], keep: Tensor) -> TargetOutput:
        columns = self.memory.columns(max(start) + max(ids.shape[1], 2))
        begin = torch.tensor(start, device=ids.device)
        told, logits, *states = self._run(ids, begin, columns, keep, self._weight, self._bias, self.memory.cache)
        return TargetOutput(told, logits, tuple(states))
