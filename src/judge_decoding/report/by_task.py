"""Compare answers by task: what the judge costs on each, and for how many prompts it warned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from judge_decoding.core.samples import Sample
from judge_decoding.intervals import UNKNOWN, number, p_value, points, share
from judge_decoding.statistics import difference_interval, mcnemar, wilson

_NAMELESS = "no task"


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A line of the table.

    Attributes:
        cells: the cells by column title; all lines have the same columns.
        part: whether the line is a category of the task in the lines above it.
    """

    cells: dict[str, str]
    part: bool = False


def by_task(samples: Sequence[Sample]) -> list[TaskRow]:
    """Return a line for each task and for each category of a task with several; no lines if there is only one kind.

    Answers under different rules are never pooled. Columns without any value are left out.
    """
    kinds = list(dict.fromkeys((sample.task, sample.category) for sample in samples))
    if len(kinds) < 2:
        return []
    tasks = list(dict.fromkeys(task for task, _ in kinds))
    lines: list[TaskRow] = []
    for task in tasks:
        of_task = [sample for sample in samples if sample.task == task]
        categories = [category for name, category in kinds if name == task]
        if len(tasks) > 1:  # otherwise the top of the page has the total
            lines += _lines(task or _NAMELESS, of_task, part=False)
        if len(categories) > 1:
            for category in categories:
                own = [sample for sample in of_task if sample.category == category]
                lines += _lines(category or "no category", own, part=len(tasks) > 1)
    several_rules = len({sample.rule for sample in samples}) > 1
    empty = {title for title in lines[0].cells if all(line.cells[title] == UNKNOWN for line in lines)}
    if not several_rules:
        empty.add("rule")
    return [
        TaskRow({title: cell for title, cell in line.cells.items() if title not in empty}, line.part) for line in lines
    ]


def _lines(name: str, samples: Sequence[Sample], *, part: bool) -> list[TaskRow]:
    """Return a line for each rule."""
    rules = dict.fromkeys(sample.rule for sample in samples)
    return [TaskRow(_cells(name, rule, [one for one in samples if one.rule == rule]), part) for rule in rules]


def _cells(name: str, rule: str, samples: Sequence[Sample]) -> dict[str, str]:
    rounds = [event for sample in samples for event in sample.rounds]
    pairs = [
        (s, s.correct, s.target_correct) for s in samples if s.correct is not None and s.target_correct is not None
    ]
    ours, theirs = [right for _, right, _ in pairs], [right for _, _, right in pairs]
    measured = [sample for sample in samples if sample.distance is not None]
    lost = [sample for sample, right, alone in pairs if alone and not right]
    return {
        "task": name,
        "rule": rule or UNKNOWN,
        "answers": str(len(samples)),
        "right": _right([s.correct for s in samples]),
        "right, the target alone": _right([s.target_correct for s in samples]),
        "difference in points": points((sum(ours) - sum(theirs)) / len(pairs), *difference_interval(ours, theirs))
        if pairs
        else UNKNOWN,
        "McNemar p": p_value(mcnemar(ours, theirs)) if pairs else UNKNOWN,
        "accepted draft tokens per round": _mean(sum(event.accepted for event in rounds), len(rounds)),
        "mean acceptance length": _mean(sum(len(event.token_ids) for event in rounds), len(rounds)),
        "prompts warned of": f"{_warned(measured)} of {len(measured)}" if measured else UNKNOWN,
        "made wrong (warned of)": f"{len(lost)} ({_warned(lost)})" if pairs and measured else UNKNOWN,
    }


def _right(verdicts: Sequence[bool | None]) -> str:
    known = [verdict for verdict in verdicts if verdict is not None]
    return share(sum(known) / len(known), *wilson(sum(known), len(known))) if known else UNKNOWN


def _mean(total: int, count: int) -> str:
    return number(total / count) if count else UNKNOWN


def _warned(samples: Sequence[Sample]) -> int:
    return sum(sample.distance is not None and sample.distance > 1 for sample in samples)
