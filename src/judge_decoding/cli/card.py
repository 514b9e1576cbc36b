"""``judge-decoding card``: add measured results to a head's model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from judge_decoding.cli import options
from judge_decoding.cli.options import option
from judge_decoding.cli.panels import OUTPUT
from judge_decoding.errors import JudgeDecodingError


def card(
    judge: options.Head,
    results: Annotated[
        list[Path] | None,
        option(OUTPUT, "Results of `evaluate` or `sweep`; by default those in the folder. Repeatable."),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Rewrite a head's model card with measured results; the head itself does not change."""
    head = Path(judge)
    if not head.is_dir():
        raise JudgeDecodingError(f"{head} is not a folder; give the folder of a judge head.")

    from judge_decoding.cli.run.card import run  # noqa: PLC0415  (loads torch)

    run(head, results, overwrite=overwrite)
