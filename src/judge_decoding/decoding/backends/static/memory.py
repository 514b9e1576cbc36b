"""The cache of a static model: one length a row, and memory that was there before."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.backends.static.compiling import new_cache
from judge_decoding.decoding.backends.static.graphs import KeysValues

WIDTH_STEP = 64
"""Columns that are attended to come in steps, of an eighth and more of them where there are many: what is behind a
row's end costs little, and shapes repeat."""

FEW_NUMBERS = 8
"""So many a row are written into a tensor that is there; a new one costs as much as some hundred of them."""


class StaticKVCache:
    """Keys and values of the rows of one decoding.

    Args:
        model: whose they are.
        rows: how many.
        columns: how many tokens a row may have; it grows if there are more.

    Attributes:
        device: where they are.
        lengths: how many tokens of each row it holds. Whoever takes tokens back makes them smaller.
        allocations: how often memory was asked for.
    """

    def __init__(self, model: PreTrainedModel, rows: int, columns: int) -> None:
        self.lengths = [0] * rows
        self.device = model.device
        self.allocations = 1
        self._host: dict[tuple[int, int], tuple[Tensor, array[int]]] = {}
        self.cache: KeysValues = new_cache(model, rows, _rounded(columns))
        self._new_columns(_rounded(columns))

    def columns(self, end: int) -> Tensor:
        """0, 1, ... [W] with W at least ``end``: make sure that there are so many columns."""
        if end > self._room:
            self._grow(max(end, 2 * self._room))
        return self._first(min(_rounded(end), self._room))

    def arange(self, count: int) -> Tensor:
        """0, 1, ... up to ``count`` [count], which is not made anew."""
        self.columns(count)
        return self._first(count)

    def tokens(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Numbers [B, T] from the host, as a forward reads them. On a CPU the next call overwrites them."""
        shape = len(rows), len(rows[0])
        if self.device.type != "cpu" or shape[1] > FEW_NUMBERS:
            return torch.tensor(rows, device=self.device)
        if shape not in self._host:
            numbers = array("q", bytes(8 * shape[0] * shape[1]))
            self._host[shape] = torch.frombuffer(numbers, dtype=torch.int64).view(shape), numbers
        tensor, numbers = self._host[shape]
        for i, number in enumerate(chain.from_iterable(rows)):
            numbers[i] = number
        return tensor

    def select(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows; the others' memory is not given back."""
        if len(rows) == len(self.lengths):
            return
        for number, layer in enumerate(self.cache):
            for values in layer:  # ascending, so that no row is overwritten before it has moved
                for to, row in enumerate(rows):
                    if to != row:
                        values[to] = values[row]
            self.cache[number] = (layer[0][: len(rows)], layer[1][: len(rows)])
        self.lengths = [self.lengths[row] for row in rows]

    def _grow(self, columns: int) -> None:
        columns = _rounded(columns)
        for number, layer in enumerate(self.cache):  # one after the other: little is there twice
            keys, values = (torch.nn.functional.pad(old, (0, 0, 0, columns - old.shape[2])) for old in layer)
            self.cache[number] = (keys, values)
        self._new_columns(columns)
        self.allocations += 1

    def _new_columns(self, columns: int) -> None:
        self._room = columns
        self._columns = torch.arange(columns, device=self.device)
        self._seen: dict[int, Tensor] = {}

    def _first(self, count: int) -> Tensor:
        """Few counts come again and again, and a slice costs as much as a small operation."""
        if count not in self._seen:
            self._seen[count] = self._columns[:count]
        return self._seen[count]


def _rounded(columns: int) -> int:
    step = max(WIDTH_STEP, 1 << max(columns.bit_length() - 4, 0))
    return -(-columns // step) * step
