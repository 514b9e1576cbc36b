"""``judge-decoding sweep``: compare rules, settings and draft lengths on a task, with strong baselines."""

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
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.names import REFERENCE
from judge_decoding.report.plots import check_plots


def sweep(
    context: typer.Context,
    task: TaskName,
    target: Target,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, answers.jsonl and sweep.html.")],
    draft: Annotated[str | None, typer.Option(help="Draft model, or 'prompt-lookup'.")] = None,
    judge: JudgeOption = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="A verification rule beside the usual ones, such as 'relaxed(n=10)'; several times."),
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option(help="Thresholds of the judge beside its own; several times.")
    ] = None,
    num_draft_tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Draft lengths to choose from; several times.")
    ] = None,
    tune: Annotated[
        int, typer.Option(min=1, help="Items on which each method's draft length is chosen; none with --every-length.")
    ] = 10,
    every_length: Annotated[
        bool, typer.Option("--every-length", help="A row for each draft length, in place of a choice among them.")
    ] = False,
    data: Data = None,
    limit: Limit = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: BudgetOption = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy; matched baselines then sample at 1.")] = 0.0,
    seed: Seed = 0,
    margin: Margin = 2.0,
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
    """Compare rules, settings and draft lengths on a task: accuracy against speed, with intervals.

    Always among them: standard speculative decoding, top-k, typical acceptance, KL, and the target sampled under the
    same truncation without loss. A stopped run goes on where it was.
    """
    results, page, answers = out / "results.json", out / "sweep.html", out / "answers.jsonl"
    others, part = [page, answers, out / "sweep.svg", out / "grades.jsonl"], out / "results.json.part"
    check_outputs(
        [results, *others], [data, target, draft, judge, *(trained_on or ())], overwrite=overwrite, folder=True,
        work=[part, out / "grades.jsonl.part"], alone=(context, results), own=lambda: others if part.exists() else [],
    )  # fmt: skip
    if target != REFERENCE:
        if draft is None:
            raise JudgeDecodingError("A sweep compares ways to verify a draft; name a draft model with --draft.")
        if judge is None:
            check_used(context, "Without --judge", "--threshold", remedy="give a judge head")
    if every_length:
        check_used(context, "With --every-length", "--tune")
    where = sandbox_spelling(sandbox, none=no_sandbox)
    asked = checked_task(context, task, grader, allow_code=allow_code_execution, sandbox=where)
    if asked.scoring == "check":
        check_plots()
    from judge_decoding.cli.run.sweep import run  # noqa: PLC0415  (loads torch)

    run(
        target, out, draft, judge, rule, threshold, num_draft_tokens, tune, data, limit, chat, system, max_new_tokens,
        temperature, seed, margin, grader, trained_on, dtype, device, backend, results, answers, page, asked,
        every_length=every_length, json=json,
    )  # fmt: skip
