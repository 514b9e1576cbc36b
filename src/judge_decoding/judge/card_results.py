"""What a card says of measured results: tables for people, an index for programs, and where the head is not at home."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult

from judge_decoding.intervals import UNKNOWN, number, p_value, points, share
from judge_decoding.markdown import block, code, one_line, plain, table

if TYPE_CHECKING:
    from judge_decoding.evaluation.rows import Results, Row

NOTHING = """\
**Nothing has been measured with this head yet.** What it costs on a task and what it gives in speed are not known; the
figures under *Calibration* are of the data it was made from. `judge-decoding evaluate` measures it, and
`judge-decoding card` puts what it finds here.
"""
_READING = """\
In brackets are 95% intervals. The difference is to the target alone on the same questions. That it is *not shown* to be
worse by at most so many points does not mean that it is worse by more: few questions can show little. Tokens per target
forward count the target's own corrections and bonus tokens; plain decoding has 1.
"""


def results_section(results: Sequence[Results], plots: Sequence[str | None]) -> str:
    """The tables of ``results``, each with its plot's file name if it has one, and how they were measured."""
    if not results:
        return NOTHING
    parts = [_one(one, plot, place) for place, (one, plot) in enumerate(zip(results, plots, strict=True), start=1)]
    return "\n".join((_READING, *parts))


def _one(results: Results, plot: str | None, place: int) -> str:
    tuned = {row.answers for row in results.tuning}
    unsure = "" if results.judge_hash else " (by its name; the file does not tell its weights)"
    said = [
        f"Questions: {results.items or results.rows[0].answers or UNKNOWN}"
        f"{f' of {code(results.data)}' if results.data else ''}"
        f"{f', SHA-256 {code(results.data_hash[:12])}…' if results.data_hash else ''}",
        *(f"{role}: {code(name)}" for role, name in (("Target", results.target), ("Draft", results.draft)) if name),
        f"Judge: {code(results.judge) if results.judge else 'not named'}{unsure}",
        f"Answers: temperature {results.temperature:g}, {results.max_new_tokens or UNKNOWN} new tokens at most, "
        f"{'with' if results.chat else 'without'} the chat template",
    ]
    if results.distances:
        said.append(f"Unlike the training questions (distance above 1): {_unlike(results)} of {len(results.distances)}")
    if results.machine:
        said.append(f"Machine: {plain(results.machine)}")
    if results.versions:
        said.append("Versions: " + ", ".join(plain(f"{name} {told}") for name, told in results.versions.items()))
    if results.tuning:
        answers = f"{min(tuned)}" if len(tuned) == 1 else f"{min(tuned)} to {max(tuned)}"
        said.append(f"Draft lengths were chosen on {answers} other questions, see below")
    title = f"### {plain(results.task or 'A task without a name')}{', out of domain' if out_of_domain(results) else ''}"
    return "\n".join(
        part
        for part in (
            f"{title}\n",
            measured_table(results.rows, results.margin),
            f"![Accuracy against speed]({plot})\n" if plot else "",
            "".join(f"* {line}\n" for line in said),
            _tuning(results.tuning),
            block(one_line(shlex.join(results.command))) if results.command else "",
            f"All figures: [{file_name(place)}]({file_name(place)})\n",
        )
        if part
    )


def file_name(place: int, stem: str = "results", ending: str = "json") -> str:
    """What the file of the first (1), second, ... results beside a card is called."""
    return f"{stem}.{ending}" if place == 1 else f"{stem}-{place}.{ending}"


def measured_table(rows: Sequence[Row], margin: float) -> str:
    """A Markdown table with a line for each way of decoding; columns of which nothing is known are left out."""
    temperatures = len({row.temperature for row in rows}) > 1
    columns = {
        "method": [plain(row.name) for row in rows],
        "draft length": [str(row.num_draft_tokens or UNKNOWN) for row in rows],
        "temperature": [f"{row.temperature:g}" if temperatures else UNKNOWN for row in rows],
        "accuracy": [share(row.accuracy, row.accuracy_low, row.accuracy_high) for row in rows],
        "grade": [number(row.grade, row.grade_low, row.grade_high) for row in rows],
        "difference in points": [points(row.difference, row.difference_low, row.difference_high) for row in rows],
        "McNemar p": [p_value(row.mcnemar_p) for row in rows],
        f"worse by at most {100 * margin:g} points": [_shown(row) for row in rows],
        "accepted draft tokens per round": [
            number(row.accepted_per_round if row.num_draft_tokens else None) for row in rows
        ],
        "tokens per target forward": [number(row.tokens_per_forward) for row in rows],
        "tokens per second": [_rate(row) for row in rows],
        "speed-up": [number(row.speedup, row.speedup_low, row.speedup_high, "x") for row in rows],
    }
    known = {title: cells for title, cells in columns.items() if any(cell != UNKNOWN for cell in cells)}
    return table(list(known), zip(*known.values(), strict=True))


