"""The record of one decoding round, and statistics over many rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, NamedTuple, Self


class Cause(StrEnum):
    """Why a token was kept."""

    AGREED = "agreed"
    """Standard verification kept it."""
    RESCUED = "rescued"
    """Only the lossy rule kept it."""
    CORRECTION = "correction"
    """The target's own token, after a rejection."""
    BONUS = "bonus"
    """The target's own token, after a fully accepted draft."""


FinishReason = Literal["stop", "length", "context"]
"""Why an answer ended: by itself (an end token, a stop string), at its token budget, or at the end of the context."""


class Seconds(NamedTuple):
    """How the time of a round was spent; in a batch, the round of all rows together."""

    draft: float = 0.0
    verify: float = 0.0
    rule: float = 0.0
    overhead: float = 0.0

    def plus(self, other: Seconds) -> Seconds:
        """Return the elementwise sum."""
        return Seconds(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class TokenDetails:
    """How target and draft rate one draft token, independent of the rule's verdict.

    Attributes:
        agreed: whether standard verification keeps the token by itself.
        target_prob: the target's probability of the token, with logits processors applied.
        draft_prob: the draft's probability of the token; None for a drafter without probabilities.
        rank: how many tokens the target prefers, 0 for its own choice; None if logits processors forbid the token.
        entropy: entropy, in nats, of the target's distribution at this position.
        alternatives: the target's most probable tokens at this position with their probabilities, best first.
    """

    agreed: bool
    target_prob: float
    draft_prob: float | None
    rank: int | None
    entropy: float
    alternatives: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Round:
    """One draft and its verification: the event from which streams, statistics and reports are made.

    Attributes:
        draft_ids: the M proposed tokens; empty in plain decoding.
        token_ids: the kept tokens, cut after the first end token and at the token budget.
        causes: why each of ``token_ids`` was kept.
        target_ids: the target's own token at each of the M+1 positions.
        scores: the rule's score of each of the M draft tokens (the judge's probability that it is correct);
            None for a rule without scores.
        stopped: whether an end token was kept or a stopping condition met; no round follows.
        rescuers: the name of the rule that rescued each kept token, "" for tokens that were not rescued.
        logprobs: the target's log-probability of each kept token, if requested.
        distance: how unlike the judge's training questions the prompt is; above 1 it is unlike 95% of them. Set in the
            first round only; None in later rounds, and if it is unknown.
        details: details of each of the M draft tokens, if requested.
        seconds: how the round's time was spent.
    """

    draft_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    causes: tuple[Cause, ...]
    target_ids: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    stopped: bool = False
    rescuers: tuple[str, ...] = ()
    logprobs: tuple[float, ...] | None = None
    distance: float | None = None
    details: tuple[TokenDetails, ...] | None = None
    seconds: Seconds = field(default_factory=Seconds, compare=False)

    @property
    def accepted(self) -> int:
        """The number of accepted draft tokens: kept tokens that the draft proposed."""
        return sum(cause in (Cause.AGREED, Cause.RESCUED) for cause in self.causes)

    def cut(self, count: int) -> Self:
        """Return this round cut after ``count`` of its tokens."""
        return replace(
            self, token_ids=self.token_ids[:count], causes=self.causes[:count], rescuers=self.rescuers[:count],
            logprobs=self.logprobs and self.logprobs[:count], stopped=True,
        )  # fmt: skip


@dataclass(slots=True)
class Stats:
    """Counts over rounds. Nothing after an end token is counted, and the prefill is not counted as a target forward.

    ``accepted_lengths`` and ``draft_lengths`` map a number of accepted or proposed draft tokens to a number of rounds.

    ``distances`` has one number for each request whose distance to the judge's training questions is known.
    """

    rounds: int = 0
    drafted: int = 0
    tokens: int = 0
    causes: Counter[Cause] = field(default_factory=Counter)
    accepted_lengths: Counter[int] = field(default_factory=Counter)
    draft_lengths: Counter[int] = field(default_factory=Counter)
    rescuers: Counter[str] = field(default_factory=Counter)
    distances: list[float] = field(default_factory=list)
    seconds: Seconds = field(default_factory=Seconds, compare=False)

    @classmethod
    def of(cls, rounds: Iterable[Round]) -> Stats:
        """Return the statistics of ``rounds``."""
        stats = cls()
        for event in rounds:
            stats.add(event)
        return stats

    def add(self, event: Round) -> None:
        """Count one more round."""
        self.rounds += 1
        self.drafted += len(event.draft_ids)
        self.tokens += len(event.token_ids)
        self.causes.update(event.causes)
        self.accepted_lengths[event.accepted] += 1
        self.draft_lengths[len(event.draft_ids)] += 1
        self.rescuers.update(filter(None, event.rescuers))
        if event.distance is not None:
            self.distances.append(event.distance)
        self.seconds = self.seconds.plus(event.seconds)

    def merge(self, other: Stats) -> None:
        """Count the rounds of ``other`` too."""
        self.rounds += other.rounds
        self.drafted += other.drafted
        self.tokens += other.tokens
        self.causes.update(other.causes)
        self.accepted_lengths.update(other.accepted_lengths)
        self.draft_lengths.update(other.draft_lengths)
        self.rescuers.update(other.rescuers)
        self.distances += other.distances
        self.seconds = self.seconds.plus(other.seconds)

    @property
    def accepted(self) -> int:
        """The number of accepted draft tokens, agreed and rescued."""
        return self.causes[Cause.AGREED] + self.causes[Cause.RESCUED]

    @property
    def accepted_per_round(self) -> float:
        """Accepted draft tokens per round, the paper's m* (section 5); an answer's last round counts like any other."""
        return self.accepted / self.rounds if self.rounds else 0.0

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted draft tokens as a share of all draft tokens; None without a draft."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def positions(self) -> tuple[tuple[int, int], ...]:
        """For each position, the drafts that are accepted up to and including it, and the drafts that reach it."""
        return tuple(
            (
                sum(count for length, count in self.accepted_lengths.items() if length > position),
                sum(count for length, count in self.draft_lengths.items() if length > position),
            )
            for position in range(max(self.draft_lengths, default=0))
        )

    @property
    def acceptance_by_position(self) -> tuple[float, ...]:
        """For each position, the share of the drafts reaching it that are accepted up to and including it."""
        return tuple(accepted / drafted for accepted, drafted in self.positions)

    @property
    def tokens_per_forward(self) -> float:
        """Tokens per target forward, correction and bonus tokens included; 1.00 is plain decoding.

        vLLM and Spec-Bench call it mean acceptance length; Spec-Bench's ``evaluation/speed.py`` prints it as "#Mean
        accepted tokens". An end token counts, nothing after it does, and reading the prompt is no forward of its own.
        """
        return self.tokens / self.rounds if self.rounds else 0.0

    @property
    def unlike_training(self) -> int:
        """The number of requests whose prompt is unlike 95% of the judge's training questions."""
        return sum(distance > 1 for distance in self.distances)

    def to_dict(self) -> dict[str, object]:
        """Return the statistics as plain JSON values."""
        return {
            "rounds": self.rounds,
            "tokens": self.tokens,
            "drafted": self.drafted,
            **{cause.value: self.causes[cause] for cause in Cause},
            "accepted_per_round": self.accepted_per_round,
            "tokens_per_forward": self.tokens_per_forward,
            "mean_acceptance_length": self.tokens_per_forward,
            "acceptance_rate": self.acceptance_rate,
            "acceptance_by_position": list(self.acceptance_by_position),
            "accepted_lengths": {str(k): v for k, v in sorted(self.accepted_lengths.items())},
            "rescued_by": dict(sorted(self.rescuers.items())),
            "prompts_measured": len(self.distances),
            "prompts_unlike_training": self.unlike_training,
            "seconds": self.seconds._asdict(),
        }
