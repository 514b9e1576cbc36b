"""``judge-decoding train``: train a judge head on labelled answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.decoding_options import BudgetOption, Seed
from judge_decoding.cli.models import BatchSize, Device, DraftModelOption, DtypeOption, Target, check_dtype
from judge_decoding.cli.outputs import Json, LogTo, Overwrite, out_option
from judge_decoding.cli.panels import OUTPUT, TRAINING
from judge_decoding.cli.task_options import CalibrateData, CalibrateLimit, CalibrateOn, Chat, CheckerOption, Margin
from judge_decoding.core.tracking import check_tracker
from judge_decoding.errors import JudgeDecodingError


def train(
    context: typer.Context,
    target: Target,
    cases: Annotated[list[Path], typer.Argument(help="TokenCourt files (JSONL) of labelled answers, or 'starter'.")],
    out: Annotated[Path, out_option("Folder for the judge head.")],
    labels: Annotated[
        str,
        typer.Option(
            help="Which tokens are wrong: the first of the first error (error), all in an error (span), or all from "
            "the first error on (from_error).",
            rich_help_panel=TRAINING,
        ),
    ] = "span",
    after_error: Annotated[
        str,
        typer.Option(
            help="How the other tokens after the first error count: ignore or correct.", rich_help_panel=TRAINING
        ),
    ] = "ignore",
    class_weights: Annotated[
        str,
        typer.Option(
            help="balanced: correct and wrong tokens have the same total weight; none: all tokens have the same.",
            rich_help_panel=TRAINING,
        ),
    ] = "balanced",
    wrong_weight: Annotated[
        float, typer.Option(help="Factor on the weight of wrong tokens.", rich_help_panel=TRAINING)
    ] = 1.0,
    norm: Annotated[
        str,
        typer.Option(
            help="Read hidden states before or after the target's final norm, or compare both.",
            rich_help_panel=TRAINING,
        ),
    ] = "after",
    layers: Annotated[
        str,
        typer.Option(
            help="Layers to read, counted from the end, such as '-1 -4 -8'; several are compared.",
            rich_help_panel=TRAINING,
        ),
    ] = "-1",
    l2: Annotated[str, typer.Option(help="Weight decays to try.", rich_help_panel=TRAINING)] = "1e-4 1e-3 1e-2 1e-1 1",
    folds: Annotated[
        int, typer.Option(help="Folds of the cross-validation over questions.", rich_help_panel=TRAINING)
    ] = 5,
    aim: Annotated[
        str,
        typer.Option(
            help="How the threshold is chosen: keep=0.95 (of the correct tokens), catch=0.95 (of the wrong ones), or "
            "accuracy (lose at most --margin on --calibrate-on).",
            rich_help_panel=TRAINING,
        ),
    ] = "catch=0.95",
    margin: Margin = 1.0,
    calibrate_on: CalibrateOn = None,
    calibrate_data: CalibrateData = None,
    calibrate_limit: CalibrateLimit = None,
    checker: CheckerOption = "number",
    chat: Chat = None,
    max_new_tokens: BudgetOption = None,
    batch_size: BatchSize = 8,
    draft: DraftModelOption = None,
    draft_states: Annotated[
        bool,
        typer.Option(
            "--draft-states",
            help="The judge reads the draft model's hidden states too, and works only with this draft model.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Compare with the target's log-probability and rank.", rich_help_panel=TRAINING
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for hidden states; by default in the user's cache directory.", rich_help_panel=TRAINING
        ),
    ] = None,
    plots: Annotated[
        bool | None,
        typer.Option(
            "--plots/--no-plots",
            help="Draw reliability and ROC curves; by default if matplotlib is installed.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    seed: Seed = 0,
    dtype: DtypeOption = "auto",
    device: Device = None,
    log_to: LogTo = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train a judge head for a target on labelled answers."""
    check_dtype(dtype)
    check_tracker(log_to)
    if out.exists() and not out.is_dir():
        raise JudgeDecodingError(f"Cannot write a head to {out}: it is a file; give a folder.")
    from judge_decoding.cli.run.train import run  # noqa: PLC0415  (loads torch)

    run(
        context, target, cases, out, labels, after_error, class_weights, wrong_weight, norm, layers, l2, folds,
        aim, calibrate_on, calibrate_data, calibrate_limit, checker, margin, chat, max_new_tokens, batch_size, draft,
        cache, plots, seed, dtype, device, draft_states=draft_states, baseline=baseline, overwrite=overwrite, json=json,
        log_to=log_to,
    )  # fmt: skip
