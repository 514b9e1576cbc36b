"""``judge-decoding sweep``: compare rules, settings and draft lengths on a task, with strong baselines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used
from judge_decoding.cli.options import DECODING, option, out_option
from judge_decoding.cli.task_options import MeasureOptions
from judge_decoding.core.tracking import check_tracker
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.names import REFERENCE
from judge_decoding.report.plots import check_plots


@dataclass(frozen=True, kw_only=True)
class SweepOptions(MeasureOptions):
    """Compare rules, settings and draft lengths on a task: accuracy against speed, with intervals.

    It always includes standard speculative decoding, top-k, typical acceptance, KL, and the target sampled losslessly
    under the same truncation. An interrupted run resumes.
    """

    out: Annotated[Path, out_option("Folder for results.json, answers.jsonl and sweep.html.")]
    rule: options.Rules = None
    threshold: options.Thresholds = None
    num_draft_tokens: options.DraftLengths = None
    tune: options.Tune = 10
    every_length: Annotated[
        bool, option(DECODING, "Measure every draft length instead of choosing one.", "--every-length")
    ] = False
    batch_size: options.Loads = None
    log_to: options.LogTo = None

    def run(self) -> None:
        """Check the options, and compare."""
        self.check_files("results.json.part", "sweep.html", "answers.jsonl", "sweep.svg")
        if self.target != REFERENCE:
            if self.draft is None:
                raise JudgeDecodingError("A sweep compares ways to verify a draft; give a draft model with --draft.")
            if self.judge is None:
                check_used(self.context, "Without --judge", "--threshold", remedy="give a judge head")
        if self.every_length:
            check_used(self.context, "With --every-length", "--tune")
        check_tracker(self.log_to)
        asked = self.checked_task()
        if asked.scoring == "check":
            check_plots()
        from judge_decoding.cli.run.sweep import run  # noqa: PLC0415  (loads torch)

        run(self, asked)
