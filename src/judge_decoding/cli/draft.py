"""``judge-decoding draft``: make a draft model from the target's own first layers."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, cast

import typer

from judge_decoding.cli.models import Device, DtypeOption, check_dtype
from judge_decoding.cli.options import check_used, given
from judge_decoding.cli.outputs import Overwrite, Yes, check_outputs
from judge_decoding.cli.steps import goes_on, steps
from judge_decoding.cli.terminal import say, say_json
from judge_decoding.training.draft_options import FILES, DraftConfig, Loss, MadeDraft


def draft(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="Target model: Hub name or folder; 'reference' is the embedded one.")],
    prompts: Annotated[Path, typer.Option(help="Prompts: JSONL (question), or text, one a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the draft.")],
    num_layers: Annotated[int, typer.Option("--layers", help="How many of the target's first layers it has.")] = 4,
    vocab: Annotated[
        int | None, typer.Option(help="Propose only so many of the most frequent tokens; else all.")
    ] = None,
    loss: Annotated[str, typer.Option(help="kl: the target's distribution; ce: its answers.")] = "kl",
    lora: Annotated[int | None, typer.Option(help="Train LoRA adapters of this rank and merge them.")] = None,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Keep the adapter in DRAFT/adapter.")] = False,
    embeddings: Annotated[bool, typer.Option("--embeddings", help="Train embeddings and head too.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="How often each answer is trained on.")] = 3,
    learning_rate: Annotated[float | None, typer.Option(help="The highest; else 5e-4, with LoRA 1e-3.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers in a step, and in a batch of generation.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Token budget of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="Of the target's answers; 0 is greedy.")] = 0.0,
    num_draft_tokens: Annotated[int, typer.Option(min=1, help="Draft length at which acceptance is measured.")] = 4,
    prompt_field: Annotated[str | None, typer.Option(help="Field of the prompt; else question or prompt.")] = None,
    template: Annotated[
        str | None, typer.Option(help=r"The prompt from the fields, such as 'Q: {question}\nA:'.")
    ] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat/--no-chat", help="Put the prompts through the target's chat template, if it has one."),
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first so many prompts.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the held-out prompts and orders the answers.")] = 0,
    dtype: DtypeOption = "auto",
    device: Device = None,
    yes: Yes = False,
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Make a draft model from the target's first layers, trained to say what the target says; it resumes.

    The target answers the prompts; a tenth of them are held out and measure what the draft gives. The folder is an
    ordinary one of transformers.
    """
    if lora is None:
        check_used(context, "Without --lora", "--keep-adapter", remedy="give a rank with it")
    check_dtype(dtype)
    work = out.with_name(f"{out.name}.work")
    check_outputs(
        [out / name for name in FILES], [prompts, target], overwrite=overwrite, folder=True,
        work=[work / "answers.jsonl"],
    )  # fmt: skip
    asked_for = bool(given(context, ("--chat",))) and chat
    with goes_on(work), steps(lines=True) as screen:
        screen("loading the target", 0, 0)
        config = DraftConfig(
            num_layers, cast("Loss", loss), lora=lora, keep_adapter=keep_adapter, embeddings=embeddings, vocab=vocab,
            learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, max_new_tokens=max_new_tokens,
            temperature=temperature, num_draft_tokens=num_draft_tokens, seed=seed,
        )  # fmt: skip
        from judge_decoding.cli.run.draft import made, read_texts  # noqa: PLC0415  (loads torch)

        texts = read_texts(target, prompts, (prompt_field, template), limit, chat=chat, asked_for=asked_for)
        found = made(target, texts, out, config, screen, dtype=dtype, device=device, yes=yes)
    if json:
        say_json(json_module.dumps(found.to_dict(), indent=2))
        return
    for line in _report(found, target, chat=chat):
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
        f'Use it: judge-decoding generate {target} --draft {found.folder} {"" if chat else "--no-chat "}"Your prompt"',
    ]
