"""Implementation of ``judge-decoding train``, called with checked options."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import typer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.cli.calibrate_on import check_calibrate_on
from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.run.calibration import calibration
from judge_decoding.cli.run.train_cases import located_cases, prompted_cases, within_context
from judge_decoding.cli.run.train_report import report
from judge_decoding.cli.steps import steps
from judge_decoding.cli.terminal import say
from judge_decoding.core import tracking
from judge_decoding.core.progress import StageProgress
from judge_decoding.data.leaks import check_not_trained_on
from judge_decoding.data.starter import is_starter
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.choices import AnyDraft
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.evaluate import forms
from judge_decoding.io.files import check_writable
from judge_decoding.judge.files import files_of_head
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import as_draft, default_device, load_model, load_tokenizer
from judge_decoding.names import complete, is_drafter
from judge_decoding.report.card_files import save_head, write_card
from judge_decoding.report.head_pictures import can_draw, head_pictures
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.training.cache import default_folder
from judge_decoding.training.calibration import Aim
from judge_decoding.training.options import TrainingConfig
from judge_decoding.training.thresholds import THRESHOLDS, calibrate, log_calibration
from judge_decoding.training.training import train_head


def run(
    context: typer.Context, target: str, cases: list[Path], out: Path, labels: str, after_error: str,
    class_weights: str, wrong_weight: float, norm: str, layers: str, l2: str, folds: int, aim: str,
    calibrate_on: str | None, calibrate_data: Path | None, calibrate_limit: int | None, checker: str, margin: float,
    chat: bool | None,
    max_new_tokens: int | None, batch_size: int, draft: str | None, cache: Path | None, plots: bool | None, seed: int,
    dtype: str, device: str | None, *, draft_states: bool, baseline: bool, overwrite: bool, json: bool,
    log_to: str | None,
) -> None:  # fmt: skip
    """Train the head, and save it."""
    goal = Aim("accuracy", margin) if aim.strip() == "accuracy" else Aim.parse(aim)
    by_task = goal.kind == "accuracy"
    kept = [out / "calibration.part", *files_of_head(out / UNCALIBRATED)] if by_task else []
    check_outputs(
        files_of_head(out), [target, draft, *cases, calibrate_on, calibrate_data], overwrite=overwrite,
        folder=True, work=kept, alone=(context, out) if by_task else None,
    )  # fmt: skip
    if not by_task:
        check_used(
            context, f"With the aim {aim}", "--calibrate-data", "--calibrate-limit", "--checker", "--margin",
            "--max-new-tokens", "--batch-size", remedy="give --aim accuracy",
        )  # fmt: skip
    elif calibrate_on is not None:
        check_calibrate_on(context, calibrate_on, ("--calibrate-data", "--chat"), ("--checker",))
    if labels == "from_error":
        check_used(context, "With --labels from_error, where everything after the error is wrong,", "--after-error")
    if cache is not None:
        check_writable(cache / "features")
    files = located_cases(cases)

    config = TrainingConfig(
        labels=labels, after_error=after_error, norm=norm, layers=_numbers("layers", layers, int),  # type: ignore[arg-type]  # checked there
        class_weights=class_weights, wrong_weight=wrong_weight, l2=_numbers("l2", l2, float), folds=folds,  # type: ignore[arg-type]  # checked there
        baseline=baseline, seed=seed, **({} if by_task else {"aim": aim}),
    )  # fmt: skip
    if -1 not in config.layers and norm != "before":
        check_used(
            context, "Below the last layer, where states are read before the norm,", "--norm", remedy="add layer -1"
        )
    if plots and not can_draw():
        raise JudgeDecodingError(
            "--plots needs matplotlib; install it with: pip install 'judge-decoding[eval]', or leave it out."
        )
    if draft_states or by_task:
        draft, _ = complete(target, draft, None)
    if draft_states and (draft is None or is_drafter(draft)):
        raise JudgeDecodingError("--draft-states needs the draft model; give it with --draft.")
    if draft is not None and not (draft_states or by_task):
        raise JudgeDecodingError(
            "--draft is given, and nothing needs it; add --draft-states for a judge that reads the draft's hidden "
            "states, or --aim accuracy --calibrate-on QUESTIONS."
        )
    check_task(goal, calibrate_on, draft)
    notes = Terminal(err=True)
    with notes.status("loading the models"):
        tokenizer, place = load_tokenizer(target), device or default_device()
    data, asked = prompted_cases(files, tokenizer, chat), None
    if calibrate_on is not None:
        asked = calibration(
            calibrate_on, calibrate_data, calibrate_limit, checker=checker, max_new_tokens=max_new_tokens,
            chat=chat, tokenizer=tokenizer,
        )  # fmt: skip
        check_not_trained_on(forms(asked[1], asked[0], tokenizer), (case.question for case in data))
    with notes.status("loading the models"):
        small = as_draft(draft, lambda: tokenizer, dtype=dtype, device=place)
        model = load_model(target, dtype=dtype, device=place)
    if any(map(is_starter, cases)):
        data = within_context(data, tokenizer, model)
    about = {"target": target, "cases": [str(path) for path in cases]}
    with steps() as progress, tracking.log_to(log_to, f"train {out.name}", about) as logger:
        head = train_head(
            model, tokenizer, data, config,
            draft=cast(Any, small) if draft_states else None, cache=cache or default_folder(), progress=progress,
            logger=logger,
        )  # fmt: skip
        if asked is not None and small is not None:
            _calibrate(head, goal, asked, (model, tokenizer, small), batch_size, out, progress)
            log_calibration(logger, head)
    draw = can_draw() if plots is None else plots
    save_head(head, out, head_pictures(head.config) if draw else None)
    keep_config(context, out)
    write_card(head, out)  # with the configuration that repeats the run
    report(head.config, out, json=json)


UNCALIBRATED = "uncalibrated"
"""Subfolder of the head's folder, for a head for which no threshold was found."""


