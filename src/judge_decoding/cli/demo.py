"""``judge-decoding demo``: an included pair with four decoding methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from judge_decoding.cli.decoding_options import DraftLengthOption, Seed, Threshold
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Html, Json, Overwrite, check_outputs, out_option
from judge_decoding.cli.panels import MODELS
from judge_decoding.cli.task_options import Drawn


def demo(
    context: typer.Context,
    pair: Annotated[
        Literal["reference", "smollm2"],
        typer.Option(
            help="Two tiny models that solve word problems (reference), or a SmolLM2-135M that describes restaurants, "
            "whose base model is a separate package (smollm2).",
            rich_help_panel=MODELS,
        ),
    ] = "reference",
    limit: Drawn = None,
    seed: Seed = 0,
    threshold: Threshold = None,
    num_draft_tokens: DraftLengthOption = None,
    out: Annotated[Path | None, out_option("File (JSON) for the figures.")] = None,
    html: Html = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show judge decoding on included models, offline, in minutes.

    Two tiny models solve 100 arithmetic word problems by four methods, side by side. With --pair smollm2, a language
    model describes 10 restaurants.
    """
    check_outputs([out, html], overwrite=overwrite)
    if out is None and html is None:
        check_used(context, "Without --out or --html", "--overwrite")

    from judge_decoding.cli.run.demo import run  # noqa: PLC0415  (loads torch)

    run(pair, limit, seed, threshold, num_draft_tokens, out, html, json=json)
