"""``judge-decoding evaluate``: measure one way of decoding on a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_one_rule, check_used
from judge_decoding.cli.options import DECODING, OUTPUT, option, out_option
from judge_decoding.cli.task_options import MeasureOptions
from judge_decoding.names import has_draft


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(MeasureOptions):
    """Measure the accuracy and speed of one decoding configuration on a task.

    An interrupted run resumes. `report` shows the answers token by token.
    """

    out: Annotated[Path, out_option("Folder for results.json and samples.jsonl.")]
    threshold: options.Threshold = None
    rule: options.Rule = None
    guard: options.Guards = None
    num_draft_tokens: options.DraftLengthOption = None
    top_p: options.TopP = None
    top_k: options.TopKOption = None
    min_p: options.MinP = None
    batch_size: options.BatchSize = 1
    alone: Annotated[
        bool,
        option(
            DECODING,
            "Measure the target without a draft too, for comparison.",
            "--target-alone/--no-target-alone",
        ),
    ] = True
    details: Annotated[
        bool,
        option(
            OUTPUT,
            "Record probabilities and alternatives of every draft token, for `report`; slower.",
            "--details",
        ),
    ] = False

    def run(self) -> None:
        """Check the options, and evaluate."""
        self.check_files("samples.jsonl.part", "samples.jsonl", "spec_bench.jsonl")
        if not has_draft(self.target, self.draft):
            check_used(
                self.context, "Without --draft", "--judge", "--threshold", "--rule", "--guard", "--num-draft-tokens",
                "--translate", "--target-alone", "--details", "--margin", remedy="give a draft model",
            )  # fmt: skip
        if not self.alone:
            check_used(self.context, "With --no-target-alone", "--margin")
        check_one_rule(self.rule, self.threshold)
        if not self.temperature:
            check_used(self.context, "At temperature 0", "--top-p", "--top-k", "--min-p", remedy="give a --temperature")
            if self.limit is None:
                check_used(self.context, "At temperature 0 and without --limit", "--seed", remedy="give one of the two")
        asked = self.checked_task()
        from judge_decoding.cli.run.evaluate import run  # noqa: PLC0415  (loads torch)

        run(self, asked)
