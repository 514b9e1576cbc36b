"""Implementation of ``judge-decoding draft`` and ``fit --make-draft``, called with checked options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from judge_decoding.cli.draft import DraftOptions
from judge_decoding.cli.fit import FitOptions
from judge_decoding.cli.run.models import renderer
from judge_decoding.cli.run.swaps import duration
from judge_decoding.cli.shared import agree, read_prompts
from judge_decoding.cli.steps import Steps
from judge_decoding.cli.terminal import say, say_json, warn
from judge_decoding.core import tracking
from judge_decoding.io.files import check_output_folders
from judge_decoding.io.questions import Fields, Question, file_rows
from judge_decoding.loading.models import default_device, load_model, load_tokenizer
from judge_decoding.training.draft_data import divide_prompts
from judge_decoding.training.draft_options import DraftConfig, DraftForecast, DraftMeasure, MadeDraft
from judge_decoding.training.drafts import make_draft


def read_rendered(
    path: Path, fields: Fields, model: str, limit: int | None, *, chat: bool | None
) -> tuple[list[Question], bool]:
    """The prompts of a file as a model reads them, and whether they went through its chat template."""
    render = renderer(chat, model, fields.template)
    one = None if render is None else lambda text: render([{"role": "user", "content": text}])
    return read_prompts(str(path), partial(file_rows, path), fields, one, limit), render is not None


def made(
    options: DraftOptions | FitOptions, texts: Sequence[str], out: Path, config: DraftConfig, screen: Steps
) -> MadeDraft:
    """Load the target and make a draft of it for prompts, and report measurements on stderr."""
    check_output_folders(out, "a draft", "answers.jsonl")
    divide_prompts(texts, config)  # fails if there are too few
    tokenizer = load_tokenizer(options.target)
    model = load_model(options.target, dtype=options.dtype, device=options.device or default_device())
    screen("loading the target", 1, 1)

    def ask(forecast: DraftForecast) -> bool:
        with screen.paused():
            agree(_cost(forecast), yes=options.yes)
        return True

    about = {"target": options.target, **asdict(config)}
    with tracking.log_to(options.log_to, f"draft {out.name}", about) as logger:
        found = make_draft(
            model, tokenizer, texts, out, config,
            agree=ask, progress=screen, measured=lambda one: say(_measured(one, config), err=True), logger=logger,
        )  # fmt: skip
    for sentence in found.warnings:
        warn(f"Warning: {sentence}")
    return found


def report(found: MadeDraft, options: DraftOptions, *, chat: bool) -> None:
    """Print the result, and how to use it."""
    if options.json:
        say_json(json.dumps(found.to_dict(), indent=2))
        return
    covered = "" if found.covered == 1 else f" It can propose {found.covered:.1%} of the target's tokens there."
    say(
        f"The draft is in {found.folder}, trained on {found.answers:,} answers ({found.tokens:,} tokens).\n"
        f"On {found.held_out} held-out prompts its first choice is the target's at {found.after.agreement:.1%} of the "
        f"tokens ({found.before.agreement:.1%} before training).{covered}\n"
        f"Decoded greedily at draft length {found.num_draft_tokens}: mean acceptance length "
        f"{found.mean_acceptance_length:.2f}, acceptance rate {found.acceptance_rate:.1%}; a draft token takes "
        f"{found.cost:.2f} of a target forward's time.\n"
        f"Use it: judge-decoding generate --target {options.target} --draft {found.folder} "
        f'{"" if chat else "--no-chat "}"Your prompt"'
    )


def _cost(forecast: DraftForecast) -> str:
    """Describe the expected cost in words."""
    return (
        f"The target will answer {forecast.answers} more prompts, about {forecast.generated_tokens:,} tokens; the "
        f"draft is trained on about {forecast.trained_tokens:,} tokens. Both take about {duration(forecast.seconds)}."
    )


def _measured(one: DraftMeasure, config: DraftConfig) -> str:
    loss = "" if one.training_loss is None else f"loss {one.training_loss:.3f}, "
    return (
        f"Step {one.step} of {one.steps}: {loss}held-out loss {one.loss:.3f}, agreement {one.agreement:.1%}, mean "
        f"acceptance length {one.mean_acceptance_length:.2f} at draft length {config.num_draft_tokens}."
    )
