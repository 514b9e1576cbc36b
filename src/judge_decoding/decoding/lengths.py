"""How many tokens to draft: the draft-length policies."""

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
    """A policy, made afresh for every request: it learns from the rounds it is told of."""

    stop_below: float = 0.0
    """A draft ends with the first token to which the draft model gives less than this probability."""

    def next(self) -> int:
        """How many tokens to draft in the next round."""
        raise NotImplementedError

    def observe(self, event: Round) -> None:
        """Learn from a round."""

    def remember(self, experience: AcceptanceModel) -> None:
        """Go on from what earlier requests of the same decoder and rule have taught."""


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


LEAST_PATIENCE, MOST_PATIENCE = 8, 128
"""While no draft pays, one token is tried after so many rounds; twice as many each time, up to the latter."""

LENGTHS = frozenset((1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64))
"""Those worth telling apart; few enough for each to be tried often."""


class AcceptanceModel:
    """What rounds have cost and kept: the acceptance of each place of a draft and the times of its parts.

    A decoder keeps one for each rule and batch size, so that what one answer has taught serves the next.
    """

    DECAY = 0.97
    """Weight of older rounds, so that the estimates follow a text whose acceptance changes."""
    PRIOR = 2.0
    """How many drafts the guess for a place counts for."""
    TRUST = 12.0
    """How many rounds the estimate for a length counts for, beside those that had it."""

    def __init__(self) -> None:
        self._tried: list[float] = []
        self._kept: list[float] = []
        self._draft: deque[float] = deque(maxlen=16)
        self._rest: deque[float] = deque(maxlen=16)
        self._verify: deque[tuple[int, float]] = deque(maxlen=64)
        # Tokens and seconds of the rounds that had a length, late ones weighing more.
        self._made: defaultdict[int, float] = defaultdict(float)
        self._spent: defaultdict[int, float] = defaultdict(float)
        self.rounds = 0
        """How many rounds with a draft it knows."""
        self._lock = RLock()  # a decoder may be used by several threads
        self.patience = LEAST_PATIENCE
        """After how many rounds without a draft one token is tried."""

    @property
    def longest(self) -> int:
        """The longest draft seen."""
        return len(self._tried)

    def add(self, event: Round, *, paused: bool = False) -> None:
        """Average in what a round cost and kept.

        After a pause the draft has read what was said meanwhile, which is not what its tokens cost: ``paused`` leaves
        the times of such a round out.
        """
        with self._lock:
            self._add(event, paused=paused)

    def _add(self, event: Round, *, paused: bool) -> None:
        count, accepted = len(event.draft_ids), event.accepted
        if count and not self.rounds:  # the first round warms the machine up; its times say nothing
            self.rounds = 1
        else:
            self._verify.append((count, event.seconds.verify))
            if not paused:
                self._add_speed(event)
            if count:
                self.rounds += 1
                self._rest.append(event.seconds.rule + event.seconds.overhead)
        if not count:
            return
        self._tried = [self.DECAY * n for n in self._tried] + [0.0] * (count - len(self._tried))
        self._kept = [self.DECAY * n for n in self._kept] + [0.0] * (count - len(self._kept))
        # What was rejected counts as tried, and so does what comes behind an end token: drafting it was for nothing.
        for place in range(min(accepted + 1, count)):
            self._tried[place] += 1
            self._kept[place] += place < accepted

    def _add_speed(self, event: Round) -> None:
        count = len(event.draft_ids)
        for known in (self._made, self._spent):
            for length in known:
                known[length] *= self.DECAY
        self._made[count] += len(event.token_ids)
        # Where a row has no draft, the time is that of other rows' drafts.
        self._spent[count] += sum(event.seconds) - (0.0 if count else event.seconds.draft)
        if count:
            self._draft.append(event.seconds.draft / count)

    def best(self, longest: int) -> int | None:
        """The count, at most ``longest``, with most tokens per second; None if it knows no times.

        With S_k the estimated probability that a draft's first k tokens are all kept, a round of M draft tokens
        gives ``1 + S_1 + ... + S_M`` tokens and takes ``M * t_draft + t_verify(M) + t_rest``. What late rounds of that
        length have given and taken counts beside the estimate: a text may have a rhythm that places by themselves do
        not tell.
        """
        with self._lock:
            return self._best(longest)

    def _best(self, longest: int) -> int | None:
        if not self._draft:
            return None
        draft, rest = median(self._draft), median(self._rest)
        times: dict[int, list[float]] = {}
        for count, seconds in self._verify:
            times.setdefault(count, []).append(seconds)
        verify, slope = _line({count: median(some) for count, some in times.items()})
        # Of a place that was hardly tried the guess is that it is like the one before; of the first, like all.
        rate = (sum(self._kept) + 0.5) / (sum(self._tried) + 1)
        best, tokens, survival = 0, 1.0, 1.0
        best_speed = self._speed(0, 1.0, verify + rest)
        for place in range(longest):
            known = place < len(self._tried)
            tried, kept = (self._tried[place], self._kept[place]) if known else (0.0, 0.0)
            rate = (kept + self.PRIOR * rate) / (tried + self.PRIOR)
            survival *= rate
            tokens += survival
            if place + 1 not in LENGTHS and place + 1 not in self._made:
                continue
            speed = self._speed(place + 1, tokens, (place + 1) * (draft + slope) + verify + rest)
            if speed > best_speed:
                best, best_speed = place + 1, speed
        return best

    def _speed(self, count: int, tokens: float, seconds: float) -> float:
        """Tokens per second of rounds with ``count`` draft tokens, which are estimated to give and take that."""
        made, spent = self._made.get(count, 0.0), self._spent.get(count, 0.0)
        return (made + self.TRUST * tokens) / (spent + self.TRUST * seconds)


