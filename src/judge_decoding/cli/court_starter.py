"""``judge-decoding court starter``: the labelled answers that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import starter_cases, write_cases


def starter(
    output: Annotated[Path, typer.Option("--output", "-o", help="TokenCourt file (JSONL) to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Write the starter set: real models' answers to reasoning questions in English, their errors located by people."""
    check_outputs([output], overwrite=overwrite)
    cases = starter_cases()
    write_cases(output, cases)
    wrong = sum(bool(case.errors) for case in cases)
    say(f"{len(cases)} cases, {wrong} of them wrong, written to {output}.")
