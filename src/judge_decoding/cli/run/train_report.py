"""The final report of ``judge-decoding train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.head_view import describe, print_json
from judge_decoding.cli.terminal import warn
from judge_decoding.intervals import fewest_digits
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.report.tables import text_table

_WIDTH = 24


def report(config: JudgeHeadConfig, place: Path, *, json: bool) -> None:
    """The head, the table of what was compared, reliability and learning curve; doubts go to stderr."""
    figures = config.calibration
    if json:
        print_json(config)
    else:
        describe(config, place)
        console = Terminal()
        for part in (_comparison(figures["comparison"]), _reliability(figures["reliability"]), _curve(figures)):
            if part is not None:
                console.print()
                console.print(part)
    for sentence in figures["warnings"]:
        warn(f"Warning: {sentence}")


def _comparison(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401  (something rich can print)
    """Return a table with a row for each hidden-state source and trivial detector."""
    if not rows:
        return None
    titles = ["detector", "AUC\nall tokens", "AUC\nnumbers", "log-loss", "threshold", "correct\nkept", "wrong\ncaught"]
    cells = [
        [
            row["detector"], _number(row["auc"]), _number(row["auc_numbers"]), _number(row["log_loss"]),
            fewest_digits(row["threshold"]), f"{row['kept_correct']:.1%}", f"{row['caught_wrong']:.1%}",
        ]
        for row in rows
    ]  # fmt: skip
    table = text_table(titles, cells, title="Compared, out of fold; the one in bold is the head")
    for line, row in zip(table.rows, rows, strict=True):
        line.style = "bold" if row["shipped"] else None
    return table


def _reliability(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401  (something rich can print)
    """Return a bar for each score, with the share of correct tokens."""
    table = Table(title="Reliability, out of fold", title_justify="left", box=None)
    for name in ("score", "tokens", "correct"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        filled = round(row["correct"] * _WIDTH)
        bar = Text("█" * filled, "blue") + Text("░" * (_WIDTH - filled), "dim")
        table.add_row(f"{row['low']:.1f} to {row['high']:.1f}", str(row["tokens"]), f"{row['correct']:.1%}", bar)
    return table


def _curve(figures: dict[str, Any]) -> str:
    points = ", ".join(f"{row['questions']} questions {row['auc']:.3f}" for row in figures["learning_curve"])
    return f"AUC as the data grows: {points}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:.3f}"  # avoids -0.000
