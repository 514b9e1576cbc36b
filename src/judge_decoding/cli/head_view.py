"""How the command line shows a head: its configuration, and after training what it was compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.terminal import say_json, warn
from judge_decoding.intervals import fewest_digits
from judge_decoding.judge.config import JudgeHeadConfig, TargetInfo
from judge_decoding.report.tables import text_table


def describe(config: JudgeHeadConfig, place: str | Path, *, fits: str | None = None) -> None:
    """Print a head's configuration for people."""
    draft, known = config.draft, config.familiarity
    rows = {
        "head": str(place),
        "target": _model(config.target),
        **({"draft": _model(draft)} if draft else {}),
        **({"fits": f"yes, {fits}"} if fits else {}),
        "reads": f"{_place(config)}; gives the probability of {config.polarity}",
        "threshold": fewest_digits(config.threshold),
        "draft length": str(config.num_draft_tokens or "not tuned"),
        "labels": config.labels,
        "data": ", ".join(f"{k} {v}" for k, v in config.data.items()),
        "familiarity": f"from {known.questions} training questions"
        if known
        else "unknown: it cannot measure the distance of a prompt from its training questions",
        **{
            name.replace("_", " "): _figure(name, value)
            for name, value in config.calibration.items()
            # Curves and tables are in the card and in the output of --json.
            if value is not None and not isinstance(value, list | dict)
        },
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Terminal().print(table)


def _figure(name: str, value: object) -> str:
    """A threshold with the digits that it needs, other figures with four."""
    if not isinstance(value, float):
        return str(value)
    return fewest_digits(value) if name == "threshold" else f"{value:.4g}"


def print_json(config: JudgeHeadConfig) -> None:
    """Print a head's configuration for programs."""
    say_json(json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False))


def _place(config: JudgeHeadConfig) -> str:
    if config.layer < -1:
        return f"hidden state after layer {config.layer}{', and the last of the draft' if config.draft else ''}"
    return f"last hidden state{' of both' if config.draft else ''}, {config.norm} the final norm"


def _model(info: TargetInfo) -> str:
    size, layers = info.hidden_size, info.num_hidden_layers
    return f"{info.name_or_path} ({info.architecture}, hidden size {size}, {layers} layers)"


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
