"""Implementation of ``judge-decoding draft`` and ``fit --make-draft``, called with checked options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from judge_decoding.cli.court_files import agree, read_prompts
from judge_decoding.cli.court_swaps import duration
from judge_decoding.cli.run.rendering import renderer
from judge_decoding.cli.steps import Steps
from judge_decoding.cli.terminal import say, warn
from judge_decoding.core import tracking
from judge_decoding.io.files import check_output_folders
from judge_decoding.io.questions import Fields, file_rows
from judge_decoding.loading.models import default_device, load_model, load_tokenizer
from judge_decoding.training.draft_data import divide_prompts
from judge_decoding.training.draft_options import DraftConfig, DraftForecast, DraftMeasure, MadeDraft
from judge_decoding.training.drafts import make_draft


def made(
    target: str,
    texts: Sequence[str],
    out: Path,
    config: DraftConfig,
    screen: Steps,
    *,
    dtype: str,
    device: str | None,
    yes: bool,
    log_to: str | None,
) -> MadeDraft:
    """Load the target and make a draft of it for prompts, with what is measured told on stderr."""
    check_output_folders(out, "a draft", "answers.jsonl")
    divide_prompts(texts, config)  # fails if there are too few
    tokenizer = load_tokenizer(target)
    model = load_model(target, dtype=dtype, device=device or default_device())
    screen("loading the target", 1, 1)

    def ask(forecast: DraftForecast) -> bool:
        with screen.paused():
            agree(_cost(forecast), yes=yes)
        return True

    with tracking.log_to(log_to, f"draft {out.name}", {"target": target, **asdict(config)}) as logger:
        found = make_draft(
            model, tokenizer, texts, out, config,
            agree=ask, progress=screen, measured=lambda one: say(_measured(one, config), err=True), logger=logger,
        )  # fmt: skip
    for sentence in found.warnings:
        warn(f"Warning: {sentence}")
    return found


def read_texts(
    target: str,
    path: Path,
    fields: tuple[str | None, str | None],
    limit: int | None,
    *,
    chat: bool | None,
) -> tuple[list[str], bool]:
    """The prompts as the target reads them, and whether they went through its chat template."""
    render = renderer(chat, target, fields[1])
    use = None if render is None else lambda text: render([{"role": "user", "content": text}])
    questions = read_prompts(str(path), partial(file_rows, path), Fields(fields[0], None, fields[1]), use, limit)
    return [one.prompt for one in questions], render is not None


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
