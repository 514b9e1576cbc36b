"""Implementation of judge-decoding train, called with checked options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.cli.checks import check_calibrate_on, check_used
from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.head_view import report
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.run.calibration import calibration
from judge_decoding.cli.steps import steps
from judge_decoding.cli.terminal import say, warn
from judge_decoding.cli.train import TrainOptions
from judge_decoding.core import tracking
from judge_decoding.core.progress import StageProgress
from judge_decoding.data.asking import ask_cases
from judge_decoding.data.cases import Case, is_starter, read_cases
from judge_decoding.data.leaks import check_not_trained_on
from judge_decoding.data.tokens import split_ids
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.evaluate import forms
from judge_decoding.evaluation.thresholds import THRESHOLDS, calibrate, log_calibration
from judge_decoding.io.files import check_writable
from judge_decoding.judge.files import files_of_head
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import as_draft, default_device, load_model, load_tokenizer
from judge_decoding.models.context import context_length
from judge_decoding.names import complete, is_drafter
from judge_decoding.report.card_files import save_head, write_card
from judge_decoding.report.head_pictures import can_draw, head_pictures
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.training.calibration import Aim
from judge_decoding.training.features import default_folder
from judge_decoding.training.options import TrainingConfig
from judge_decoding.training.training import ticks, train_head


def located_cases(paths: Sequence[Path]) -> dict[Path, list[Case]]:
    """The cases of each file, without answers that are known to be wrong, but not where.

    Raises:
        JudgeDecodingError: a file cannot be read, or a line of it is no case.
    """
    found = {path: read_cases(path) for path in paths}
    kept = {path: [case for case in cases if case.located] for path, cases in found.items()}
    left_out = sum(map(len, found.values())) - sum(map(len, kept.values()))
    _warn(left_out, "answers that are known to be wrong, but not where")
    return kept


def prompted_cases(files: dict[Path, list[Case]], tokenizer: PreTrainedTokenizerBase, chat: bool | None) -> list[Case]:
    """All cases as the target reads them.

    The starter set's questions are plain text: they go through the chat template if there is one. Those of other files
    are whole prompts, unless ``chat`` says that they are plain text, too.

    Raises:
        JudgeDecodingError: a chat is asked for, and the model has no chat template.
    """
    out: list[Case] = []
    for path, cases in files.items():
        out += ask_cases(cases, tokenizer, chat=chat) if is_starter(path) or chat else cases
    return out


def within_context(cases: Sequence[Case], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[Case]:
    """Those of ``cases`` that the target has room for; the others are counted in a warning."""
    context = context_length(model)
    kept = [case for case in cases if context is None or sum(map(len, split_ids(case, tokenizer))) <= context]
    _warn(len(cases) - len(kept), f"answers that are longer than the target's context of {context} tokens")
    return kept


def _warn(left_out: int, which: str) -> None:
    if left_out:
        warn(f"Left out: {left_out} {which}.")


UNCALIBRATED = "uncalibrated"
"""Subfolder of the head's folder, for a head for which no threshold was found."""

_Asked = tuple[PromptFormat, list[Item]]


def run(options: TrainOptions) -> None:
    """Train the head, and save it."""
    target, out, calibrate_on = options.target, options.out, options.calibrate_on
    goal = Aim("accuracy", options.margin) if options.aim.strip() == "accuracy" else Aim.parse(options.aim)
    by_task = goal.kind == "accuracy"
    if by_task and "=" in options.aim:
        raise JudgeDecodingError(f"Points are not part of the aim; give --aim accuracy --margin {goal.value:g}.")
    kept = [out / "calibration.part", *files_of_head(out / UNCALIBRATED)] if by_task else []
    check_outputs(
        files_of_head(out), [target, options.draft, *options.cases, calibrate_on, options.calibrate_data],
        overwrite=options.overwrite, folder=True, work=kept, alone=(options.context, out) if by_task else None,
    )  # fmt: skip
    _check_used(options, by_task=by_task)
    if options.cache is not None:
        check_writable(options.cache / "features")
    files = located_cases(options.cases)
    config = _config(options, by_task=by_task)
    draft = _draft(options, goal)
    with Terminal(err=True).status("loading the models"):
        tokenizer, place = load_tokenizer(target), options.device or default_device()
    data, asked = prompted_cases(files, tokenizer, options.chat), None
    if calibrate_on is not None:
        asked = calibration(
            calibrate_on, options.calibrate_data, options.calibrate_limit, checker=options.checker,
            max_new_tokens=options.max_new_tokens, chat=options.chat, tokenizer=tokenizer,
        )  # fmt: skip
        check_not_trained_on(forms(asked[1], asked[0], tokenizer), (case.question for case in data))
    with Terminal(err=True).status("loading the models"):
        small = as_draft(draft, lambda: tokenizer, dtype=options.dtype, device=place)
        model = load_model(target, dtype=options.dtype, device=place)
    if any(map(is_starter, options.cases)):
        data = within_context(data, tokenizer, model)
    about = {"target": target, "cases": [str(path) for path in options.cases]}
    with steps() as progress, tracking.log_to(options.log_to, f"train {out.name}", about) as logger:
        head = train_head(
            model, tokenizer, data, config, draft=cast(Any, small) if options.draft_states else None,
            cache=options.cache or default_folder(), progress=progress, logger=logger,
        )  # fmt: skip
        if asked is not None and small is not None:
            try:
                _calibrate(JudgeDecoder(model, tokenizer, small, head), head, goal, asked, options, progress)
            except JudgeDecodingError:
                save_head(head, out / UNCALIBRATED)
                say(f"The head without a calibrated threshold is in {out / UNCALIBRATED}.", err=True)
                raise
            log_calibration(logger, head)
    draw = can_draw() if options.plots is None else options.plots
    save_head(head, out, head_pictures(head.config) if draw else None)
    keep_config(options.context, out)
    write_card(head, out)  # with the configuration that repeats the run
    report(head.config, out, json=options.json)


