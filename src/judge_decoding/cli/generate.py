"""``judge-decoding generate``: stream the answer of any pair, with each token marked by why it was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.decoding_options import (
    BudgetOption,
    DraftLengthOption,
    Guards,
    MinP,
    OptionalSeed,
    OwnTemperature,
    Rule,
    StopOption,
    Threshold,
    TopKOption,
    TopP,
)
from judge_decoding.cli.models import (
    BackendOption,
    Device,
    DraftOption,
    DtypeOption,
    JudgeOption,
    Target,
    Translate,
    check_dtype,
)
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Json, Overwrite, check_outputs, out_option
from judge_decoding.cli.panels import DECODING, OUTPUT
from judge_decoding.cli.task_options import Chat, System
from judge_decoding.errors import JudgeDecodingError


def generate(
    context: typer.Context,
    target: Target,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; by default standard input.")] = None,
    draft: DraftOption = None,
    translate: Translate = False,
    judge: JudgeOption = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: BudgetOption = None,
    threshold: Threshold = None,
    rule: Rule = None,
    num_draft_tokens: DraftLengthOption = None,
    draft_schedule: Annotated[
        str,
        typer.Option(
            help="How the draft length adapts: fixed, heuristic, confident or cost_optimal.",
            rich_help_panel=DECODING,
        ),
    ] = "fixed",
    guard: Guards = None,
    stop: StopOption = None,
    generation_config: Annotated[
        str,
        typer.Option(
            help="model: use the model's generation configuration; none: ignore it.", rich_help_panel=DECODING
        ),
    ] = "model",
    temperature: OwnTemperature = None,
    top_p: TopP = None,
    top_k: TopKOption = None,
    min_p: MinP = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Repetition penalty; above 1 repeats less, 1 is off.", rich_help_panel=DECODING),
    ] = None,
    seed: OptionalSeed = None,
    dtype: DtypeOption = "auto",
    device: Device = None,
    backend: BackendOption = "eager",
    plain: Annotated[
        bool, typer.Option("--plain", help="Print the text only, for pipes.", rich_help_panel=OUTPUT)
    ] = False,
    out: Annotated[
        Path | None, out_option("File (JSONL) for text, rounds, probabilities and figures, for `report`.")
    ] = None,
    with_target: Annotated[
        bool,
        typer.Option(
            "--with-target",
            help="Add the target's own answer to --out and --json, for comparison.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Answer one prompt with any pair of models."""
    check_outputs([out], [target, draft, judge], overwrite=overwrite)
    check_dtype(dtype)
    if rule is not None and threshold is not None:
        raise JudgeDecodingError("Give either a rule or the judge's threshold, not both.")
    if json:
        check_used(context, "With --json", "--plain")
    if out is None:
        check_used(context, "Without --out", "--overwrite", remedy="give a file")
        if with_target and not json:
            raise JudgeDecodingError(
                "--with-target adds the target's own answer to --out and --json; give one of them."
            )

    from judge_decoding.cli.run.generate import run  # noqa: PLC0415  (loads torch)

    run(
        context, target, prompt, draft, judge, system, max_new_tokens, threshold, rule, num_draft_tokens,
        draft_schedule, guard, stop, generation_config, temperature, top_p, top_k, min_p, repetition_penalty, seed,
        dtype, device, backend, out, translate=translate, chat=chat, plain=plain, json=json, with_target=with_target,
    )  # fmt: skip
