"""Statistics of how much of given texts a rule accepts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from judge_decoding.core.rounds import Cause, Round, Stats
from judge_decoding.rules.base import VerificationRule
from judge_decoding.statistics import Interval, ratio_interval


@dataclass(slots=True)
class Acceptance:
    """Counts over the rounds of one rule at one draft length, for all texts.

    Attributes:
        rule: the rule.
        num_draft_tokens: the draft length M.
        stats: counts over all rounds.
        answers: accepted draft tokens, kept tokens and rounds of each text, by its number.
        decided: how often the rule decided about each token id; tokens after a rejection are not decided.
        rejected: how often the rule rejected each pair of draft token id and the target's own token id.
        rounds: every round of the texts to show, by text number.
    """

    rule: VerificationRule
    num_draft_tokens: int
    stats: Stats = field(default_factory=Stats)
    answers: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    decided: Counter[int] = field(default_factory=Counter)
    rejected: Counter[tuple[int, int]] = field(default_factory=Counter)
    rounds: dict[int, list[Round]] = field(default_factory=dict)

    def add(self, number: int, rounds: Iterable[Round], *, keep: bool = False) -> None:
        """Count the rounds of text ``number``; with ``keep``, also store them for display."""
        events = list(rounds)
        own = Stats.of(events)
        self.stats.merge(own)
        self.answers[number] = (own.accepted, own.tokens, own.rounds)
        for event in events:
            accepted = event.accepted
            self.decided.update(event.draft_ids[: accepted + 1])
            if accepted < len(event.draft_ids):
                self.rejected[event.draft_ids[accepted], event.target_ids[accepted]] += 1
        if keep:
            self.rounds[number] = events

    @property
    def name(self) -> str:
        """The rule and the draft length, as a label."""
        return f"{self.rule}, draft length {self.num_draft_tokens}"

    @property
    def histogram(self) -> list[float]:
        """The share of rounds with 0, 1, ... M accepted draft tokens, up to the largest number observed."""
        lengths = self.stats.accepted_lengths
        return [lengths[i] / self.stats.rounds for i in range(max(lengths) + 1)]

    @property
    def median(self) -> float:
        """The median of accepted draft tokens per round."""
        return float(median(self.stats.accepted_lengths.elements()))

    @property
    def by_position(self) -> list[float]:
        """The acceptance rate at each draft position 1 to M, up to the last position with an accepted token."""
        return list(self.stats.acceptance_by_position[: max([1, *self.stats.accepted_lengths])])

    @property
    def rejected_share(self) -> float:
        """The share of the decided tokens that the rule rejected."""
        corrections = self.stats.causes[Cause.CORRECTION]
        return corrections / (self.stats.accepted + corrections)

    @property
    def accepted_interval(self) -> Interval | None:
        """The 95% interval of the accepted draft tokens per round; see `ratio_interval`."""
        return ratio_interval([(accepted, rounds) for accepted, _, rounds in self.answers.values()])

    @property
    def tokens_interval(self) -> Interval | None:
        """The 95% interval of the tokens per target forward."""
        return ratio_interval([(tokens, rounds) for _, tokens, rounds in self.answers.values()])

    def most_rejected(self, count: int = 10) -> list[Rejected]:
        """Return the token ids that were rejected most often."""
        total: Counter[int] = Counter()
        for (token, _), times in self.rejected.items():
            total[token] += times
        found = []
        for token, times in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:count]:
            instead = Counter({own: n for (each, own), n in self.rejected.items() if each == token})
            found.append(Rejected(token, times, self.decided[token], tuple(instead.most_common(3))))
        return found

    def to_dict(self, spell: Callable[[int], str] = str) -> dict[str, Any]:
        """Return the figures as plain JSON values; ``spell`` returns a token's text."""
        return {
            "rule": str(self.rule),
            "num_draft_tokens": self.num_draft_tokens,
            "rounds": self.stats.rounds,
            "tokens": self.stats.tokens,
            **{cause.value: self.stats.causes[cause] for cause in Cause},
            "accepted_per_round": self.stats.accepted_per_round,
            "accepted_per_round_interval": self.accepted_interval,
            "accepted_per_round_median": self.median,
            "tokens_per_forward": self.stats.tokens_per_forward,
            "tokens_per_forward_interval": self.tokens_interval,
            "rejected_share": self.rejected_share,
            "accepted_lengths": {str(k): v for k, v in sorted(self.stats.accepted_lengths.items())},
            "acceptance_by_position": self.by_position,
            "rescued_by": dict(sorted(self.stats.rescuers.items())),
            "most_rejected": [
                {
                    "token": spell(each.token),
                    "rejected": each.times,
                    "decided": each.decided,
                    "instead": {spell(own): times for own, times in each.instead},
                }
                for each in self.most_rejected()
            ],
        }


@dataclass(frozen=True, slots=True)
class Rejected:
    """A token rejected ``times`` out of ``decided``; ``instead`` has the target's most frequent tokens there."""

    token: int
    times: int
    decided: int
    instead: tuple[tuple[int, int], ...]
