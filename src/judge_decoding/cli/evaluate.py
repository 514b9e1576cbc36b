"""``judge-decoding evaluate``: evaluate one decoding method on a task, compared with the target alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.evaluation import checked_task
from judge_decoding.cli.models import BackendOption, Device, DtypeOption
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.task_options import (
    AllowCode,
    BudgetOption,
    Chat,
    Data,
    Grader,
    Json,
    JudgeOption,
    Limit,
    Margin,
    NoSandbox,
    SandboxName,
    Seed,
    System,
    Target,
    TaskName,
    TrainedOn,
    sandbox_spelling,
)
from judge_decoding.names import has_draft


def evaluate(
    context: typer.Context,
    task: TaskName,
    target: Target,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json and samples.jsonl.")],
    draft: Annotated[
        str | None, typer.Option(help="Draft model, or 'prompt-lookup'; without one the target decodes alone.")
    ] = None,
    judge: JudgeOption = None,
    rule: Annotated[
        str | None, typer.Option(help="Verification rule instead of the judge's, such as 'top_k(k=4)'; see rules.")
    ] = None,
    num_draft_tokens: Annotated[int | None, typer.Option(min=1, help="Draft length; else the head's own.")] = None,
    data: Data = None,
    limit: Limit = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: BudgetOption = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Seed = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Items that share the forwards; above 1 nothing is timed.")
    ] = 1,
    alone: Annotated[
        bool, typer.Option("--target-alone/--no-target-alone", help="The target answers without a draft, too.")
    ] = True,
    margin: Margin = 2.0,
    details: Annotated[
        bool,
        typer.Option(
            "--details", help="Keep probabilities and alternatives of every draft token, for `report`; takes time."
        ),
    ] = False,
    grader: Grader = None,
    trained_on: TrainedOn = None,
    allow_code_execution: AllowCode = False,
    sandbox: SandboxName = None,
    no_sandbox: NoSandbox = False,
    dtype: DtypeOption = "auto",
    device: Device = None,
    backend: BackendOption = "eager",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Tell what a way of decoding costs in quality and gives in speed, on a task.

    A stopped run goes on where it was. `report` shows the answers token by token.
    """
    results, samples = out / "results.json", out / "samples.jsonl"
    others, part = [samples, out / "spec_bench.jsonl", out / "grades.jsonl"], out / "samples.jsonl.part"
    check_outputs(
        [results, *others], [data, target, draft, judge, *(trained_on or ())], overwrite=overwrite, folder=True,
        work=[part, out / "grades.jsonl.part"], alone=(context, results), own=lambda: others if part.exists() else [],
    )  # fmt: skip
    if not has_draft(target, draft):
        check_used(
            context, "Without --draft", "--judge", "--rule", "--num-draft-tokens", "--target-alone", "--details",
            "--margin", remedy="give a draft model",
        )  # fmt: skip
    if not alone:
        check_used(context, "With --no-target-alone", "--margin")
    if not temperature and limit is None:
        check_used(context, "At temperature 0 and without --limit", "--seed", remedy="give one of the two")
    where = sandbox_spelling(sandbox, none=no_sandbox)
    asked = checked_task(context, task, grader, allow_code=allow_code_execution, sandbox=where)
    from judge_decoding.cli.run.evaluate import run  # noqa: PLC0415  (loads torch)

    run(
        target, out, draft, judge, rule, num_draft_tokens, data, limit, chat, system, max_new_tokens, temperature,
        seed, batch_size, margin, grader, trained_on, dtype, device, backend, results, samples, asked, alone=alone,
        details=details, json=json,
    )  # fmt: skip
