"""What the loop asks of a target, in whatever back end it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.drafters.base import Draft
from judge_decoding.decoding.request import SequenceState
from judge_decoding.decoding.tokens import TokenBuffer
from judge_decoding.models.context import RopeBorder


@dataclass(frozen=True, slots=True)
class FusedVerdict:
    """What a forward with the rule inside says of one row's draft, on the host already.

    Attributes:
        draft_ids: the M draft tokens.
        target_ids: what the target would have said at each of the M+1 positions.
        scores: the judge's probability that each draft token is correct; without a judge they say nothing.
    """

    draft_ids: list[int]
    target_ids: list[int]
    scores: list[float]


class VerifyOutput:
    """What the target says of one row's draft of M tokens.

    Args:
        logits: of all rows that were read together, [>= M+1, V] each.
        states: hidden states of all of them by source, [>= before + M+1, H] each.
        row: which of them it is.
        count: M+1.
        fused: what the forward itself has decided, where it could.
        before: how many tokens were read, for the first time or again, before the last kept one.
    """

    __slots__ = ("_before", "_count", "_logits", "_row", "_states", "fused")

    def __init__(
        self,
        logits: Sequence[Tensor] | Tensor,
        states: Mapping[HiddenSource, Tensor],
        row: int,
        count: int,
        fused: FusedVerdict | None = None,
        before: int = 0,
    ) -> None:
        self._logits, self._states, self._row, self._count = logits, states, row, count
        self.fused, self._before = fused, before

    @property
    def logits(self) -> Tensor:
        """[M+1, V] in float32; position i is the target's distribution in the place of draft token i."""
        return self._logits[self._row][: self._count].float()

    @property
    def vocab_size(self) -> int:
        """V."""
        return self._logits[self._row].shape[-1]

    def has_states(self, source: HiddenSource) -> bool:
        """Whether hidden states were taken at ``source``."""
        return source in self._states

    def states(self, source: HiddenSource) -> Tensor:
        """Hidden states [M+1, H]; position 0 is the last kept token's, position i + 1 draft token i's."""
        return self._states[source][self._row, self._before : self._before + self._count]

    def states_before(self, source: HiddenSource) -> Tensor:
        """Hidden states [n, H] of what was read before the last kept token in the same forward, mostly nothing."""
        return self._states[source][self._row, : self._before]


class TargetSession(Protocol):
    """The target in one decoding of some rows."""

    def prefill(self, rows: Sequence[Tensor], source: HiddenSource | None = None) -> list[Tensor]:
        """Read what comes before each row's last token: ``rows[i]`` [T_i], which may be empty.

        Returns:
            The hidden states [n, H] of each row at ``source``, of T_i tokens or none where `read` reads them; without a
            source, nothing of use.
        """
        ...

    def longest_draft(self, row: int, tokens: int) -> int | None:
        """How many draft tokens may follow the ``tokens`` of a row in the next forward; None is any number."""
        ...

    def read(self, rows: Sequence[TokenBuffer], drafts: Sequence[Draft]) -> list[VerifyOutput]:
        """Read the last of each row's tokens and, behind it, its draft."""
        ...

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Go on with some of the rows, of which the first so many tokens stay."""
        ...


class TargetBackend(Protocol):
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

    def open(self, rows: Sequence[SequenceState], sources: set[HiddenSource]) -> TargetSession:
        """Begin to decode ``rows``, whose rules read hidden states at ``sources``."""
        ...
