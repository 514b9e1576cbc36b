"""Measuring ways of decoding in turns, so that all meet the same state of the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from torch import Tensor

from judge_decoding.core.rounds import Stats
from judge_decoding.evaluation.bench.ways import Answers, Way

Tell = Callable[[int, str], None]
"""Told of each way that has decoded all prompts: in which repetition (0 is the warm-up), and its name."""


@dataclass(slots=True)
class Measured:
    """What a way of decoding did.

    Attributes:
        tokens: of each prompt, in the order of the prompts.
        unlike: numbers of prompts with other tokens than expected, in any repetition.
        seconds: of each repetition.
        stats: of our own loop, all repetitions together.
        forwards: of the target, in all repetitions; None if not known.
    """

    tokens: tuple[tuple[int, ...], ...] = ()
    unlike: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    new_tokens: list[int] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    forwards: int | None = 0

    @property
    def speeds(self) -> list[float]:
        """Tokens per second of each repetition."""
        return [count / seconds for count, seconds in zip(self.new_tokens, self.seconds, strict=True)]

    @property
    def speed(self) -> float:
        """Tokens per second, the median of the repetitions."""
        return median(self.speeds)


def measure(
    ways: Sequence[Way],
    prompts: Sequence[Tensor],
    expected: Sequence[tuple[int, ...]],
    *,
    batch_size: int = 1,
    repetitions: int = 5,
    warm_up: int | None = None,
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
        tell: told of each way that is through.
    """
    found = {way.label.name: Measured() for way in ways}
    assert len(found) == len(ways)
    for repetition in range(repetitions + 1):
        chosen = prompts if repetition else prompts[:warm_up]
        turn = repetition % len(ways)
        for way in [*ways[turn:], *ways[:turn]]:
            name = way.label.name
            batches = [way.answer(chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size)]
            own = found[name]
            own.tokens = tuple(tokens for batch in batches for tokens in batch.tokens)
            own.unlike |= {
                i for i, (said, wanted) in enumerate(zip(own.tokens, expected, strict=False)) if said != wanted
            }
            if repetition:
                _count(own, batches)
            tell(repetition, name)
    return found


def _count(own: Measured, batches: Sequence[Answers]) -> None:
    own.seconds.append(sum(batch.seconds for batch in batches))
    own.new_tokens.append(sum(len(tokens) for tokens in own.tokens))
    for batch in batches:
        if own.forwards is not None:
            own.forwards = None if batch.forwards is None else own.forwards + batch.forwards
        for rounds in batch.rounds:
            own.stats.merge(Stats.of(rounds))
