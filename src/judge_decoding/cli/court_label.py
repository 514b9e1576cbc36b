"""``judge-decoding court label arithmetic``: label answers by their equations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.court_files import read, show
from judge_decoding.cli.outputs import Cases, Json, Overwrite, check_outputs
from judge_decoding.cli.panels import OUTPUT
from judge_decoding.data.cases import write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.labelling.labels.arithmetic import label


def arithmetic(
    answers: Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) of answers.")],
    out: Cases,
    aside: Annotated[
        Path | None,
        typer.Option(help="TokenCourt file (JSONL) for the answers without a label.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Check every equation of an answer; the first false one is the error."""
    check_outputs([out, aside], [answers], overwrite=overwrite)
    result = label(read(answers))
    if not result.labelled:
        raise JudgeDecodingError(
            f"No answer of {answers} can be labelled by arithmetic: none has a false equation or is marked "
            'right ("correct": true); label it another way.'
        )
    write_cases(out, result.labelled)
    if aside is not None:
        write_cases(aside, result.accused + result.silent)
    show(
        {
            "located": len(result.located),
            "right": len(result.right),
            "accused although found right": len(result.accused),
            "no false equation": len(result.silent),
        },
        json=json,
    )
