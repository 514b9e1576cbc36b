"""The measured results in a model card: tables for people, an index for programs, and out-of-domain warnings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult

from judge_decoding.intervals import UNKNOWN, number, points, share
from judge_decoding.markdown import block, code, plain, table
from judge_decoding.names import is_repo_id
from judge_decoding.report.results import QUALITY, SPEED, cells
from judge_decoding.visible import one_line

if TYPE_CHECKING:
    from judge_decoding.core.results import ResultRow, Results

NOTHING = """\
**Nothing has been measured with this head yet.** What it costs on a task and what it gives in speed are not known; the
figures under *Calibration* are of the data it was made from. `judge-decoding evaluate` measures it, and
`judge-decoding card` puts what it finds here.
"""
_READING = """\
Brackets contain 95% intervals. The target's accuracy is measured on the same questions. *Non-inferiority* is shown
where the interval excludes a loss larger than the margin; *inconclusive* does not mean that more is lost: few questions
can show little. *Matched* is the target sampled under the truncation of the rule before it, verified without loss. The
mean acceptance length includes the target's corrections and bonus tokens; plain decoding has 1.
"""


def results_section(results: Sequence[Results], plots: Sequence[str | None]) -> str:
    """Return the section on ``results``: the tables, the plots given by file name, and how they were measured."""
    if not results:
        return NOTHING
    parts = [_one(one, plot, number) for number, (one, plot) in enumerate(zip(results, plots, strict=True), start=1)]
    return "\n".join((_READING, *parts))


def _one(results: Results, plot: str | None, number: int) -> str:
    tuned = {row.answers for row in results.tuning}
    unsure = "" if results.judge_hash else " (by name; the file has no hash of its weights)"
    said = [
        f"Questions: {results.items or results.rows[0].answers or UNKNOWN}"
        f"{f' of {code(results.data)}' if results.data else ''}"
        f"{f', SHA-256 {code(results.data_hash[:12])}…' if results.data_hash else ''}",
        *(f"{role}: {code(name)}" for role, name in (("Target", results.target), ("Draft", results.draft)) if name),
        f"Judge: {code(results.judge) if results.judge else 'not named'}{unsure}",
        f"Answers: temperature {results.temperature:g}, {results.max_new_tokens or UNKNOWN} new tokens at most, "
        f"{'with' if results.chat else 'without'} the chat template",
    ]
    if any(row.non_inferior is not None for row in results.rows):
        said.append(f"Margin of non-inferiority: {100 * results.margin:g} points")
    if results.distances:
        said.append(f"Unlike the training questions (distance above 1): {_unlike(results)} of {len(results.distances)}")
    if results.machine:
        said.append(f"Machine: {plain(results.machine)}{f', {plain(results.dtype)}' if results.dtype else ''}")
    if results.versions:
        said.append("Versions: " + ", ".join(plain(f"{name} {version}") for name, version in results.versions.items()))
    if results.tuning:
        answers = f"{min(tuned)}" if len(tuned) == 1 else f"{min(tuned)} to {max(tuned)}"
        said.append(f"Draft lengths were chosen on {answers} other questions, see below")
    title = f"### {plain(results.task or 'A task without a name')}{', out of domain' if out_of_domain(results) else ''}"
    return "\n".join(
        part
        for part in (
            f"{title}\n",
            measured_table(results.rows),
            f"![Accuracy against speed]({plot})\n" if plot else "",
            "".join(f"* {line}\n" for line in said),
            _tuning(results.tuning),
            block(one_line(shlex.join(results.command))) if results.command else "",
            f"`{results.config}`, beside the results, repeats the run with `--config`.\n" if results.config else "",
            f"All figures: [{file_name(number)}]({file_name(number)})\n",
        )
        if part
    )


def file_name(number: int, stem: str = "results", ending: str = "json") -> str:
    """Return the file name of the first (1), second, ... results stored next to a card."""
    return f"{stem}.{ending}" if number == 1 else f"{stem}-{number}.{ending}"


def measured_table(rows: Sequence[ResultRow]) -> str:
    """Return a Markdown table with a line for each decoding method; columns without any value are left out."""
    titles, lines = cells(rows, {**QUALITY, **SPEED})
    return table([" ".join(title.split("\n")) for title in titles], [[plain(line[0]), *line[1:]] for line in lines])


def out_of_domain(results: Results) -> bool:
    """Whether most of the questions are unlike those that the head was trained on."""
    return _unlike(results) > len(results.distances) / 2


def limits(results: Sequence[Results]) -> str:
    """Return a paragraph for each out-of-domain result, with what the head costs there."""
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
    """Return the rows with a judge for the Hub's ``model-index``.

    The format is huggingface_hub's; shares are fractions of 1.
    """
    found = []
    for one in results:
        dataset, *more = one.data.split(", ")  # the spelling of `HubDataset`: data set, configuration, split
        on_hub = is_repo_id(dataset)
        for row in _judged(one.rows):
            for kind, name, value in (
                ("accuracy", "accuracy", row.accuracy),
                ("accuracy_difference", "difference of accuracy from the target alone", row.difference),
                ("tokens_per_target_forward", "mean acceptance length", row.tokens_per_forward),
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


def _judged(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return the rows in which a judge decides."""
    return [row for row in rows if "judge" in re.findall(r"\w+", row.rule)]


def _unlike(results: Results) -> int:
    return sum(distance > 1 for distance in results.distances)


def _tuning(rows: Sequence[ResultRow]) -> str:
    """Return the speeds used to choose the draft lengths: a line for each method, a column for each length."""
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


def _speed(row: ResultRow | None, *, timed: bool) -> str:
    return UNKNOWN if row is None else f"{row.tokens_per_second or 0:.0f}" if timed else number(row.tokens_per_forward)
