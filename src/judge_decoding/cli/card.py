"""``judge-decoding card``: add measured results to a head's model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.errors import JudgeDecodingError


def card(
    head: Annotated[Path, typer.Argument(help="Folder of a judge head.")],
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="Results of `evaluate` or `sweep`; may be given several times. Default: those in the folder."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a card that was changed by hand, and other results.")
    ] = False,
) -> None:
    """Write a head's model card anew, with what was measured; the head itself stays as it is."""
    if not head.is_dir():
        raise JudgeDecodingError(f"{head} is no folder; name the folder of a judge head.")

    from judge_decoding.cli.run.card import run  # noqa: PLC0415  (loads torch)

    run(head, results, overwrite=overwrite)
