"""Long labelling: a cost estimate after a few questions, interruption at any moment, and resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from judge_decoding.core.progress import StageProgress
from judge_decoding.data.cases import Case, write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.resume import Unfinished


class LabellingProgress(Unfinished[str, list[Case]]):
    """The cases of the questions labelled so far."""

    row = TypeAdapter(tuple[str, list[Case]])

    def finish(self, questions: Sequence[str], written: Callable[[], None] = lambda: None) -> list[Case]:
        """Write the cases of ``questions`` to the output, in that order, and remove the part.

        An earlier run with the same settings may have had other questions; their cases are left out. ``written`` is
        called before the part is removed, so that its record cannot be lost together with the part.

        Raises:
            JudgeDecodingError: there are no cases.
        """
        cases = [case for question in questions for case in self.done.get(question, ())]
        if not cases:
            raise JudgeDecodingError(
                "There is nothing to label: the draft agrees with the target everywhere; use another draft or more "
                "questions."
            )
        write_cases(self.output, cases)
        written()
        self.part.unlink(missing_ok=True)
        return cases


Labeller = Callable[[list[str], Callable[[str, list[Case], int], None]], None]
"""Labels questions and calls the callback after each one, with its cases and its target forwards."""

PILOT, REST = "labelling a few prompts for a forecast", "labelling"


@dataclass(frozen=True, slots=True)
class Forecast:
    """The estimated cost of labelling.

    ``labels`` came from the ``questions`` labelled so far. For those ``left``, the ``cost`` is in the labeller's unit:
    target forwards, or tokens of an endpoint.
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

    Each question is saved in ``progress`` when it is done. ``agree`` raises to stop before the others.
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
