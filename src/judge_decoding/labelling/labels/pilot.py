"""Labelling with a forecast: a few questions first, and from them what the others will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judge_decoding.data.cases import Case
from judge_decoding.labelling.labels.progress import Progress

Labeller = Callable[[list[str], Callable[[str, list[Case], int], None]], None]
"""Labels questions and tells of each one as it is done: its cases, and the target forwards it took."""

Tell = Callable[[str, int, int], None]
"""Told what is being done, and how much of how much is."""

PILOT, REST = "labelling a few prompts for a forecast", "labelling"


@dataclass(frozen=True, slots=True)
class Forecast:
    """What labelling will take.

    Attributes:
        questions: those that were labelled to find out.
        labels: what they gave.
        left: the questions that are left.
        cost: about what these take, in what the labeller counts: target forwards, or tokens of an endpoint.
        seconds: about how long these take.
    """

    questions: int
    labels: int
    left: int
    cost: float
    seconds: float


@dataclass(slots=True)
class Spent:
    """What labelling took now: cost as in `Forecast`, labels, and seconds (none of waiting for agreement)."""

    cost: int = 0
    labels: int = 0
    seconds: float = 0.0


def label_rest(
    questions: Sequence[str],
    label: Labeller,
    progress: Progress,
    *,
    agree: Callable[[Forecast], None] = lambda _: None,
    tell: Tell = lambda _what, _done, _total: None,
) -> Spent:
    """Label the questions that are not done yet: a few first, then, with the forecast agreed to, the others.

    Args:
        questions: all of them.
        label: how.
        progress: where each is kept as it is done.
        agree: called with the forecast before the others; it raises to stop there.
        tell: told of each question that is done.
    """
    todo = [question for question in questions if question not in progress.done]
    spent = Spent()

    def work(part: list[str], what: str, done: int, total: int) -> None:
        begin = time.perf_counter()

        def count(question: str, cases: list[Case], cost: int) -> None:
            nonlocal done
            progress.add(question, cases)
            spent.cost += cost
            spent.labels += sum(len(case.judged or ()) for case in cases)
            done += 1
            tell(what, done, total)

        tell(what, done, total)
        label(part, count)
        spent.seconds += time.perf_counter() - begin

    if not todo:
        return spent
    pilots = min(max(len(todo) // 20, 2), 8)  # one of twenty, but not only a few, and not too many
    few = 1 + min(pilots, len(todo) - 1)
    work(todo[:1], PILOT, 0, few)  # the first forwards of a process are slow, and tell little of the others
    warm = Spent(spent.cost, spent.labels, spent.seconds)
    if few > 1:
        work(todo[1:few], PILOT, 1, few)
    rest = todo[few:]
    if rest:
        scale = len(rest) / (few - 1)
        cost, seconds = scale * (spent.cost - warm.cost), scale * (spent.seconds - warm.seconds)
        agree(Forecast(few, spent.labels, len(rest), cost, seconds))
        work(rest, REST, 0, len(rest))
    return spent
