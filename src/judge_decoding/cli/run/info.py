"""Implementation of ``judge-decoding info``, called with checked options."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.terminal import say_json
from judge_decoding.judge.head import JudgeHead, JudgeHeadConfig
from judge_decoding.judge.target import TargetInfo
from judge_decoding.loading.models import load_model
from judge_decoding.names import embedded_path


def run(head: str, target: str | None, *, json: bool) -> None:
    """Read the head, and print what it is."""
    name_or_path = embedded_path(head, "judge")
    model = load_model(target) if target is not None else None
    describe(JudgeHead.from_pretrained(name_or_path, model).config, name_or_path, json=json, fits=target)


def describe(config: JudgeHeadConfig, name_or_path: str | Path, *, json: bool, fits: str | None = None) -> None:
    """Print a head's configuration for people or, with ``json``, for programs."""
    if json:
        say_json(config.model_dump_json(indent=2))
        return

    draft, known = config.draft, config.familiarity
    rows = {
        "head": str(name_or_path),
        "target": _model(config.target),
        **({"draft": _model(draft)} if draft else {}),
        **({"fits": f"yes, {fits}"} if fits else {}),
        "reads": f"{_source(config)}; gives the probability of {config.polarity}",
        "threshold": f"{config.threshold:.4g}",
        "draft length": str(config.num_draft_tokens or "not tuned"),
        "labels": config.labels,
        "data": ", ".join(f"{k} {v}" for k, v in config.data.items()),
        "knows its questions": f"from {known.questions} of them"
        if known
        else "no: tells no distance of a prompt to them",
        **{
            name.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else str(value)
            for name, value in config.calibration.items()
            # Curves and tables are in the card and in the output of --json.
            if value is not None and not isinstance(value, list | dict)
        },
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    Terminal().print(table)


def _source(config: JudgeHeadConfig) -> str:
    if config.layer < -1:
        return f"hidden state behind layer {config.layer}{', and the last of the draft' if config.draft else ''}"
    return f"last hidden state{' of both' if config.draft else ''}, {config.norm} the final norm"


def _model(info: TargetInfo) -> str:
    return f"{info.name_or_path} ({info.architecture}, hidden size {info.hidden_size}, {info.num_hidden_layers} layers)"
