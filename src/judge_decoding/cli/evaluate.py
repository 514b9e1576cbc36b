"""``judge-decoding evaluate``: evaluate one decoding method on a task, compared with the target alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.decoding_options import (
    BudgetOption,
    DraftLengthOption,
    Guards,
    MinP,
    Rule,
    Seed,
    Temperature,
    Threshold,
    TopKOption,
    TopP,
)
from judge_decoding.cli.evaluation import checked_task
from judge_decoding.cli.models import (
    BackendOption,
    BatchSize,
    Device,
    DraftOption,
    DtypeOption,
    JudgeOption,
    Target,
    Translate,
)
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Json, Overwrite, check_outputs, out_option
from judge_decoding.cli.panels import DECODING, OUTPUT
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
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.files import RUN_FILE
from judge_decoding.names import has_draft


def evaluate(
    context: typer.Context,
    task: TaskName,
    target: Target,
    out: Annotated[Path, out_option("Folder for results.json and samples.jsonl.")],
    draft: DraftOption = None,
    translate: Translate = False,
    judge: JudgeOption = None,
    threshold: Threshold = None,
    rule: Rule = None,
    guard: Guards = None,
    num_draft_tokens: DraftLengthOption = None,
    data: Data = None,
    limit: Drawn = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: BudgetOption = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopKOption = None,
    min_p: MinP = None,
    seed: Seed = 0,
    batch_size: BatchSize = 1,
    alone: Annotated[
        bool,
        typer.Option(
            "--target-alone/--no-target-alone",
            help="Measure the target without a draft too, for comparison.",
            rich_help_panel=DECODING,
        ),
    ] = True,
    margin: Margin = 2.0,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Record probabilities and alternatives of every draft token, for `report`; slower.",
            rich_help_panel=OUTPUT,
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
    """Measure the accuracy and speed of one decoding configuration on a task.

    An interrupted run resumes. `report` shows the answers token by token.
    """
    results, samples = out / "results.json", out / "samples.jsonl"
    others, part = [samples, out / "spec_bench.jsonl", out / "grades.jsonl", out / RUN_FILE], out / "samples.jsonl.part"
    check_outputs(
        [results, *others], [data, target, draft, judge, *(trained_on or ())], overwrite=overwrite, folder=True,
        work=[part, out / "grades.jsonl.part"], alone=(context, results), own=lambda: others if part.exists() else [],
    )  # fmt: skip
    if not has_draft(target, draft):
        check_used(
            context, "Without --draft", "--judge", "--threshold", "--rule", "--guard", "--num-draft-tokens",
            "--translate", "--target-alone", "--details", "--margin", remedy="give a draft model",
        )  # fmt: skip
    if not alone:
        check_used(context, "With --no-target-alone", "--margin")
    if rule is not None and threshold is not None:
        raise JudgeDecodingError("Give either a rule or the judge's threshold, not both.")
    if not temperature:
        check_used(context, "At temperature 0", "--top-p", "--top-k", "--min-p", remedy="give a --temperature")
    if not temperature and limit is None:
        check_used(context, "At temperature 0 and without --limit", "--seed", remedy="give one of the two")
    where = sandbox_spelling(sandbox, none=no_sandbox)
    asked = checked_task(context, task, grader, allow_code=allow_code_execution, sandbox=where)
    from judge_decoding.cli.run.evaluate import run  # noqa: PLC0415  (loads torch)

    run(
        context, target, out, draft, judge, threshold, rule, guard, num_draft_tokens, data, limit, chat, system,
        max_new_tokens, temperature, top_p, top_k, min_p, seed, batch_size, margin, grader, trained_on, dtype, device,
        backend, results, samples, asked, translate=translate, alone=alone, details=details, json=json,
    )  # fmt: skip
