"""``judge-decoding generate``: stream the answer of any pair, with each token marked by why it was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.models import BackendOption, Device, DtypeOption, check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.errors import JudgeDecodingError


def generate(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="Target model: Hub name or folder; 'reference' is the embedded pair.")],
    prompt: Annotated[str | None, typer.Argument(help="The prompt; standard input if left out.")] = None,
    draft: Annotated[
        str | None, typer.Option(help="Draft model, or 'prompt-lookup'; without one the target decodes alone.")
    ] = None,
    translate: Annotated[
        bool, typer.Option("--translate", help="A draft with another tokenizer drafts by its text.")
    ] = False,
    judge: Annotated[str | None, typer.Option(help="Judge head: folder or Hub repository.")] = None,
    chat: Annotated[bool, typer.Option("--chat/--no-chat", help="Put the prompt through the chat template.")] = True,
    system: Annotated[str | None, typer.Option(help="System message, with --chat.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget; by default the model's own, or 256.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="The judge's threshold: 1 is exact, 0 keeps all.")] = None,
    rule: Annotated[
        str | None, typer.Option(help="Verification rule instead of the judge's, such as 'top_k(k=4)'; see rules.")
    ] = None,
    num_draft_tokens: Annotated[int | None, typer.Option(min=1, help="Draft length.")] = None,
    draft_length: Annotated[
        str, typer.Option(help="How the draft length goes on: fixed, heuristic, confident or cost_optimal.")
    ] = "fixed",
    guard: Annotated[
        list[str] | None,
        typer.Option(help="Where nothing may be rescued, such as 'strict_start(tokens=8)'; several times."),
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the answer; several times.")] = None,
    generation_config: Annotated[
        str, typer.Option(help="'model' decodes as the model's generation configuration says, 'none' ignores it.")
    ] = "model",
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; by default as the model says.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus; 1 is off.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Most probable tokens; 0 is off.")] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Least probability, as a share of the best token's; 0 is off.")
    ] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1 repeats less; 1 is off.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer repeatable.")] = None,
    dtype: DtypeOption = "auto",
    device: Device = None,
    backend: BackendOption = "eager",
    plain: Annotated[bool, typer.Option("--plain", help="The text alone, for pipes.")] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write text, rounds, probabilities and figures here, for `report`.")
    ] = None,
    with_target: Annotated[
        bool, typer.Option("--with-target", help="With --json: the target's own answer too, to compare with.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Answer one prompt with any pair of models."""
    check_outputs([json], [target, draft, judge], overwrite=overwrite)
    check_dtype(dtype)
    if rule is not None and threshold is not None:
        raise JudgeDecodingError("Give either a rule or the judge's threshold, not both.")
    if json is None:
        if with_target:
            raise JudgeDecodingError("--with-target puts the target's own answer into the file of --json; name one.")
        check_used(context, "Without --json", "--overwrite", remedy="name a file")

    from judge_decoding.cli.run.generate import run  # noqa: PLC0415  (loads torch)

    run(
        context, target, prompt, draft, judge, system, max_new_tokens, threshold, rule, num_draft_tokens,
        draft_length, guard, stop, generation_config, temperature, top_p, top_k, min_p, repetition_penalty, seed,
        dtype, device, backend, json, translate=translate, chat=chat, plain=plain, with_target=with_target,
    )  # fmt: skip
