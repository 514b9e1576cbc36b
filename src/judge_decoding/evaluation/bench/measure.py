"""Measuring ways of decoding in turns, so that all meet the same state of the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from torch import Tensor

from judge_decoding.core.rounds import Seconds, Stats
from judge_decoding.evaluation.bench.ways import Answers, Way

Tell = Callable[[int, str], None]
"""Told of each way that has decoded all prompts: in which repetition (0 is the warm-up), and its name."""


@dataclass(frozen=True, slots=True)
class Steady:
    """What full rounds take: those with the whole draft length in which no row of the batch has ended.

    The first round of an answer, in which the draft reads the prompt, and the last are not among them.

    Attributes:
        lap: median seconds of such a round by the clock, from its beginning to that of the next.
        parts: median seconds of its parts.
        context: mean number of tokens a row had before it.
        rounds: how many there were.
    """

    lap: float
    parts: Seconds
    context: float
    rounds: int


@dataclass(slots=True)
class Measured:
    """What a way of decoding did.

    Attributes:
        tokens: of each prompt, in the order of the prompts.
        unlike: numbers of prompts with other tokens than expected, in any repetition.
        seconds: of each repetition.
        stats: of our own loop, all repetitions together.
        forwards: of the target, in all repetitions; None if not known.
        steady: full rounds of each batch of each repetition; None where there were none, and of a smaller last batch.
    """

    tokens: tuple[tuple[int, ...], ...] = ()
    unlike: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    new_tokens: list[int] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    forwards: int | None = 0
    steady: list[Steady | None] = field(default_factory=list)

    @property
    def speeds(self) -> list[float]:
        """Tokens per second of each repetition."""
        return [count / seconds for count, seconds in zip(self.new_tokens, self.seconds, strict=True)]

    @property
    def speed(self) -> float:
        """Their median."""
        return median(self.speeds)


def measure(
    ways: Sequence[Way],
    prompts: Sequence[Tensor],
    expected: Sequence[tuple[int, ...]],
    *,
    batch_size: int = 1,
    repetitions: int = 5,
    warm_up: int | None = None,
    probe: Callable[[Way], None] = lambda _: None,
    tell: Tell = lambda *_: None,
) -> dict[str, Measured]:
    """Every way on all prompts, once as a warm-up and then so many times; who begins changes each time.

    Args:
        ways: with different names.
        prompts: token ids [T_i] each.
        expected: what plain greedy decoding says to each prompt; empty if nothing is to be compared.
        batch_size: prompts that are decoded together.
        repetitions: how often, beside the warm-up.
        warm_up: how many prompts the warm-up has; None for all.
        probe: called behind each batch of each way: what else is to be measured in the same state of the machine.
        tell: told of each way that is through.
    """
    found = {way.label.name: Measured() for way in ways}
    assert len(found) == len(ways)
    for repetition in range(repetitions + 1):
        chosen = prompts if repetition else prompts[:warm_up]
        turn = repetition % len(ways)
        for way in [*ways[turn:], *ways[:turn]]:
            name = way.label.name
            batches = []
            for i in range(0, len(chosen), batch_size):
                batches.append(way.answer(chosen[i : i + batch_size]))
                if repetition:
                    probe(way)
            own = found[name]
            own.tokens = tuple(tokens for batch in batches for tokens in batch.tokens)
            own.unlike |= {
                i for i, (said, wanted) in enumerate(zip(own.tokens, expected, strict=False)) if said != wanted
            }
            if repetition:
                _count(own, way, batches, min(batch_size, len(prompts)))
            tell(repetition, name)
    return found


def _count(own: Measured, way: Way, batches: Sequence[Answers], rows: int) -> None:
    own.seconds.append(sum(batch.seconds for batch in batches))
    own.new_tokens.append(sum(len(tokens) for tokens in own.tokens))
    for batch in batches:
        if own.forwards is not None:
            own.forwards = None if batch.forwards is None else own.forwards + batch.forwards
        for rounds in batch.rounds:
            own.stats.merge(Stats.of(rounds))
        # The last batch may be smaller: rounds of another size.
        whole = len(batch.tokens) == rows
        own.steady.append(steady(batch, way.label.num_draft_tokens) if whole else None)


def steady(batch: Answers, count: int) -> Steady | None:
    """The full rounds of a batch, with drafts of ``count`` tokens; None if there are none."""
    laps: list[float] = []
    parts: list[Seconds] = []
    contexts: list[float] = []
    length: list[int] = list(batch.context)
    for i in range(min(map(len, batch.laps), default=0)):
        events = [rounds[i] for rounds in batch.rounds]
        if i and all(len(event.draft_ids) == count for event in events):
            laps.append(batch.laps[0][i])
            parts.append(events[0].seconds)
            contexts.append(fmean(length))
        length = [before + len(event.token_ids) for before, event in zip(length, events, strict=True)]
    if not laps:
        return None
    return Steady(median(laps), Seconds(*map(median, zip(*parts, strict=True))), fmean(contexts), len(laps))
