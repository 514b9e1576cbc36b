"""How the command line shows a head's configuration."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table
from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.terminal import say_json
from judge_decoding.intervals import fewest_digits
from judge_decoding.judge.config import JudgeHeadConfig, TargetInfo


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
