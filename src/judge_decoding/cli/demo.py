"""``judge-decoding demo``: the embedded pair with four decoding methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.decoding_options import DraftLength, Seed, Threshold
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Html, Json, Overwrite, check_outputs, out_option
from judge_decoding.cli.task_options import DrawnOf


def demo(
    context: typer.Context,
    limit: DrawnOf = 100,
    seed: Seed = 0,
    threshold: Threshold = None,
    num_draft_tokens: DraftLength = None,
    out: Annotated[Path | None, out_option("File (JSON) for the figures.")] = None,
    html: Html = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show judge decoding on the embedded models, offline, in under two minutes.

    Two tiny models included in the package solve arithmetic word problems by four methods, side by side.
    """
    check_outputs([out, html], overwrite=overwrite)
    if out is None and html is None:
        check_used(context, "Without --out or --html", "--overwrite")

    from judge_decoding.cli.run.demo import run  # noqa: PLC0415  (loads torch)

    run(limit, seed, threshold, num_draft_tokens, out, html, json=json)
