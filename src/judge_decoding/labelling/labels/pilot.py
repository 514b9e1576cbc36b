"""Labelling with a forecast: a few questions first, to estimate the cost of the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judge_decoding.core.progress import StageProgress
from judge_decoding.data.cases import Case
from judge_decoding.labelling.labels.progress import LabellingProgress

Labeller = Callable[[list[str], Callable[[str, list[Case], int], None]], None]
"""Labels questions and calls the callback after each one, with its cases and its target forwards."""

PILOT, REST = "labelling a few prompts for a forecast", "labelling"


@dataclass(frozen=True, slots=True)
class Forecast:
    """The estimated cost of labelling.

    Attributes:
        questions: the number of questions labelled for the forecast.
        labels: the number of their labels.
        left: the number of remaining questions.
        cost: approximate cost of those, in the labeller's unit: target forwards, or tokens of an endpoint.
        seconds: approximate time for those.
    """

    questions: int
    labels: int
    left: int
    cost: float
    seconds: float


@dataclass(slots=True)
class LabellingCost:
    """The cost of labelling in this run: cost as in `Forecast`, labels, and seconds (without waiting for agreement)."""

    cost: int = 0
    labels: int = 0
    seconds: float = 0.0


def label_rest(
    questions: Sequence[str],
    label: Labeller,
    progress: LabellingProgress,
    *,
    agree: Callable[[Forecast], None] = lambda _: None,
    report: StageProgress = lambda _what, _done, _total: None,
) -> LabellingCost:
    """Label the remaining questions: a few first and, if the forecast is agreed to, the others.

    Args:
        questions: all questions.
        label: the labelling function.
        progress: where each question is saved when it is done.
        agree: called with the forecast before the others; it raises to stop there.
        report: called after each question.
    """
    todo = [question for question in questions if question not in progress.done]
    spent = LabellingCost()

    def work(part: list[str], what: str, done: int, total: int) -> None:
        begin = time.perf_counter()

        def count(question: str, cases: list[Case], cost: int) -> None:
            nonlocal done
            progress.add(question, cases)
            spent.cost += cost
            spent.labels += sum(len(case.judged or ()) for case in cases)
            done += 1
            report(what, done, total)

        report(what, done, total)
        label(part, count)
        spent.seconds += time.perf_counter() - begin

    if not todo:
        return spent
    pilots = min(max(len(todo) // 20, 2), 8)  # one in twenty, but at least two and at most eight
    few = 1 + min(pilots, len(todo) - 1)
    work(todo[:1], PILOT, 0, few)  # the first forwards of a process are slow, so they are not timed
    warm = LabellingCost(spent.cost, spent.labels, spent.seconds)
    if few > 1:
        work(todo[1:few], PILOT, 1, few)
    rest = todo[few:]
    if rest:
        scale = len(rest) / (few - 1)
        cost, seconds = scale * (spent.cost - warm.cost), scale * (spent.seconds - warm.seconds)
        agree(Forecast(few, spent.labels, len(rest), cost, seconds))
        work(rest, REST, 0, len(rest))
    return spent