def _check_used(options: TrainOptions, *, by_task: bool) -> None:
    """Refuse options without effect for this aim and these labels."""
    context = options.context
    if not by_task:
        check_used(
            context, f"With the aim {options.aim}", "--calibrate-data", "--calibrate-limit", "--checker", "--margin",
            "--max-new-tokens", "--batch-size", remedy="give --aim accuracy",
        )  # fmt: skip
    elif options.calibrate_on is not None:
        check_calibrate_on(context, options.calibrate_on, ("--calibrate-data", "--chat"), ("--checker",))
    if options.labels == "from_error":
        check_used(context, "With --labels from_error, where everything after the error is wrong,", "--after-error")


def _config(options: TrainOptions, *, by_task: bool) -> TrainingConfig:
    """How the head is trained."""
    config = TrainingConfig(
        labels=options.labels, after_error=options.after_error, norm=options.norm,  # type: ignore[arg-type]  # checked there
        class_weights=options.class_weights, wrong_weight=options.wrong_weight, folds=options.folds,  # type: ignore[arg-type]  # checked there
        layers=_numbers("layers", options.layers, int), l2=_numbers("l2", options.l2, float),
        baseline=options.baseline, seed=options.seed, **({} if by_task else {"aim": options.aim}),
    )  # fmt: skip
    if -1 not in config.layers and options.norm != "before":
        check_used(
            options.context, "Below the last layer, where states are read before the norm,", "--norm",
            remedy="add layer -1",
        )  # fmt: skip
    if options.plots and not can_draw():
        raise JudgeDecodingError(
            "--plots needs matplotlib; install it with: pip install 'judge-decoding[eval]', or leave it out."
        )
    return config


def _draft(options: TrainOptions, goal: Aim) -> str | None:
    """The draft model, if the judge reads its hidden states or the aim is measured by decoding."""
    draft, needed = options.draft, options.draft_states or goal.kind == "accuracy"
    if needed:
        draft, _ = complete(options.target, draft, None)
    if options.draft_states and (draft is None or is_drafter(draft)):
        raise JudgeDecodingError("--draft-states needs the draft model; give it with --draft.")
    if draft is not None and not needed:
        raise JudgeDecodingError(
            "--draft is given, and nothing needs it; add --draft-states for a judge that reads the draft's hidden "
            "states, or --aim accuracy --calibrate-on QUESTIONS."
        )
    if goal.kind != "accuracy":
        if options.calibrate_on is not None:
            raise JudgeDecodingError(f"--calibrate-on is for --aim accuracy, and the aim is {goal}; change one.")
    elif options.calibrate_on is None or draft is None:
        raise JudgeDecodingError(f"The aim {goal} is measured by decoding; give --draft and --calibrate-on.")
    return draft


def _numbers(name: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    """Parse a list of numbers such as ``-1 -4`` or ``-1,-4``."""
    try:
        return tuple(kind(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise JudgeDecodingError(f"--{name} is {text!r}; it must be numbers with spaces between.") from error


def _calibrate(
    decoder: JudgeDecoder, head: JudgeHead, goal: Aim, asked: _Asked, options: TrainOptions, progress: StageProgress
) -> None:
    total = (len(THRESHOLDS) + 1) * len(asked[1])
    calibrate(
        decoder, head, *asked, goal.value, batch_size=options.batch_size, part=options.out / "calibration.part",
        progress=ticks(progress, "decoding the calibration task", total),
    )  # fmt: skip
