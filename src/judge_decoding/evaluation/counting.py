"""Count the accepted tokens of a run by the two conventions of the literature."""

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
    """The same rounds counted by two conventions.

    They differ by 1, the target's own token, except in rounds without one: where an end token or a stop string lies
    inside the draft, the round ends there. ``mean_accepted_tokens == accepted_per_round + 1 - ended_in_draft``.

    Attributes:
        mean_accepted_tokens: Spec-Bench's "#Mean accepted tokens" (its ``evaluation/speed.py``): all tokens of a target
            forward, including the correction or bonus, averaged over all forwards of all answers; 1 for plain decoding.
            An end token counts and nothing after it does. Reading the prompt is not a separate forward, as in
            Spec-Bench's ``sps``, its method with a draft model. It is `Stats.tokens_per_forward`.
        accepted_per_round: the mean m* of Judge Decoding (arXiv 2501.19309, section 5): accepted draft tokens only; 0
            for plain decoding. It is `Stats.accepted_per_round`. The paper does not say how it counts an answer's last
            round; here it counts like any other.
        ended_in_draft: share of rounds that ended within their draft.
    """

    mean_accepted_tokens: float
    accepted_per_round: float
    ended_in_draft: float

    @classmethod
    def of(cls, counted: Counts) -> Counting:
        """Return the figures of these rounds; all are 0 if there are no rounds."""
        rounds = max(counted.rounds, 1)
        without_own = counted.rounds - (counted.tokens - counted.accepted)
        return cls(counted.tokens / rounds, counted.accepted / rounds, without_own / rounds)