def _numbers(name: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    """Parse a list of numbers such as ``-1 -4`` or ``-1,-4``."""
    try:
        return tuple(kind(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise JudgeDecodingError(f"--{name} is {text!r}; it must be numbers with spaces between.") from error


def check_task(goal: Aim, calibrate_on: str | None, draft: str | None) -> None:
    """Check that there is a calibration task for an aim that is about one, and for no other.

    Raises:
        JudgeDecodingError: something is missing or too much.
    """
    if goal.kind != "accuracy":
        if calibrate_on is not None:
            raise JudgeDecodingError(f"--calibrate-on is for --aim accuracy, and the aim is {goal}; change one.")
    elif calibrate_on is None or draft is None:
        raise JudgeDecodingError(f"The aim {goal} is measured by decoding; give --draft and --calibrate-on.")


def _calibrate(
    head: JudgeHead,
    goal: Aim,
    asked: tuple[PromptFormat, list[Item]],
    models: tuple[PreTrainedModel, PreTrainedTokenizerBase, AnyDraft],
    batch_size: int,
    output: Path,
    progress: StageProgress,
) -> None:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress("decoding the calibration task", done, (len(THRESHOLDS) + 1) * len(asked[1]))

    with _kept_if_not_calibrated(head, output / UNCALIBRATED):
        calibrate(
            JudgeDecoder(*models, head), head, *asked, goal.value,
            batch_size=batch_size, part=output / "calibration.part", progress=count,
        )  # fmt: skip


@contextmanager
def _kept_if_not_calibrated(head: JudgeHead, folder: Path) -> Iterator[None]:
    """If calibration in this block finds no threshold, save the head to ``folder`` and report it."""
    try:
        yield
    except JudgeDecodingError:
        save_head(head, folder)
        say(f"The head without a calibrated threshold is in {folder}.", err=True)
        raise
