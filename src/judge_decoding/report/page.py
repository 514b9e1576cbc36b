"""Self-contained web pages of a comparison and of results: no network access, and no text is ever treated as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from judge_decoding.core.results import ResultRow, Results
from judge_decoding.core.rounds import Cause
from judge_decoding.pages import file_page
from judge_decoding.report.plots import CAPTION, pareto_svg
from judge_decoding.report.results import (
    COMPARISON,
    LOADS_NOTE,
    QUALITY,
    SPEED,
    cells,
    loads_table,
    notes,
    vllm_options,
)
from judge_decoding.report.verdicts import MEANING, ShownRound


def comparison_page(
    methods: Sequence[ResultRow], facts: Mapping[str, Any], question: str, rounds: Sequence[ShownRound]
) -> str:
    """Return the page: the table, its facts (problems, seed, machine, ...), and a worked example."""
    titles, lines = cells(methods, COMPARISON)
    return file_page(
        "judge_decoding.report",
        "comparison",
        columns=[title.replace("\n", " ") for title in titles],
        rows=lines,
        facts=facts,
        question=question,
        rounds=rounds,
        legend=[(cause.value, MEANING[cause]) for cause in Cause],
        bars=[(row.rule, row.name, row.speedup, f"{row.accuracy:.0%}") for row in methods],
        longest=max(row.speedup or 0.0 for row in methods),
    )


def results_page(results: Results) -> str:
    """Return the page; a task without right and wrong answers has no plot.

    Raises:
        JudgeDecodingError: matplotlib is not installed.
    """
    plotted = all(row.accuracy is not None for row in results.rows)
    facts = {
        "items": results.items, "data": results.data, "target": results.target, "draft": results.draft,
        "judge": results.judge, "temperature": f"{results.temperature:g}", "token budget": results.max_new_tokens,
        "graded by": results.grader,
        "prompts": "chat template" if results.chat else "plain", "dtype": results.dtype, "machine": results.machine,
        "versions": ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        "command": " ".join(results.command),
    }  # fmt: skip
    tables = {"Quality": cells(results.rows, QUALITY), "Speed": cells(results.rows, SPEED)}
    if results.tuning:
        tables["How the draft lengths were chosen, on other items"] = cells(results.tuning, SPEED)
    if results.loads:
        tables["Tokens per second by load and draft length"] = loads_table(results.loads)
    said = [notes(results), *([*vllm_options(results.loads), LOADS_NOTE] if results.loads else ())]
    return file_page(
        "judge_decoding.report",
        "results",
        title=results.task,
        facts={name: value for name, value in facts.items() if value != ""},
        figure=Markup(pareto_svg(results.rows)) if plotted else None,
        caption=CAPTION,
        tables={name: table for name, table in tables.items() if len(table[0]) > 1},
        notes=" ".join(said),
    )
