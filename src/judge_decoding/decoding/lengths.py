"""Draft-length policies, which decide how many tokens to draft."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from itertools import combinations
from statistics import median
from threading import RLock

from judge_decoding.bounds import check_bound
from judge_decoding.core.rounds import Round
from judge_decoding.errors import JudgeDecodingError


class DraftLength:
    """A draft-length policy, created anew for each request, which learns from the rounds it observes.

    Raises:
        JudgeDecodingError: a parameter is out of range.
    """

    stop_below: float = 0.0
    """A draft ends with the first token to which the draft model gives less than this probability."""

    def next(self) -> int:
        """Return how many tokens to draft in the next round."""
        raise NotImplementedError

    def observe(self, event: Round) -> None:
        """Learn from a round."""

    def remember(self, experience: AcceptanceModel) -> None:
        """Start from what earlier requests of the same decoder and rule have learned."""


class Fixed(DraftLength):
    """Always ``count`` tokens."""

    def __init__(self, count: int) -> None:
        _check_count(count)
        self._count = count

    def next(self) -> int:
        """Return ``count``."""
        return self._count


class Heuristic(DraftLength):
    """Drafts two tokens more after a fully accepted draft, and one less after any other.

    Source: the "heuristic" schedule of transformers' assisted generation.
    """

    def __init__(self, start: int, longest: int = 64) -> None:
        _check_count(start)
        self._count, self._longest = start, max(longest, start)

    def next(self) -> int:
        """Return the current count."""
        return self._count

    def observe(self, event: Round) -> None:
        """Grow or shrink."""
        if event.draft_ids:
            whole = event.accepted == len(event.draft_ids)
            self._count = min(self._count + 2, self._longest) if whole else max(self._count - 1, 1)


class Confident(DraftLength):
    """Drafts until the draft model is unsure: up to ``longest`` tokens, ending with the first below ``probability``.

    Source: dynamic draft lengths of transformers' assisted generation (``assistant_confidence_threshold``).
    """

    def __init__(self, longest: int, probability: float = 0.4) -> None:
        _check_count(longest)
        if not 0 <= probability <= 1:
            raise JudgeDecodingError(f"The draft's minimum probability is {probability}; it must be between 0 and 1.")
        self._longest, self.stop_below = longest, probability

    def next(self) -> int:
        """Return the maximum draft length."""
        return self._longest


LEAST_PATIENCE, MOST_PATIENCE = 8, 128
"""While no draft pays off, one token is tried after this many rounds, first the former, doubling up to the latter."""

LENGTHS = frozenset((1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64))
"""The candidate lengths; few enough for each to be tried often."""


class AcceptanceModel:
    """Running estimates of acceptance at each draft position and of the time of each part of a round.

    A decoder keeps one model for each rule and batch size, so that later answers benefit from earlier ones.
    """

    DECAY = 0.97
    """The decay of older rounds' weight, so that the estimates follow a text whose acceptance changes."""
    PRIOR = 2.0
    """The weight, in drafts, of the prior guess for a position."""
    TRUST = 12.0
    """The weight, in rounds, of the estimate for a length, relative to measured rounds of that length."""

    def __init__(self) -> None:
        self._tried: list[float] = []
        self._accepted: list[float] = []
        self._draft: deque[float] = deque(maxlen=16)
        self._rest: deque[float] = deque(maxlen=16)
        self._verify: deque[tuple[int, float]] = deque(maxlen=64)
        # Tokens and seconds of the rounds of each length; recent rounds weigh more.
        self._new_tokens: defaultdict[int, float] = defaultdict(float)
        self._seconds: defaultdict[int, float] = defaultdict(float)
        self.rounds = 0
        """The number of rounds with a draft seen so far."""
        self._lock = RLock()  # a decoder may be used by several threads
        self.patience = LEAST_PATIENCE
        """The number of rounds without a draft after which one token is tried."""

    @property
    def longest(self) -> int:
        """The length of the longest draft seen."""
        return len(self._tried)

    def add(self, event: Round, *, paused: bool = False) -> None:
        """Add a round's time and acceptance to the averages.

        After a pause the draft model first reads the tokens generated meanwhile, so its time is not representative:
        ``paused`` excludes the times of such a round.
        """
        with self._lock:
            if self.rounds or not event.draft_ids:  # the first draft is a warm-up; its times are meaningless
                self._add_times(event, paused=paused)
            if event.draft_ids:
                self.rounds += 1
                self._add_acceptance(len(event.draft_ids), event.accepted)

    def _add_acceptance(self, count: int, accepted: int) -> None:
        self._tried = [self.DECAY * n for n in self._tried] + [0.0] * (count - len(self._tried))
        self._accepted = [self.DECAY * n for n in self._accepted] + [0.0] * (count - len(self._accepted))
        # A rejected token counts as tried, and so does one after an end token: drafting it was wasted.
        for position in range(min(accepted + 1, count)):
            self._tried[position] += 1
            self._accepted[position] += position < accepted

    def _add_times(self, event: Round, *, paused: bool) -> None:
        count = len(event.draft_ids)
        self._verify.append((count, event.seconds.verify))
        if count:
            self._rest.append(event.seconds.rule + event.seconds.overhead)
        if paused:
            return
        for known in (self._new_tokens, self._seconds):
            for length in known:
                known[length] *= self.DECAY
        self._new_tokens[count] += len(event.token_ids)
        # If this row has no draft, the draft time belongs to other rows.
        self._seconds[count] += sum(event.seconds) - (0.0 if count else event.seconds.draft)
        if count:
            self._draft.append(event.seconds.draft / count)

    def best(self, longest: int) -> int | None:
        """Return the length, at most ``longest``, with the most tokens per second; None if no times are known.

        With S_k the estimated probability that a draft's first k tokens are all kept, a round of M draft tokens
        yields ``1 + S_1 + ... + S_M`` tokens and takes ``M * t_draft + t_verify(M) + t_rest``. The tokens and times of
        recent rounds of that length are averaged in: a text may have a rhythm that per-position estimates miss.
        """
        with self._lock:
            return self._best(longest) if self._draft else None

    def _best(self, longest: int) -> int:
        draft, rest = median(self._draft), median(self._rest)
        times: dict[int, list[float]] = {}
        for count, seconds in self._verify:
            times.setdefault(count, []).append(seconds)
        verify, slope = _line({count: median(some) for count, some in times.items()})
        # The prior for a position is the previous position's rate; for the first position, the overall rate.
        rate = (sum(self._accepted) + 0.5) / (sum(self._tried) + 1)
        best, tokens, survival = 0, 1.0, 1.0
        best_speed = self._speed(0, 1.0, verify + rest)
        for position in range(longest):
            known = position < len(self._tried)
            tried, kept = (self._tried[position], self._accepted[position]) if known else (0.0, 0.0)
            rate = (kept + self.PRIOR * rate) / (tried + self.PRIOR)
            survival *= rate
            tokens += survival
            if position + 1 not in LENGTHS and position + 1 not in self._new_tokens:
                continue
            speed = self._speed(position + 1, tokens, (position + 1) * (draft + slope) + verify + rest)
            if speed > best_speed:
                best, best_speed = position + 1, speed
        return best

    def _speed(self, count: int, tokens: float, seconds: float) -> float:
        """Return tokens per second of rounds with ``count`` draft tokens, from the estimate and measured rounds."""
        made, spent = self._new_tokens.get(count, 0.0), self._seconds.get(count, 0.0)
        return (made + self.TRUST * tokens) / (spent + self.TRUST * seconds)


