"""A causal language model with its KV cache: read tokens and roll them back, for one or several sequences."""

from __future__ import annotations

from collections.abc import Sequence
from operator import ge
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from judge_decoding.models.context import reset_positions, rope_border, rotary_modules
from judge_decoding.models.forward import Forward, lock_of, row_positions
from judge_decoding.models.recurrent import (
    SavedStates,
    bounded_steps,
    crop_attention,
    record_past,
    unbounded_steps,
)

_KNOWN_LAYERS = DynamicCache.__module__

Rewind = Literal["crop", "restore", "never"]
"""How a KV cache is rolled back: by cropping the last tokens, or by copying and restoring recurrent states."""


class CachedLM:
    """A causal LM and the KV cache of one or more sequences, the *rows*.

    `read` appends tokens to each row, `rewind_to` removes the last ones, so that a rejected draft leaves no trace.
    Recurrent states cannot be cropped. There `rewind_to` returns to the last `checkpoint`, and the next caller of
    `read` checks ``lengths`` and reads the tokens in between again, before the new ones.
    Rows may grow by different amounts: shorter rows get padding, which no token attends to; padding in the middle
    of the cache is removed when there is too much of it. `judge_decoding.models.abilities` determines whether a model
    can be rolled back and can share forward passes between rows.

    Args:
        model: the model.
        rows: the number of sequences.
        rewind: how the cache is rolled back; "restore" supports one row only. With "never", sliding windows keep no
            more than they need, and nothing is copied.

    Attributes:
        lengths: the number of tokens in the cache, by row.
    """

    def __init__(self, model: PreTrainedModel, rows: int = 1, *, rewind: Rewind = "crop") -> None:
        self.model, self._rewind = model, rewind
        self.lengths = [0] * rows
        self._forward = Forward(model)
        self._border = rope_border(model)
        changes = self._border is not None and self._border.changes_always
        self._rotary = rotary_modules(model) if changes else []
        self._bounded = bounded_steps(model)
        self._cache = self._new_cache()
        self._saved: SavedStates | None = None
        # Which columns of the cache hold tokens [rows, columns]; on the CPU, so that counting does not synchronise.
        self._live = torch.ones(rows, 0, dtype=torch.bool)

    def read(self, rows: Sequence[Tensor], logits_to_keep: Sequence[int]) -> list[Tensor]:
        """Append ``rows[i]`` [T_i] to each row; return float32 logits [K, V] of its last K tokens.

        Args:
            rows: the new tokens of each row.
            logits_to_keep: K of each row.
        """
        sizes = [len(row) for row in rows]
        width = max(sizes)
        kept = width - max(min(size - count for size, count in zip(sizes, logits_to_keep, strict=True)), 0)
        ids = pad_sequence(list(rows), batch_first=True)
        live = torch.cat((self._live, torch.arange(width) < torch.tensor(sizes)[:, None]), dim=1)
        mask = None
        if not bool(live.all()):
            mask = live.clone()
            mask[~mask.any(1)] = True  # a row that attends to no token would be NaN
            mask = mask.long().to(ids.device)
        positions = self._positions(sizes, width, ids.device) if self._forward.takes_positions else None
        # Only a prompt, of which no logits are kept, is read in one piece by `generate`, too.
        alone = self._bounded if any(logits_to_keep) else ()
        with lock_of(self.model), unbounded_steps(alone):
            reset_positions(self._rotary)
            logits = self._forward(ids, self._cache, max(kept, 1), mask, positions)
        self._live = live
        self.lengths = [length + size for length, size in zip(self.lengths, sizes, strict=True)]
        logits = logits[:, -kept:] if kept else logits[:, :0]
        ends = [size - (width - kept) for size in sizes]
        return [
            logits[i, end - count : end].float()
            for i, (end, count) in enumerate(zip(ends, logits_to_keep, strict=True))
        ]

    def _positions(self, sizes: Sequence[int], width: int, device: torch.device) -> Tensor:
        """Return the positions of the next tokens [rows, width]; padding has the position of the token before it."""
        if len(sizes) == 1:
            return row_positions(self.lengths[0], width, device)
        before, new = torch.tensor(self.lengths)[:, None], torch.tensor(sizes)[:, None]
        return (before + torch.arange(width)).minimum(before + new - 1).clamp(min=0).to(device)

    def checkpoint(self) -> None:
        """Copy recurrent states, if there are any; call this before reading tokens that may be rolled back."""
        if self._rewind == "restore" and (self._saved is None or self._saved.length != self.lengths[0]):
            self._saved = SavedStates(self._cache, self.lengths[0]) if self.lengths[0] else None

    def rewind_to(self, lengths: Sequence[int]) -> None:
        """Remove each row's tokens from position ``lengths[i]`` on, and with recurrent layers some before it.

        A shorter row keeps all its tokens.
        """
        if self._rewind == "restore":
            self._restore(lengths[0])
            return
        if self._rewind == "never" and all(map(ge, lengths, self.lengths)):
            return
        self.lengths = [min(pair) for pair in zip(self.lengths, lengths, strict=True)]
        columns = self._live.shape[1]
        if not columns:
            return
        self._live &= self._live.cumsum(1) <= torch.tensor(self.lengths)[:, None]
        used = self._live.any(0).nonzero()
        width = int(used[-1]) + 1 if len(used) else 0
        if not width:
            self._forget()
            return
        # Crop also by 0: this trims the history that sliding-window and recurrent layers recorded for rollback.
        self._cache.crop(width - columns)
        self._live = self._live[:, :width]
        if width > 1.5 * max(self.lengths) + 32:
            self._squeeze(max(self.lengths))

    def prepare(self, lengths: Sequence[int]) -> None:
        """Clear the cache if its keys would be wrong in a forward pass that ends at position ``lengths[0]``.

        Some models scale positions by the length of the whole sequence; see `RopeBorder`. They have one row.
        """
        if self._border is not None and self._border.rereads(self.lengths[0], lengths[0]):
            self._forget()

    @property
    def cannot_crop(self) -> str:
        """Return why the attention layers cannot be rolled back, according to the cache.

        A third-party layer is not trusted if it stores more than its base class and crops with the base class's method.
        """
        for layer in self._cache.layers:
            if type(layer).__module__ != _KNOWN_LAYERS and "crop" not in vars(type(layer)):
                return f"{type(layer).__name__} does not take back what it adds to its base class"
        return ""

    @property
    def is_recurrent(self) -> bool:
        """Whether it has states that cannot be cropped; known after the first `read`."""
        return not self._cache.is_croppable

    def _restore(self, longest: int) -> None:
        """Return to the checkpoint, or clear the cache if no checkpoint is as early as ``longest``."""
        if not self.lengths[0]:
            return  # nothing has been read
        if self.lengths[0] <= longest:
            crop_attention(self._cache, 0)
        elif self._saved is None or self._saved.length > longest:
            self._forget()
        else:
            self._saved.restore(self._cache, self.lengths[0])
            self.lengths = [self._saved.length]
            self._live = self._live[:, : self._saved.length]

    def _forget(self) -> None:
        self._cache, self._saved = self._new_cache(), None
        self._live = self._live[:, :0]
        self.lengths = [0] * len(self.lengths)

    def _new_cache(self) -> DynamicCache:
        cache = DynamicCache(config=self.model.config)
        if self._rewind == "crop":
            cache.activate_past_recording()
        elif self._rewind == "restore":
            record_past(cache)
        return cache

    def _squeeze(self, width: int) -> None:
        """Move every row's tokens to the last ``width`` columns. Keys carry their positions, so they may move."""
        order = self._live.long().argsort(dim=1, stable=True)[:, -width:]
        for layer in self._cache.layers:
            assert isinstance(layer, DynamicLayer)  # see `can_batch`
            layer.keys, layer.values = _columns_of(layer.keys, order), _columns_of(layer.values, order)
        self._live = self._live.gather(1, order)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only some of the rows."""
        if len(rows) == len(self.lengths):
            return
        self._cache.batch_select_indices(torch.tensor(rows))
        self._live = self._live[list(rows)]
        self.lengths = [self.lengths[i] for i in rows]


def _columns_of(states: Tensor | None, columns: Tensor) -> Tensor:
    """Select ``columns`` [B, C'] of keys or values [B, heads, C, D]."""
    assert states is not None
    index = columns[:, None, :, None].to(states.device)
    return states.gather(2, index.expand(-1, states.shape[1], -1, states.shape[3]))
