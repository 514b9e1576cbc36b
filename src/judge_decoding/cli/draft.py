"""``judge-decoding draft``: make a draft model from the target's own first layers."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, cast

import typer

from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.decoding_options import FixedBudget, OneDraftLength, Seed, Temperature
from judge_decoding.cli.models import BatchSize, Device, DtypeOption, NumLayers, Target, check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Json, LogTo, Overwrite, Yes, check_outputs, out_option
from judge_decoding.cli.panels import TRAINING
from judge_decoding.cli.steps import resumable, steps
from judge_decoding.cli.task_options import Chat, Limit, PromptField, PromptsOption, Template
from judge_decoding.cli.terminal import say, say_json
from judge_decoding.core.tracking import check_tracker
from judge_decoding.judge.files import RUN_FILE
from judge_decoding.training.draft_options import FILES, DraftConfig, Loss, MadeDraft


def draft(
    context: typer.Context,
    target: Target,
    prompts: PromptsOption,
    out: Annotated[Path, out_option("Folder for the draft model.")],
    draft_layers: NumLayers = 4,
    vocab: Annotated[
        int | None,
        typer.Option(help="Propose only this many of the most frequent tokens.", rich_help_panel=TRAINING),
    ] = None,
    loss: Annotated[
        str,
        typer.Option(help="kl: the target's distribution; ce: the target's answers.", rich_help_panel=TRAINING),
    ] = "kl",
    lora: Annotated[
        int | None,
        typer.Option(help="Train LoRA adapters of this rank, then merge them.", rich_help_panel=TRAINING),
    ] = None,
    keep_adapter: Annotated[
        bool,
        typer.Option("--keep-adapter", help="Keep the adapter in the subfolder adapter.", rich_help_panel=TRAINING),
    ] = False,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Train embeddings and LM head too.", rich_help_panel=TRAINING)
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the answers.", rich_help_panel=TRAINING)] = 3,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate; by default 5e-4, with LoRA 1e-3.", rich_help_panel=TRAINING),
    ] = None,
    batch_size: BatchSize = 16,
    max_new_tokens: FixedBudget = 256,
    temperature: Temperature = 0.0,
    num_draft_tokens: OneDraftLength = 4,
    prompt_field: PromptField = None,
    template: Template = None,
    chat: Chat = None,
    limit: Limit = None,
    seed: Seed = 0,
    dtype: DtypeOption = "auto",
    device: Device = None,
    log_to: LogTo = None,
    yes: Yes = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Train a draft model made from the target's first layers; an interrupted run resumes.

    The target answers the prompts; a tenth of them are held out to measure acceptance. The result is an ordinary folder
    of transformers.
    """
    if lora is None:
        check_used(context, "Without --lora", "--keep-adapter", remedy="give a rank with it")
    check_dtype(dtype)
    check_tracker(log_to)
    work = out.with_name(f"{out.name}.work")
    check_outputs(
        [out / name for name in (*FILES, RUN_FILE)], [prompts, target], overwrite=overwrite, folder=True,
        work=[work / "answers.jsonl"],
    )  # fmt: skip
    with resumable(work), steps(lines=True) as screen:
        screen("loading the target", 0, 0)
        config = DraftConfig(
            draft_layers, cast("Loss", loss), lora=lora, keep_adapter=keep_adapter, embeddings=embeddings, vocab=vocab,
            learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, max_new_tokens=max_new_tokens,
            temperature=temperature, num_draft_tokens=num_draft_tokens, seed=seed,
        )  # fmt: skip
        from judge_decoding.cli.run.draft import made, read_texts  # noqa: PLC0415  (loads torch)

        texts, chatted = read_texts(target, prompts, (prompt_field, template), limit, chat=chat)
        found = made(target, texts, out, config, screen, dtype=dtype, device=device, yes=yes, log_to=log_to)
    keep_config(context, out)
    if json:
        say_json(json_module.dumps(found.to_dict(), indent=2))
        return
    for line in _report(found, target, chat=chatted):
        say(line)


def _report(found: MadeDraft, target: str, *, chat: bool) -> list[str]:
    """Describe the result, and how to use it."""
    covered = "" if found.covered == 1 else f" It can propose {found.covered:.1%} of the target's tokens there."
    return [
        f"The draft is in {found.folder}, trained on {found.answers:,} answers ({found.tokens:,} tokens).",
        f"On {found.held_out} held-out prompts its first choice is the target's at {found.after.agreement:.1%} of the "
        f"tokens ({found.before.agreement:.1%} before training).{covered}",
        f"Decoded greedily at draft length {found.num_draft_tokens}: mean acceptance length "
        f"{found.mean_acceptance_length:.2f}, acceptance rate {found.acceptance_rate:.1%}; a draft token takes "
        f"{found.cost:.2f} of a target forward's time.",
        f"Use it: judge-decoding generate --target {target} --draft {found.folder} {'' if chat else '--no-chat '}"
        '"Your prompt"',
    ]
