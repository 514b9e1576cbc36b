"""One run counted in the two ways of the literature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Counts(Protocol):
    """`Stats`, or a row of results."""

    @property
    def rounds(self) -> int:
        """Target forwards."""

    @property
    def tokens(self) -> int:
        """New tokens, end tokens included."""

    @property
    def accepted(self) -> int:
        """Accepted draft tokens."""


@dataclass(frozen=True, slots=True)
class Counting:
    """What two conventions make of the same rounds.

    They differ by 1, the target's own token, but for the rounds that have none: where an end token or a stop string
    lies inside the draft, the round ends there. ``mean_accepted_tokens == accepted_per_round + 1 - ended_in_draft``.

    Attributes:
        mean_accepted_tokens: Spec-Bench's "#Mean accepted tokens" (its ``evaluation/speed.py``): all tokens of a target
            forward, the correction or bonus with them, as a mean over all forwards of all answers; 1 for plain
            decoding. An end token counts, nothing behind it does, and reading the prompt is no forward of its own: as
            in its ``sps``, the method with a draft model. It is `Stats.tokens_per_forward`.
        accepted_per_round: the mean m* of Judge Decoding (arXiv 2501.19309, section 5): accepted draft tokens alone; 0
            for plain decoding. It is `Stats.accepted_per_round`. What becomes of an answer's last round in the paper is
            not known; here it counts as any other.
        ended_in_draft: share of rounds that ended inside their draft.
    """

    mean_accepted_tokens: float
    accepted_per_round: float
    ended_in_draft: float

    @classmethod
    def of(cls, counted: Counts) -> Counting:
        """The figures of these rounds; 0 without any."""
        rounds = max(counted.rounds, 1)
        without_own = counted.rounds - (counted.tokens - counted.accepted)
        return cls(counted.tokens / rounds, counted.accepted / rounds, without_own / rounds)
