"""``judge-decoding demo``: the embedded pair with four decoding methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs

# Tuned on calibration problems, never on the test problems of the table.


def demo(
    context: typer.Context,
    problems: Annotated[int, typer.Option(min=1, max=2000, help="How many held-out test problems.")] = 100,
    seed: Annotated[int, typer.Option(help="Which problems are drawn.")] = 0,
    threshold: Annotated[
        float | None, typer.Option(help="The judge's threshold; the head's calibrated one by default.")
    ] = None,
    num_draft_tokens: Annotated[
        int | None, typer.Option(min=1, max=100, help="Draft length of both speculative methods; the best by default.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained web page here.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """See judge decoding work, offline, in under two minutes.

    Two tiny models that come with the package solve arithmetic word problems four ways, side by side.
    """
    check_outputs([json, html], overwrite=overwrite)
    if json is None and html is None:
        check_used(context, "Without --json or --html", "--overwrite")

    from judge_decoding.cli.run.demo import run  # noqa: PLC0415  (loads torch)

    run(problems, seed, threshold, num_draft_tokens, json, html)
