"""Implementation of ``judge-decoding fit``, called with checked options."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import typer

from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.court_files import agree
from judge_decoding.cli.court_swaps import duration, forecast, labelled
from judge_decoding.cli.run.calibration import calibration
from judge_decoding.cli.run.draft import made
from judge_decoding.cli.run.pair import load_decoder
from judge_decoding.cli.steps import Steps
from judge_decoding.cli.terminal import say
from judge_decoding.core import tracking
from judge_decoding.data.cases import Case
from judge_decoding.fit.config import FitConfig
from judge_decoding.fit.drafting import draft_prompts, earlier_draft
from judge_decoding.fit.pipeline import FitForecast, Fitted, fit_head
from judge_decoding.io.questions import Question
from judge_decoding.labelling.labels.pilot import LabellingCost
from judge_decoding.loading.models import load_tokenizer
from judge_decoding.report.card_files import write_card
from judge_decoding.training.draft_options import LAYERS, DraftConfig


def run(
    context: typer.Context, questions: list[Question], out: Path, target: str, draft: str | None, checker: str,
    margin: float, share: float, calibrate_on: str | None, calibrate_data: Path | None, calibrate_limit: int | None,
    max_new_tokens: int, batch_size: int, seed: int, dtype: str, device: str | None, work: Path, screen: Steps,
    make_draft: Path | None, draft_layers: int | None, *, chat: bool | None, yes: bool, log_to: str | None,
) -> Fitted:  # fmt: skip
    """Fit the head, and save it with its card; with ``make_draft``, a folder, make a draft there first."""
    config = FitConfig(
        checker, points=margin, share=share, max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed
    )

    asked = None
    if calibrate_on is not None:
        asked = calibration(
            calibrate_on, calibrate_data, calibrate_limit, checker=checker, max_new_tokens=max_new_tokens,
            chat=chat, tokenizer=load_tokenizer(target),
        )  # fmt: skip

    if make_draft is not None:
        layers = draft_layers or LAYERS
        texts = draft_prompts([one.prompt for one in questions], config, all_of_them=asked is not None)
        if not earlier_draft(make_draft, target, layers, texts):
            how = DraftConfig(layers, max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed)
            made(target, texts, make_draft, how, screen, dtype=dtype, device=device, yes=yes, log_to=log_to)
        draft = str(make_draft)

    def ask(cost: FitForecast) -> bool:
        with screen.paused():
            agree(_cost(cost), yes=yes)
        return True

    with tracking.log_to(log_to, f"fit {out.name}", {"target": target, "draft": draft or ""}) as logger:
        found = fit_head(
            partial(load_decoder, target, draft, dtype, device),
            [one.prompt for one in questions], out, config,
            references=None if asked else [one.reference for one in questions], calibrate_on=asked,
            agree=ask, progress=screen, labelled=partial(_report_labels, work / "labels.jsonl"), logger=logger,
        )  # fmt: skip
    keep_config(context, out)
    write_card(found.head, out)  # with the configuration that repeats the run
    return found


def _cost(cost: FitForecast) -> str:
    """Describe the expected cost in words."""
    return (
        f"{forecast(cost.labelling)} Then the head is trained (one forward an answer), and "
        f"{cost.prompts} prompts are answered at {cost.thresholds} thresholds and some draft lengths: about "
        f"{duration(cost.seconds)}."
    )


def _report_labels(path: Path, cases: Sequence[Case], spent: LabellingCost | None) -> None:
    say(f"The labels already exist: {path}." if spent is None else labelled(cases, spent, path), err=True)
