"""``judge-decoding demo``: an included pair with four decoding methods side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used
from judge_decoding.cli.options import MODELS, option, out_option
from judge_decoding.cli.outputs import check_outputs


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Show judge decoding on included models, offline, in minutes.

    Two tiny models solve 100 arithmetic word problems by four methods, side by side. With --pair smollm2, a language
    model describes 10 restaurants.
    """

    context: typer.Context
    pair: Annotated[
        Literal["reference", "smollm2"],
        option(
            MODELS,
            "Two tiny models that solve word problems (reference), or a SmolLM2-135M that describes restaurants, "
            "whose base model is a separate package (smollm2).",
        ),
    ] = "reference"
    limit: options.Drawn = None
    seed: options.Seed = 0
    threshold: options.Threshold = None
    num_draft_tokens: options.DraftLengthOption = None
    out: Annotated[Path | None, out_option("File (JSON) for the figures.")] = None
    html: options.Html = None
    overwrite: options.Overwrite = False
    json: options.Json = False

    def run(self) -> None:
        """Check the options, and show the pair."""
        check_outputs([self.out, self.html], overwrite=self.overwrite)
        if self.out is None and self.html is None:
            check_used(self.context, "Without --out or --html", "--overwrite")
        from judge_decoding.cli.run.demo import run  # noqa: PLC0415  (loads torch)

        run(self)
