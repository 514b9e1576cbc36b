"""How many tokens to draft: the draft-length policies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import combinations
from statistics import median

from judge_decoding.decoding.rounds import Round
from judge_decoding.errors import JudgeDecodingError


class DraftLength:
    """A policy, made afresh for every request: it learns from the rounds it is told of."""

    stop_below: float = 0.0
    """A draft ends with the first token to which the draft model gives less than this probability."""

    def next(self) -> int:
        """How many tokens to draft in the next round."""
        raise NotImplementedError

    def observe(self, event: Round) -> None:
        """Learn from a round."""


class Fixed(DraftLength):
    """Always ``count`` tokens."""

    def __init__(self, count: int) -> None:
        _check_count(count)
        self._count = count

    def next(self) -> int:
        """``count``."""
        return self._count


class Heuristic(DraftLength):
    """Two more after a draft that was accepted whole, one less after any other.

    Source: the "heuristic" schedule of transformers' assisted generation.
    """

    def __init__(self, start: int, longest: int = 64) -> None:
        _check_count(start)
        self._count, self._longest = start, max(longest, start)

    def next(self) -> int:
        """The present count."""
        return self._count

    def observe(self, event: Round) -> None:
        """Grow or shrink."""
        if event.draft_ids:
            whole = event.accepted == len(event.draft_ids)
            self._count = min(self._count + 2, self._longest) if whole else max(self._count - 1, 1)


class Confident(DraftLength):
    """Until the draft is unsure: up to ``longest`` tokens, ending with the first one below ``probability``.

    Source: dynamic draft lengths of transformers' assisted generation (``assistant_confidence_threshold``).
    """

    def __init__(self, longest: int, probability: float = 0.4) -> None:
        _check_count(longest)
        if not 0 <= probability <= 1:
            raise JudgeDecodingError(f"The draft's least probability is {probability}; it must be between 0 and 1.")
        self._longest, self.stop_below = longest, probability

    def next(self) -> int:
        """The longest draft."""
        return self._longest


class CostOptimal(DraftLength):
    """The length with most tokens per second, by what rounds have cost and kept so far; 0 where no draft pays.

    With S_k the estimated probability that a draft's first k tokens are all accepted, a round of M draft tokens gives
    ``1 + S_1 + ... + S_M`` tokens and takes ``M * t_draft + t_verify(M) + t_rest``. The acceptance of each place is a
    running average, the times are medians of late rounds, t_verify a line through them. While nothing is drafted one
    token is tried now and then, ever less often. Source: the analysis of Leviathan et al. 2023, section 3.3, with each
    place's own acceptance instead of one rate for all.
    """

    DECAY = 0.97
    """Weight of older rounds, so that the policy follows a text whose acceptance changes."""
    PRIOR = 2.0
    """How many drafts the guess for a place counts for."""

    def __init__(self, start: int, longest: int = 64) -> None:
        _check_count(start)
        self._start, self._longest = start, max(longest, start)
        self._tried = [0.0] * self._longest
        self._kept = [0.0] * self._longest
        self._draft: deque[float] = deque(maxlen=16)
        self._rest: deque[float] = deque(maxlen=16)
        self._verify: deque[tuple[int, float]] = deque(maxlen=16)
        self._rounds = self._idle = 0
        self._patience = 8

    def next(self) -> int:
        """The best count: the start in the first round, the estimate's optimum afterwards."""
        self._rounds += 1
        if not self._draft:
            return self._start
        if self._rounds == 2:  # a line takes two lengths
            return max(self._start // 2, 1)
        best = self._best()
        self._idle = 0 if best else self._idle + 1
        if self._idle > self._patience:
            self._idle, self._patience = 0, 2 * self._patience
            return 1
        return best

    def _best(self) -> int:
        draft, rest = median(self._draft), median(self._rest)
        verify, slope = _line(self._verify)
        rate = (sum(self._kept) + 0.5) / (sum(self._tried) + 1)
        best, tokens, survival = 0, 1.0, 1.0
        best_rate = 1 / (verify + rest)
        for place, (tried, kept) in enumerate(zip(self._tried, self._kept, strict=True)):
            survival *= (kept + self.PRIOR * rate) / (tried + self.PRIOR)
            tokens += survival
            count = place + 1
            speed = tokens / (count * draft + verify + count * slope + rest)
            if speed > best_rate:
                best, best_rate = count, speed
        return best

    def observe(self, event: Round) -> None:
        """Average in what this round cost and kept."""
        count, accepted = len(event.draft_ids), event.accepted
        self._verify.append((count, event.seconds.verify))
        if not count:
            return
        self._draft.append(event.seconds.draft / count)
        self._rest.append(event.seconds.rule + event.seconds.overhead)
        self._tried = [self.DECAY * n for n in self._tried]
        self._kept = [self.DECAY * n for n in self._kept]
        # A rejected place counts as tried; after an end token nobody knows what would have followed.
        seen = accepted if len(event.token_ids) == accepted else accepted + 1
        for place in range(min(seen, count, self._longest)):
            self._tried[place] += 1
            self._kept[place] += place < accepted


def _line(points: Iterable[tuple[int, float]]) -> tuple[float, float]:
    """Value at 0 and slope (never falling) of the Theil-Sen line, which one slow round does not tilt."""
    points = list(points)
    slopes = [(b - d) / (a - c) for (a, b), (c, d) in combinations(points, 2) if a != c]
    slope = max(median(slopes), 0.0) if slopes else 0.0
    return max(median(b - slope * a for a, b in points), 1e-9), slope


def _check_count(count: int) -> None:
    if count < 1:
        raise JudgeDecodingError(f"The draft length is {count}; it must be 1 or more.")


POLICIES: dict[str, Callable[[int], DraftLength]] = {
    "fixed": Fixed,
    "heuristic": Heuristic,
    "confident": Confident,
    "cost_optimal": CostOptimal,
}
"""The policies by name, as on the command line."""
