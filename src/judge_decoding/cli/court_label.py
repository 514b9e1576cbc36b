"""``judge-decoding court label arithmetic``: label answers by their equations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.court_files import read, show
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.data.cases import write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.labelling.labels.arithmetic import label


def arithmetic(
    answers: Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) of answers.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the labelled answers go.")],
    aside: Annotated[
        Path | None, typer.Option(help="Where the others go: accused although right, and without a false equation.")
    ] = None,
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Evaluate every equation of an answer; the first false one is the error."""
    check_outputs([output, aside], [answers], overwrite=overwrite)
    result = label(read(answers))
    if not result.labelled:
        raise JudgeDecodingError(
            f"No answer of {answers} can be labelled by arithmetic: none has a false equation and none is marked "
            'right ("correct": true); label it another way.'
        )
    write_cases(output, result.labelled)
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
