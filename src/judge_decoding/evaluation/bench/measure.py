"""Measure decoding methods in turns, so that all meet the same state of the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from torch import Tensor

from judge_decoding.core.rounds import Stats
from judge_decoding.evaluation.bench.contenders import BatchAnswers, Contender

RepetitionProgress = Callable[[int, str], None]
"""Called when a method has decoded all prompts, with the repetition (0 is the warm-up) and the method's name."""


@dataclass(slots=True)
class Measurement:
    """The measurements of one decoding method.

    Attributes:
        tokens: new tokens of each prompt, in the order of the prompts.
        unlike: indices of prompts whose tokens differed from the expected ones in any repetition.
        seconds: duration of each repetition.
        stats: counts of our own loop over all repetitions.
        forwards: target forwards in all repetitions; None if not known.
    """

    tokens: tuple[tuple[int, ...], ...] = ()
    unlike: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    new_tokens: list[int] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    forwards: int | None = 0

    @property
    def speeds(self) -> list[float]:
        """The tokens per second of each repetition."""
        return [count / seconds for count, seconds in zip(self.new_tokens, self.seconds, strict=True)]

    @property
    def speed(self) -> float:
        """The median over the repetitions of the tokens per second."""
        return median(self.speeds)


def measure(
    contenders: Sequence[Contender],
    prompts: Sequence[Tensor],
    expected: Sequence[tuple[int, ...]],
    *,
    batch_size: int = 1,
    repetitions: int = 5,
    warm_up: int | None = None,
    progress: RepetitionProgress = lambda *_: None,
) -> dict[str, Measurement]:
    """Run every method on all prompts [T_i], first as a warm-up, then ``repetitions`` times, the order rotating.

    ``expected`` has the answer of plain greedy decoding to each prompt; empty, nothing is compared. ``warm_up`` limits
    the prompts of the warm-up.
    """
    found = {contender.label.name: Measurement() for contender in contenders}
    assert len(found) == len(contenders)
    for repetition in range(repetitions + 1):
        chosen = prompts if repetition else prompts[:warm_up]
        turn = repetition % len(contenders)
        for contender in [*contenders[turn:], *contenders[:turn]]:
            name = contender.label.name
            batches = [contender.answer(chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size)]
            own = found[name]
            own.tokens = tuple(tokens for batch in batches for tokens in batch.tokens)
            own.unlike |= {
                i for i, (said, wanted) in enumerate(zip(own.tokens, expected, strict=False)) if said != wanted
            }
            if repetition:
                _count(own, batches)
            progress(repetition, name)
    return found


def _count(own: Measurement, batches: Sequence[BatchAnswers]) -> None:
    own.seconds.append(sum(batch.seconds for batch in batches))
    own.new_tokens.append(sum(len(tokens) for tokens in own.tokens))
    for batch in batches:
        if own.forwards is not None:
            own.forwards = None if batch.forwards is None else own.forwards + batch.forwards
        for rounds in batch.rounds:
            own.stats.merge(Stats.of(rounds))
