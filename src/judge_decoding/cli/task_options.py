"""What ``evaluate``, ``sweep`` and ``bench`` have in common: models that answer the questions of a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used, sandbox_spelling
from judge_decoding.cli.options import out_option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.terminal import warn
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import PREFIX, Endpoint
from judge_decoding.judge.files import RUN_FILE
from judge_decoding.tasks import parse_task
from judge_decoding.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The options of all three."""

    context: typer.Context
    task: options.TaskName
    target: options.Target
    draft: options.DraftOption = None
    translate: options.Translate = False
    judge: options.JudgeOption = None
    data: options.Data = None
    limit: options.Drawn = None
    chat: options.Chat = None
    system: options.System = ""
    max_new_tokens: options.BudgetOption = None
    seed: options.Seed = 0
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    backend: options.BackendOption = "eager"
    overwrite: options.Overwrite = False
    json: options.Json = False


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(TaskOptions):
    """The options of ``evaluate`` and ``sweep``, which measure accuracy."""

    out: Annotated[Path, out_option("Folder for the results.")]
    temperature: options.Temperature = 0.0
    margin: options.Margin = 2.0
    grader: options.Grader = None
    trained_on: options.TrainedOn = None
    allow_code_execution: options.AllowCode = False
    sandbox: options.SandboxName = None
    no_sandbox: options.NoSandbox = False

    @property
    def results(self) -> Path:
        """The file of figures."""
        return self.out / "results.json"

    def check_files(self, part: str, *names: str) -> None:
        """Check the outputs in ``out``; those of an unfinished run, which has ``part``, may be there."""
        others = [self.out / name for name in (*names, "grades.jsonl", RUN_FILE)]
        work = [self.out / part, self.out / "grades.jsonl.part"]
        inputs = [self.data, self.target, self.draft, self.judge, *(self.trained_on or ())]
        check_outputs(
            [self.results, *others], inputs, overwrite=self.overwrite, folder=True, work=work,
            alone=(self.context, self.results), own=lambda: others if work[0].exists() else [],
        )  # fmt: skip

    def checked_task(self) -> Task:
        """The task; options that do nothing for it are refused.

        Raises:
            JudgeDecodingError: there is no such task, an option does nothing for it, or the grader has no key.
        """
        sandbox = sandbox_spelling(self.sandbox, none=self.no_sandbox)
        task = parse_task(self.task, allow_code=self.allow_code_execution, sandbox=sandbox)
        if not task.runs_code:
            check_used(self.context, f"For the task {task.name}, which runs no code,", *options.CODE_OPTIONS)
        if task.scoring != "check":
            check_used(self.context, f"For the task {task}, whose answers are not right or wrong,", "--margin")
        if self.grader is not None and task.scoring != "grade":
            raise JudgeDecodingError("The answers of this task are not graded; leave --grader out.")
        if self.grader is not None:
            Endpoint(self.grader.removeprefix(PREFIX))  # fails before the work if something is missing
        elif task.scoring == "grade":
            warn("The answers are not graded; give a model with --grader.")
        return task
