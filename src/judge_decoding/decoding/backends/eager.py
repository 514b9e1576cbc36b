"""Two back ends for the target, one interface: what the loop asks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.drafters.base import Draft
from judge_decoding.decoding.tokens import Tokens
from judge_decoding.models.abilities import abilities, can_batch, check_reads, check_rewinds
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.context import RopeBorder, rope_border
from judge_decoding.models.hidden import HiddenStateHook

if TYPE_CHECKING:
    from judge_decoding.decoding.loop import Row


@dataclass(frozen=True, slots=True)
class Told:
    """What a forward with the rule inside says of one row's draft, on the host already.

    Attributes:
        draft_ids: the M draft tokens.
        target_ids: what the target would have said at each of the M+1 positions.
        scores: the judge's probability that each draft token is correct; without a judge they say nothing.
    """

    draft_ids: list[int]
    target_ids: list[int]
    scores: list[float]


class Reading:
    """What the target says of one row's draft of M tokens.

    Args:
        logits: of all rows that were read together, [>= M+1, V] each.
        states: hidden states of all of them by source, [>= M+1, H] each.
        row: which of them it is.
        count: M+1.
        told: the usual round's verdict, where the forward has it.
    """

    __slots__ = ("_count", "_logits", "_row", "_states", "told")

    def __init__(
        self,
        logits: Sequence[Tensor] | Tensor,
        states: Mapping[HiddenSource, Tensor],
        row: int,
        count: int,
        told: Told | None = None,
    ) -> None:
        self._logits, self._states, self._row, self._count = logits, states, row, count
        self.told = told

    @property
    def logits(self) -> Tensor:
        """[M+1, V] in float32; position i is the target's distribution in the place of draft token i."""
        return self._logits[self._row][: self._count].float()

    def has_states(self, source: HiddenSource) -> bool:
        """Whether hidden states were taken at ``source``."""
        return source in self._states

    def states(self, source: HiddenSource) -> Tensor:
        """Hidden states [M+1, H]; position 0 is the last kept token's, position i + 1 draft token i's."""
        return self._states[source][self._row, : self._count]


class Reader(Protocol):
    """The target in one decoding of some rows."""

    def prefill(self, rows: Sequence[Tensor]) -> None:
        """Read what comes before each row's last token: ``rows[i]`` [T_i], which may be empty."""
        ...

    def prefilled(self, source: HiddenSource) -> list[Tensor]:
        """The hidden states [T_i, H] of what `prefill` has just read of each row."""
        ...

    def read(self, rows: Sequence[Tokens], drafts: Sequence[Draft]) -> list[Reading]:
        """Read the last of each row's tokens and, behind it, its draft."""
        ...

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Go on with some of the rows, of which the first so many tokens stay."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Target(Protocol):
    """A target in one of the back ends."""

    model: PreTrainedModel

    @property
    def can_batch(self) -> bool:
        """Whether rows of different lengths can share its forwards."""
        ...

    @property
    def border(self) -> RopeBorder | None:
        """Where its positions change their scale, if they do."""
        ...

    def check(self, *, drafts: bool) -> None:
        """Check that tokens can be decoded from it, by verifying ``drafts`` or plainly.

        Raises:
            JudgeDecodingError: they cannot.
        """
        ...

    def open(self, rows: Sequence[Row], sources: set[HiddenSource]) -> Reader:
        """Begin to decode ``rows``, whose rules read hidden states at ``sources``."""
        ...


class EagerTarget:
    """Any causal LM of transformers, run as it is."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def can_batch(self) -> bool:
        """See `judge_decoding.models.abilities`."""
        return can_batch(self.model)

    @property
    def border(self) -> RopeBorder | None:
        """See `judge_decoding.models.context`."""
        return rope_border(self.model)

    def check(self, *, drafts: bool) -> None:
        """See `judge_decoding.models.abilities`."""
        (check_rewinds if drafts else check_reads)(self.model)

    def open(self, rows: Sequence[Row], sources: set[HiddenSource]) -> Reader:
        """An eager reader."""
        return _EagerReader(self.model, len(rows), sources)


class _EagerReader:
    def __init__(self, model: PreTrainedModel, rows: int, sources: set[HiddenSource]) -> None:
        self._lm = CachedLM(model, rows, rewinds=not abilities(model).cannot_rewind)
        self._border = rope_border(model)
        self._stack = ExitStack()
        self._taps = {source: self._stack.enter_context(HiddenStateHook(model, source)) for source in sources}

    def prefill(self, rows: Sequence[Tensor]) -> None:
        # A prompt that cannot be read in parts is read with its last token, by `read`.
        whole = self._border is None or all(self._border.splits(len(row) + 1) for row in rows)
        if whole and any(map(len, rows)):
            self._lm.read(rows, [0] * len(rows))

    def prefilled(self, source: HiddenSource) -> list[Tensor]:
        lengths = self._lm.lengths
        states = self._taps[source].states if any(lengths) else torch.empty(len(lengths), 0, 0)
        return [states[row, :length] for row, length in enumerate(lengths)]

    def read(self, rows: Sequence[Tokens], drafts: Sequence[Draft]) -> list[Reading]:
        counts = [draft.ids.shape[0] + 1 for draft in drafts]
        if self._border is not None:
            self._lm.prepare([len(row) - 1 + count for row, count in zip(rows, counts, strict=True)])
        new = [
            torch.cat((draft.ids.new_tensor(row.host[known:]), draft.ids))
            for row, draft, known in zip(rows, drafts, self._lm.lengths, strict=True)
        ]
        logits = self._lm.read(new, counts)
        # The states of the last kept token and the draft, without what was read again before them.
        states = {source: self._last(tap.states, new, counts) for source, tap in self._taps.items()}
        return [Reading(logits, states, i, count) for i, count in enumerate(counts)]

    def _last(self, states: Tensor, new: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
        """The states [B, M+1, H] of what was asked about; only a single row ever reads more."""
        return states[:, len(new[0]) - counts[0] :] if len(new) == 1 else states

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        self._lm.select(rows)
        self._lm.rewind_to(lengths)

    def close(self) -> None:
        self._stack.close()
