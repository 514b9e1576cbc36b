"""``judge-decoding info``: what a head is and which target it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.head_facts import describe, head_facts, print_json
from judge_decoding.cli.models import Head
from judge_decoding.cli.outputs import Json
from judge_decoding.cli.panels import MODELS
from judge_decoding.names import embedded_path


def info(
    judge: Head,
    target: Annotated[
        str | None,
        typer.Option(help="Target model: check that the head fits it.", rich_help_panel=MODELS),
    ] = None,
    json: Json = False,
) -> None:
    """Show a judge head's origin, calibration and target, and whether it fits a target."""
    place = embedded_path(judge, "judge")
    facts = head_facts(Path(place)) if target is None else None
    if facts is None:
        from judge_decoding.cli.run.info import checked_facts  # noqa: PLC0415  (loads torch)

        facts = checked_facts(place, target)
    if json:
        print_json(facts)
    else:
        describe(facts, place, fits=target)
