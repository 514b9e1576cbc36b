"""``judge-decoding sweep``: compare rules, settings and draft lengths on a task, with strong baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.decoding_options import BudgetOption, DraftLengths, Rules, Seed, Temperature, Thresholds, Tune
from judge_decoding.cli.evaluation import checked_task
from judge_decoding.cli.models import (
    BackendOption,
    Device,
    DraftOption,
    DtypeOption,
    JudgeOption,
    Loads,
    Target,
    Translate,
)
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Json, LogTo, Overwrite, check_outputs, out_option
from judge_decoding.cli.panels import DECODING
from judge_decoding.cli.task_options import (
    AllowCode,
    Chat,
    Data,
    Drawn,
    Grader,
    Margin,
    NoSandbox,
    SandboxName,
    System,
    TaskName,
    TrainedOn,
    sandbox_spelling,
)
from judge_decoding.core.tracking import check_tracker
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.files import RUN_FILE
from judge_decoding.names import REFERENCE
from judge_decoding.report.plots import check_plots


def sweep(
    context: typer.Context,
    task: TaskName,
    target: Target,
    out: Annotated[Path, out_option("Folder for results.json, answers.jsonl and sweep.html.")],
    draft: DraftOption = None,
    translate: Translate = False,
    judge: JudgeOption = None,
    rule: Rules = None,
    threshold: Thresholds = None,
    num_draft_tokens: DraftLengths = None,
    tune: Tune = 10,
    every_length: Annotated[
        bool,
        typer.Option(
            "--every-length", help="Measure every draft length instead of choosing one.", rich_help_panel=DECODING
        ),
    ] = False,
    batch_size: Loads = None,
    data: Data = None,
    limit: Drawn = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: BudgetOption = None,
    temperature: Temperature = 0.0,
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
    log_to: LogTo = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Compare rules, settings and draft lengths on a task: accuracy against speed, with intervals.

    It always includes standard speculative decoding, top-k, typical acceptance, KL, and the target sampled losslessly
    under the same truncation. An interrupted run resumes.
    """
    results, page, answers = out / "results.json", out / "sweep.html", out / "answers.jsonl"
    others, part = [page, answers, out / "sweep.svg", out / "grades.jsonl", out / RUN_FILE], out / "results.json.part"
    check_outputs(
        [results, *others], [data, target, draft, judge, *(trained_on or ())], overwrite=overwrite, folder=True,
        work=[part, out / "grades.jsonl.part"], alone=(context, results), own=lambda: others if part.exists() else [],
    )  # fmt: skip
    if target != REFERENCE:
        if draft is None:
            raise JudgeDecodingError("A sweep compares ways to verify a draft; give a draft model with --draft.")
        if judge is None:
            check_used(context, "Without --judge", "--threshold", remedy="give a judge head")
    if every_length:
        check_used(context, "With --every-length", "--tune")
    check_tracker(log_to)
    where = sandbox_spelling(sandbox, none=no_sandbox)
    asked = checked_task(context, task, grader, allow_code=allow_code_execution, sandbox=where)
    if asked.scoring == "check":
        check_plots()
    from judge_decoding.cli.run.sweep import run  # noqa: PLC0415  (loads torch)

    run(
        context, target, out, draft, judge, rule, threshold, num_draft_tokens, tune, batch_size, data, limit, chat,
        system, max_new_tokens, temperature, seed, margin, grader, trained_on, dtype, device, backend, results, answers,
        page, asked, translate=translate, every_length=every_length, json=json, log_to=log_to,
    )  # fmt: skip
