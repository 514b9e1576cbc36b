"""``judge-decoding train``: train a judge head on labelled answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_dtype
from judge_decoding.cli.options import OUTPUT, TRAINING, option, out_option
from judge_decoding.core.tracking import check_tracker
from judge_decoding.io.files import check_not_a_file


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a judge head for a target on labelled answers."""

    context: typer.Context
    target: options.Target
    cases: Annotated[list[Path], typer.Argument(help="TokenCourt files (JSONL) of labelled answers, or 'starter'.")]
    out: Annotated[Path, out_option("Folder for the judge head.")]
    labels: Annotated[
        str,
        option(
            TRAINING,
            "Which tokens are wrong: the first of the first error (error), all in an error (span), or all from "
            "the first error on (from_error).",
        ),
    ] = "span"
    after_error: Annotated[
        str, option(TRAINING, "How the other tokens after the first error count: ignore or correct.")
    ] = "ignore"
    class_weights: Annotated[
        str,
        option(
            TRAINING, "balanced: correct and wrong tokens have the same total weight; none: all tokens have the same."
        ),
    ] = "balanced"
    wrong_weight: Annotated[float, option(TRAINING, "Factor on the weight of wrong tokens.")] = 1.0
    norm: Annotated[
        str, option(TRAINING, "Read hidden states before or after the target's final norm, or compare both.")
    ] = "after"
    layers: Annotated[
        str, option(TRAINING, "Layers to read, counted from the end, such as '-1 -4 -8'; several are compared.")
    ] = "-1"
    l2: Annotated[str, option(TRAINING, "Weight decays to try.")] = "1e-4 1e-3 1e-2 1e-1 1"
    folds: Annotated[int, option(TRAINING, "Folds of the cross-validation over questions.")] = 5
    aim: Annotated[
        str,
        option(
            TRAINING,
            "How the threshold is chosen: keep=0.95 (of the correct tokens), catch=0.95 (of the wrong ones), or "
            "accuracy (lose at most --margin on --calibrate-on).",
        ),
    ] = "catch=0.95"
    margin: options.Margin = 1.0
    calibrate_on: options.CalibrateOn = None
    calibrate_data: options.CalibrateData = None
    calibrate_limit: options.CalibrateLimit = None
    checker: options.CheckerOption = "number"
    chat: options.Chat = None
    max_new_tokens: options.BudgetOption = None
    batch_size: options.BatchSize = 8
    draft: options.DraftModelOption = None
    draft_states: Annotated[
        bool,
        option(
            TRAINING,
            "The judge reads the draft model's hidden states too, and works only with this draft model.",
            "--draft-states",
        ),
    ] = False
    baseline: Annotated[bool, option(TRAINING, "Compare with the target's log-probability and rank.", "--baseline")] = (
        False
    )
    cache: Annotated[
        Path | None, option(TRAINING, "Folder for hidden states; by default in the user's cache directory.")
    ] = None
    plots: Annotated[
        bool | None,
        option(OUTPUT, "Draw reliability and ROC curves; by default if matplotlib is installed.", "--plots/--no-plots"),
    ] = None
    seed: options.Seed = 0
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    log_to: options.LogTo = None
    overwrite: options.Overwrite = False
    json: options.Json = False

    def run(self) -> None:
        """Check the options, and train."""
        check_dtype(self.dtype)
        check_tracker(self.log_to)
        check_not_a_file(self.out, "a head")
        from judge_decoding.cli.run.train import run  # noqa: PLC0415  (loads torch)

        run(self)
