"""The KV cache of a static model: preallocated memory, and one length per row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.backends.static.slots import KeysValues, new_cache

WIDTH_STEP = 64
"""The number of attended columns is rounded up to steps, of at least an eighth where there are many: columns after a
row's end cost little, and shapes repeat."""

FEW_NUMBERS = 8
"""Up to this many numbers per row are written into an existing tensor; a new tensor costs as much as some hundred."""


class StaticKVCache:
    """Keys and values of the rows of one decoding, for ``columns`` tokens per row at first; it grows on demand.

    Attributes:
        lengths: the number of tokens cached in each row. A rollback makes it smaller.
        allocations: how often memory was allocated.
    """

    def __init__(self, model: PreTrainedModel, rows: int, columns: int) -> None:
        self.lengths = [0] * rows
        self.device = model.device
        self.allocations = 1
        self._host: dict[tuple[int, int], tuple[Tensor, array[int]]] = {}
        self.cache: KeysValues = new_cache(model, rows, _rounded(columns))
        self._new_columns(_rounded(columns))

    def columns(self, end: int) -> Tensor:
        """Return 0, 1, ... [W] with W at least ``end``; the cache grows to that many columns if necessary."""
        if end > self._capacity:
            self._grow(max(end, 2 * self._capacity))
        return self._first(min(_rounded(end), self._capacity))

    def arange(self, count: int) -> Tensor:
        """Return 0, 1, ... up to ``count`` [count] without allocating a new tensor."""
        self.columns(count)
        return self._first(count)

    def tokens(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return host numbers as a tensor [B, T] for a forward pass. On a CPU the next call overwrites it."""
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
        """Keep only ``rows``; the memory of the others is not freed."""
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
        for number, layer in enumerate(self.cache):  # layer by layer, so that little is in memory twice
            keys, values = (torch.nn.functional.pad(old, (0, 0, 0, columns - old.shape[2])) for old in layer)
            self.cache[number] = (keys, values)
        self._new_columns(columns)
        self.allocations += 1

    def _new_columns(self, columns: int) -> None:
        self._capacity = columns
        self._columns = torch.arange(columns, device=self.device)
        self._prefixes: dict[int, Tensor] = {}

    def _first(self, count: int) -> Tensor:
        """Return the first ``count`` columns, cached: few counts recur, and a slice costs as much as a small op."""
        if count not in self._prefixes:
            self._prefixes[count] = self._columns[:count]
        return self._prefixes[count]


def _rounded(columns: int) -> int:
    step = max(WIDTH_STEP, 1 << max(columns.bit_length() - 4, 0))
    return -(-columns // step) * step
