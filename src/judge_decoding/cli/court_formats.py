"""``judge-decoding court import`` and ``export``: convert from and to other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.options import TASK, option, out_option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.shared import read, warnings
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import write_text
from judge_decoding.labelling.formats import FORMATS
from judge_decoding.labelling.formats.base import Format

_FORMAT = option(
    TASK,
    "csv, prm800k, processbench, mr-gsm8k, bigbench-mistake, prodigy or label-studio; also as the first argument.",
    "--format",
    "-f",
)


def import_cases(
    file: Annotated[Path, typer.Argument(help="The file to read.")],
    out: options.Cases,
    format_name: Annotated[str, _FORMAT],
    template: options.Template = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Convert a file of another format to cases; invalid rows are reported and skipped."""
    chosen = _format(format_name)
    if template is not None and "{question}" not in template:
        raise JudgeDecodingError(f"The template {template!r} has no {{question}}; say where the question goes.")
    check_outputs([out], [file], overwrite=overwrite)
    with warnings() as on_bad:
        cases = chosen.read(file, on_bad)
    if template is not None:
        before, _, after = template.replace("\\n", "\n").partition("{question}")
        # Token ids belong to the original question, so they are invalid once it changes.
        cases = [
            case.model_copy(update={"question": before + case.question + after, "token_ids": None, "tokenizer": ""})
            for case in cases
        ]
    write_cases(out, cases)
    say(f"{len(cases)} cases written to {out}; {on_bad.count} rows left out.")


def export_cases(
    file: options.CasesFile,
    out: Annotated[Path, out_option("File to write.")],
    format_name: Annotated[str, _FORMAT],
    overwrite: options.Overwrite = False,
) -> None:
    """Convert cases to another format."""
    write = _format(format_name).write
    if write is None:
        raise JudgeDecodingError(f"{format_name} can only be imported; export the cases as processbench or prm800k.")
    check_outputs([out], [file], overwrite=overwrite)
    cases = read(file)
    write_text(out, write(cases))
    say(f"{len(cases)} cases written to {out}.")


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise JudgeDecodingError(f"There is no format {name}; there are {', '.join(FORMATS)}.")
    return FORMATS[name]
