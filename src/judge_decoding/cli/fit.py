"""``judge-decoding fit``: from prompts to a ready-to-use head, in one command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_calibrate_on, check_used
from judge_decoding.cli.options import MODELS, TRAINING, option, out_option
from judge_decoding.cli.outputs import WORK, check_outputs
from judge_decoding.cli.steps import steps
from judge_decoding.core.tracking import check_tracker
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import check_not_a_file, check_output_folders
from judge_decoding.io.questions import Fields
from judge_decoding.judge.files import files_of_head


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Fit a judge head from prompts: answers, labels, training, calibration and a report; resumes.

    The target answers most of the prompts. Tokens that the draft would replace are labelled by equivalence: does the
    answer keep its final result with the draft's token? A head is trained on these labels. The other prompts, or a
    task, choose its threshold and draft length.
    """

    context: typer.Context
    prompts: options.PromptsOption
    out: Annotated[Path, out_option("Folder for the judge head.")]
    target: options.Target
    draft: options.DraftModelOption = None
    make_draft: Annotated[
        bool,
        option(
            MODELS, "First make a draft model from the target's first layers, in the folder OUT-draft.", "--make-draft"
        ),
    ] = False
    draft_layers: options.FirstLayers = None
    prompt_field: options.PromptField = None
    reference_field: options.ReferenceField = None
    template: options.Template = None
    chat: options.Chat = None
    limit: options.Limit = None
    checker: options.CheckerOption = "number"
    margin: options.Margin = 1.0
    share: Annotated[float, option(TRAINING, "Share of the prompts for calibration; the others are labelled.")] = 0.4
    calibrate_on: options.CalibrateOn = None
    calibrate_data: options.CalibrateData = None
    calibrate_limit: options.CalibrateLimit = None
    max_new_tokens: options.FixedBudget = 256
    batch_size: options.BatchSize = 16
    seed: options.Seed = 0
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    log_to: options.LogTo = None
    yes: options.Yes = False
    overwrite: options.Overwrite = False
    json: options.Json = False

    @property
    def made_draft(self) -> Path:
        """The folder of the draft that ``--make-draft`` makes."""
        return self.out.with_name(f"{self.out.name}-draft")

    def run(self) -> None:
        """Check the options, and fit."""
        context = self.context
        if self.calibrate_on is None:
            check_used(
                context, "Without --calibrate-on", "--calibrate-data", "--calibrate-limit",
                remedy="give a task with it",
            )  # fmt: skip
        else:
            check_used(context, "With --calibrate-on, where all prompts are labelled,", "--share", "--reference-field")
            check_calibrate_on(context, self.calibrate_on, ("--calibrate-data",))
        check_tracker(self.log_to)
        if self.make_draft:
            check_used(context, "With --make-draft", "--draft")
        else:
            check_used(context, "Without --make-draft", "--draft-layers", remedy="add it")
        if not 0 < self.share < 1:
            raise JudgeDecodingError(f"--share is {self.share}; it must be between 0 and 1.")
        check_not_a_file(self.out, "a head")
        labels = self.out.with_name(f"{self.out.name}.work") / "labels.jsonl"
        check_outputs(
            files_of_head(self.out), [self.prompts, self.target, self.draft, self.calibrate_on, self.calibrate_data],
            overwrite=self.overwrite, folder=True, work=[labels, labels.with_name("labels.jsonl.part")],
        )  # fmt: skip
        work = check_output_folders(self.out, "a head", "labels.jsonl")
        from judge_decoding.cli.run.draft import read_rendered  # noqa: PLC0415  (loads torch)

        fields = Fields(self.prompt_field, self.reference_field, self.template)
        questions, chatted = read_rendered(self.prompts, fields, self.target, self.limit, chat=self.chat)
        self.context.meta[WORK] = [work]
        with steps(lines=True) as screen:
            screen("loading the models", 0, 0)
            from judge_decoding.cli.run.fit import report, run  # noqa: PLC0415  (loads torch)

            found = run(self, questions, screen)
        report(found, self, chat=chatted)