class CostOptimal(DraftLength):
    """The length with most tokens per second, by what rounds have cost and kept so far; 0 where no draft pays.

    The acceptance of each place is a running average, the times are medians of late rounds, t_verify a line through
    them; see `AcceptanceModel`. While nothing is drafted one token is tried now and then, twice in a row, as the draft
    has to catch up before the first; over all answers ever less often. Source: the analysis of Leviathan et al. 2023,
    section 3.3, with each place's own acceptance instead of one rate for all.
    """

    EVERY = 4
    """The optimum is sought anew after so many rounds: it moves slowly, and seeking takes time."""

    def __init__(self, start: int, longest: int = 64, experience: AcceptanceModel | None = None) -> None:
        _check_count(start)
        self._start, self._longest = start, max(longest, start)
        self.experience = experience or AcceptanceModel()
        self._best: int | None = None
        self._age = self._sought = self._idle = 0
        self._trying = False

    def remember(self, experience: AcceptanceModel) -> None:
        """Go on from what earlier requests have taught."""
        self.experience = experience

    def next(self) -> int:
        """The best count; the start until rounds have told what they cost."""
        known = self.experience
        self._age += 1
        if self._best is None or (self._age > self.EVERY and known.rounds != self._sought):
            # Not far beyond what was tried: there the estimate is only a guess.
            self._best = known.best(min(self._longest, 2 * known.longest))
            self._age, self._sought = 1, known.rounds
        if self._best is None:
            return self._start
        if known.rounds < self.EVERY:  # sought again each round, and one slow one is not enough to give up
            best, self._best = self._best, None
            return max(best, 1)
        if self._best:
            self._trying, known.patience = False, LEAST_PATIENCE
        elif self._trying or self._idle > known.patience:
            self._trying = not self._trying
            return 1
        return self._best

    def observe(self, event: Round) -> None:
        """Learn what this round cost and kept."""
        paused = bool(event.draft_ids and self._idle)
        self.experience.add(event, paused=paused)
        if paused:
            self.experience.patience = min(2 * self.experience.patience, MOST_PATIENCE)
        self._idle = 0 if event.draft_ids else self._idle + 1


def _line(points: Mapping[int, float]) -> tuple[float, float]:
    """Value at 0 and slope (never falling) of a line through ``points``, which one slow round does not tilt.

    The slope is that of Theil and Sen, each pair weighing as much as it is apart.
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
    "fixed": Fixed,
    "heuristic": Heuristic,
    "confident": Confident,
    "cost_optimal": CostOptimal,
}
"""The policies by name, as on the command line."""