def out_of_domain(results: Results) -> bool:
    """Most of the questions are unlike those the head was trained on."""
    return _unlike(results) > len(results.distances) / 2


def limits(results: Sequence[Results]) -> str:
    """A paragraph for each of ``results`` that is out of domain: what the head costs there."""
    return "".join(f"\n**Out of domain:** {_loss(one)}\n" for one in results if out_of_domain(one))


def _loss(results: Results) -> str:
    start = (
        f"{_unlike(results)} of {len(results.distances)} questions of {plain(results.task or 'a task')} are unlike the "
        "training questions (distance above 1). "
    )
    known = [row for row in _judged(results.rows) if row.difference is not None]
    if not known:
        return start + "What the head costs there is not known."
    worst = min(known, key=lambda row: row.difference or 0.0)
    of_several = f", the worst of {len(known)} settings" if len(known) > 1 else ""
    target = results.rows[0].accuracy
    return (
        f"{start}There {plain(worst.name)}{of_several}, is right in "
        f"{share(worst.accuracy, worst.accuracy_low, worst.accuracy_high)} and the target alone in {share(target)}: "
        f"{points(worst.difference, worst.difference_low, worst.difference_high)} points."
    )


def eval_results(results: Sequence[Results]) -> list[EvalResult]:
    """What the rows with a judge come to, for the Hub's ``model-index``.

    The formats of it are huggingface_hub's; shares are of 1.
    """
    found = []
    for one in results:
        dataset, *more = one.data.split(", ")  # as `Source` is spelled: data set, configuration, split
        on_hub = is_repo_id(dataset)
        for row in _judged(one.rows):
            for kind, name, value in (
                ("accuracy", "accuracy", row.accuracy),
                ("accuracy_difference", "accuracy less that of the target alone", row.difference),
                ("tokens_per_target_forward", "tokens per target forward", row.tokens_per_forward),
                ("speedup", "speed-up over the target alone", row.speedup),
            ):
                if value is not None:
                    found.append(
                        EvalResult(
                            task_type="text-generation",
                            task_name=one_line(one.task) or None,
                            dataset_type=dataset if on_hub else one_line(one.task) or "unknown",
                            dataset_name=one_line(one.data or one.task) or "unknown",
                            dataset_config=one_line(more[0]) if on_hub and len(more) == 2 else None,
                            dataset_split=one_line(more[-1]) if on_hub and more else None,
                            metric_type=kind,
                            metric_name=f"{name}, {one_line(row.name)}",
                            metric_value=round(value, 4),
                            metric_args={"num_draft_tokens": row.num_draft_tokens, "temperature": row.temperature},
                        )
                    )
    return found


def is_repo_id(name: str) -> bool:
    """Whether this can be a repository ``owner/name`` on the Hub."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None


def _judged(rows: Sequence[Row]) -> list[Row]:
    """The rows in which a judge decides."""
    return [row for row in rows if "judge" in re.findall(r"\w+", row.rule)]


def _unlike(results: Results) -> int:
    return sum(distance > 1 for distance in results.distances)


def _shown(row: Row) -> str:
    if row.non_inferior is None:
        return UNKNOWN
    return "lossless" if row.lossless else "shown" if row.non_inferior else "not shown"


def _rate(row: Row) -> str:
    return UNKNOWN if row.tokens_per_second is None else f"{row.tokens_per_second:.0f}"


def _tuning(rows: Sequence[Row]) -> str:
    """The speeds that chose the draft lengths: a line for each method, a column for each length."""
    if not rows:
        return ""
    lengths = sorted({row.num_draft_tokens for row in rows})
    speeds = {(row.rule, row.setting, row.num_draft_tokens): row for row in rows}
    timed = all(row.tokens_per_second is not None for row in rows)
    lines = [
        (plain(f"{rule} {setting}"), *(_speed(speeds.get((rule, setting, length)), timed=timed) for length in lengths))
        for rule, setting in dict.fromkeys((row.rule, row.setting) for row in rows)
    ]
    title = f"Tokens per {'second' if timed else 'target forward'} with each draft length, on other questions:\n\n"
    return title + table(["method", *map(str, lengths)], lines)


def _speed(row: Row | None, *, timed: bool) -> str:
    return UNKNOWN if row is None else _rate(row) if timed else number(row.tokens_per_forward)
