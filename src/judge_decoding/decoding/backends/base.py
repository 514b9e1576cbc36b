"""The interface between the loop and a target in any back end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.drafters.base import Draft, TokenBuffer
from judge_decoding.decoding.request import SequenceState
from judge_decoding.models.context import RopeBorder


@dataclass(frozen=True, slots=True)
class FusedVerdict:
    """The results for one row's draft of a forward pass that includes the rule, already on the host.

    Attributes:
        draft_ids: the M draft tokens.
        target_ids: the target's own token at each of the M+1 positions.
        scores: the judge's probability that each draft token is correct; meaningless without a judge.
    """

    draft_ids: list[int]
    target_ids: list[int]
    scores: list[float]


@dataclass(slots=True)
class VerifyOutput:
    """The target's output for one row's draft of M tokens.

    Attributes:
        all_logits: the logits of all rows that were read together, [>= M+1, V] each.
        all_states: the hidden states of all of these rows by source, [>= before + M+1, H] each.
        row: the index of this row.
        count: M+1.
        fused: the verdict computed inside the forward pass, if there is one.
        before: how many tokens before the last kept one were read, for the first time or again.
    """

    all_logits: Sequence[Tensor] | Tensor
    all_states: Mapping[HiddenSource, Tensor]
    row: int
    count: int
    fused: FusedVerdict | None = None
    before: int = 0

    @property
    def logits(self) -> Tensor:
        """The logits [M+1, V] in float32; position i is the target's distribution of draft token i."""
        return self.all_logits[self.row][: self.count].float()

    @property
    def vocab_size(self) -> int:
        """The vocabulary size V."""
        return self.all_logits[self.row].shape[-1]

    def states(self, source: HiddenSource) -> Tensor:
        """Return hidden states [M+1, H]; position 0 is the last kept token, position i + 1 is draft token i."""
        return self.all_states[source][self.row, self.before : self.before + self.count]

    def states_before(self, source: HiddenSource) -> Tensor:
        """Return hidden states [n, H] of tokens before the last kept one in this forward pass; n is usually 0."""
        return self.all_states[source][self.row, : self.before]


class TargetSession(Protocol):
    """The target during one decoding of a batch of rows."""

    def prefill(self, rows: Sequence[Tensor], source: HiddenSource | None = None) -> list[Tensor]:
        """Read the tokens before each row's last token: ``rows[i]`` [T_i], which may be empty.

        Returns:
            The hidden states [n, H] of each row at ``source``; n is T_i, or 0 if these tokens are left to `read`.
            Without a source the result is meaningless.
        """
        ...

    def longest_draft(self, row: int, tokens: int) -> int | None:
        """Return how many draft tokens may follow a row's ``tokens`` tokens in the next forward; None is any number."""
        ...

    def read(self, rows: Sequence[TokenBuffer], drafts: Sequence[Draft]) -> list[VerifyOutput]:
        """Read the last of each row's tokens and, after it, the row's draft."""
        ...

    def retain(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Keep only ``rows``, and of each of them only the first ``lengths[i]`` tokens."""
        ...


class TargetBackend(Protocol):
    """A target in one of the back ends."""

    model: PreTrainedModel

    @property
    def can_batch(self) -> bool:
        """Whether rows of different lengths can share a forward pass."""
        ...

    @property
    def border(self) -> RopeBorder | None:
        """The length at which the scale of its positions changes, if there is one."""
        ...

    def check(self, *, drafts: bool) -> None:
        """Check that the target can decode, with ``drafts`` to verify or plainly."""
        ...

    def open(self, rows: Sequence[SequenceState], sources: set[HiddenSource]) -> TargetSession:
        """Start decoding ``rows``, whose rules read hidden states at ``sources``."""
        ...