class CostOptimal(DraftLength):
    """The length with the most tokens per second, estimated from the rounds so far; 0 where no draft pays off.

    The acceptance at each position is a running average, the times are medians of recent rounds, and t_verify is a line
    through them; see `AcceptanceModel`. While nothing is drafted, one token is tried now and then, twice in a row, as
    the draft has to catch up before the first; over all answers this becomes rarer. Source: the analysis of Leviathan
    et al. 2023, section 3.3, with an acceptance rate for each position instead of one for all.
    """

    EVERY = 4
    """The optimum is recomputed after this many rounds: it moves slowly, and the computation takes time."""

    def __init__(self, start: int, longest: int = 64) -> None:
        _check_count(start)
        self._start, self._longest = start, max(longest, start)
        self.experience = AcceptanceModel()
        self._best: int | None = None
        self._age = self._sought = self._idle = 0
        self._trying = False

    def remember(self, experience: AcceptanceModel) -> None:
        """Start from what earlier requests have learned."""
        self.experience = experience

    def next(self) -> int:
        """Return the best length, or the starting length until the times of rounds are known."""
        known = self.experience
        self._age += 1
        if self._best is None or (self._age > self.EVERY and known.rounds != self._sought):
            # Do not go far beyond tried lengths: there the estimate is only a guess.
            self._best = known.best(min(self._longest, 2 * known.longest))
            self._age, self._sought = 1, known.rounds
        if self._best is None:
            return self._start
        if known.rounds < self.EVERY:  # recompute each round; one slow round is no reason to stop drafting
            best, self._best = self._best, None
            return max(best, 1)
        if self._best:
            self._trying, known.patience = False, LEAST_PATIENCE
        elif self._trying or self._idle > known.patience:
            self._trying = not self._trying
            return 1
        return self._best

    def observe(self, event: Round) -> None:
        """Learn from this round's time and acceptance."""
        paused = bool(event.draft_ids and self._idle)
        self.experience.add(event, paused=paused)
        if paused:
            self.experience.patience = min(2 * self.experience.patience, MOST_PATIENCE)
        self._idle = 0 if event.draft_ids else self._idle + 1


def _line(points: Mapping[int, float]) -> tuple[float, float]:
    """Return the value at 0 and the slope (never negative) of a line through ``points``, robust against outliers.

    The slope is the Theil-Sen estimate, with each pair weighted by its distance.
    """
    pairs = sorted(((b - d) / (a - c), abs(a - c)) for (a, b), (c, d) in combinations(points.items(), 2))
    half, slope = sum(weight for _, weight in pairs) / 2, 0.0
    for value, weight in pairs:
        half -= weight
        if half <= 0:
            slope = max(value, 0.0)
            break
    return max(median(b - slope * a for a, b in points.items()), 1e-9), slope


def _check_count(count: int) -> None:
    check_bound("num_draft_tokens", count, "The draft length")


POLICIES: dict[str, Callable[[int], DraftLength]] = {
    "fixed": Fixed, "heuristic": Heuristic, "confident": Confident, "cost_optimal": CostOptimal
}  # fmt: skip
"""The policies by name, as used on the command line."""
