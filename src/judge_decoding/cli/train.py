"""``judge-decoding train``: train a judge head on labelled answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.calibrate_on import CalibrateData, CalibrateLimit, CalibrateOn
from judge_decoding.cli.models import Device, DtypeOption, check_dtype
from judge_decoding.cli.outputs import Overwrite
from judge_decoding.errors import JudgeDecodingError


def train(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="Target model: Hub name or folder; 'reference' is the embedded one.")],
    cases: Annotated[list[Path], typer.Argument(help="TokenCourt files (JSONL) of labelled answers, or 'starter'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the head.")],
    labels: Annotated[
        str,
        typer.Option(help="Which tokens are wrong: the first of the first error (error), all in an error (span), all "
                     "from the first error on (from_error)."),
    ] = "span",
    after_error: Annotated[
        str, typer.Option(help="What the other tokens behind the first error count as: ignore or correct.")
    ] = "ignore",
    class_weights: Annotated[
        str, typer.Option(help="balanced: correct and wrong tokens weigh the same in sum; none: every token does.")
    ] = "balanced",
    wrong_weight: Annotated[float, typer.Option(help="A factor on the weight of wrong tokens.")] = 1.0,
    norm: Annotated[
        str, typer.Option(help="Hidden states before or after the target's final norm, or both compared.")
    ] = "after",
    layers: Annotated[
        str, typer.Option(help="Layers to read, from the end, such as '-1 -4 -8'; several are compared.")
    ] = "-1",
    l2: Annotated[str, typer.Option(help="Weight decays to try.")] = "1e-4 1e-3 1e-2 1e-1 1",
    folds: Annotated[int, typer.Option(help="Of the cross-validation over questions.")] = 5,
    aim: Annotated[
        str,
        typer.Option(help="What the threshold is chosen by: keep=0.95 (of the correct tokens), catch=0.9 (of the wrong "
                     "ones), or accuracy=1 (points lost at most on --calibrate-on)."),
    ] = "catch=0.95",
    calibrate_on: CalibrateOn = None,
    calibrate_data: CalibrateData = None,
    calibrate_limit: CalibrateLimit = None,
    result: Annotated[
        str,
        typer.Option(help="What makes an answer to a file of questions right: number, choice, text, regex:PATTERN or "
                     "module:function."),
    ] = "number",
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Questions are plain text and go through the target's chat template; by "
                     "default those of 'starter' and of a task by name, if there is one."),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget of an answer to --calibrate-on; else the task's own.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers to --calibrate-on that share forwards.")] = 8,
    draft: Annotated[
        str | None, typer.Option(help="Draft model, for --draft-states, and to decode --calibrate-on with.")
    ] = None,
    draft_states: Annotated[
        bool, typer.Option("--draft-states", help="The judge reads the draft's states too, and works with it only.")
    ] = False,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Compare with the target's log-probability and rank; several places are.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for hidden states; by default in the user's cache directory.")
    ] = None,
    plots: Annotated[
        bool | None,
        typer.Option("--plots/--no-plots", help="Draw reliability and ROC; by default if matplotlib is there."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    dtype: DtypeOption = "auto",
    device: Device = None,
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:  # fmt: skip
    """Train a judge head for a target on labelled answers."""
    check_dtype(dtype)
    if output.exists() and not output.is_dir():
        raise JudgeDecodingError(f"Cannot write a head to {output}: it is a file; name a folder.")
    from judge_decoding.cli.run.train import run  # noqa: PLC0415  (loads torch)

    run(
        context, target, cases, output, labels, after_error, class_weights, wrong_weight, norm, layers, l2, folds,
        aim, calibrate_on, calibrate_data, calibrate_limit, result, chat, max_new_tokens, batch_size, draft, cache,
        plots, seed, dtype, device, draft_states=draft_states, baseline=baseline, overwrite=overwrite, json=json,
    )  # fmt: skip
