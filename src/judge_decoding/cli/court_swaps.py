"""``judge-decoding court label likelihood`` and ``equivalence``: label single tokens by the models themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used
from judge_decoding.cli.options import MODELS, TRAINING, option
from judge_decoding.cli.outputs import check_resumable
from judge_decoding.cli.shared import read
from judge_decoding.labelling.labels.progress import LabellingProgress
from judge_decoding.tasks.results import result_function


@dataclass(frozen=True, kw_only=True)
class SwapOptions:
    """The options of both."""

    context: typer.Context
    questions: Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) with the questions.")]
    out: options.Cases
    target: options.Target
    draft: options.DraftModelOption = None
    max_new_tokens: options.FixedBudget = 256
    batch_size: options.BatchSize = 8
    yes: options.Yes = False
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    overwrite: options.Overwrite = False

    def check(self) -> None:
        """Check the output."""
        check_resumable(self.context, self.out, [self.questions, self.target, self.draft], overwrite=self.overwrite)

    def progress(self, way: str, **more: Any) -> LabellingProgress:  # noqa: ANN401  (any JSON value)
        """The work so far, with the settings that must not change."""
        settings = {"way": way, "target": self.target, "draft": self.draft, **more}
        return LabellingProgress(self.out, settings | {"max_new_tokens": self.max_new_tokens})


@dataclass(frozen=True, kw_only=True)
class LikelihoodOptions(SwapOptions):
    """Label draft tokens by the target's likelihood of them and of what follows (SelfJudge); no checker."""

    label_threshold: options.LabelThreshold
    given: Annotated[
        bool,
        option(TRAINING, "Label the file's answers, or the target's own answers to its questions.", "--given/--own"),
    ] = False
    suffix: Annotated[int, option(TRAINING, "Tokens read after a replaced one.", min=1)] = 20

    def run(self) -> None:
        """Check the options, and label."""
        if self.given:
            check_used(self.context, "With --given, where nothing is generated,", "--max-new-tokens", "--batch-size")
        self.check()
        cases = read(self.questions)
        progress = self.progress("likelihood", threshold=self.label_threshold, given=self.given, suffix=self.suffix)
        from judge_decoding.cli.run.swaps import likelihood  # noqa: PLC0415  (loads torch)

        likelihood(self, cases, progress)


@dataclass(frozen=True, kw_only=True)
class EquivalenceOptions(SwapOptions):
    """Label draft tokens by whether the target's final result stays the same with them (AutoJudge)."""

    checker: options.CheckerOption = "number"
    endpoint: Annotated[
        str | None,
        option(
            MODELS,
            "Name of the target at the endpoint OPENAI_BASE_URL (vLLM, SGLang), which then generates; only its "
            "tokenizer is loaded here.",
        ),
    ] = None

    def run(self) -> None:
        """Check the options, and label."""
        result = result_function(self.checker)
        self.check()
        texts = list(dict.fromkeys(case.question for case in read(self.questions)))
        progress = self.progress("equivalence", endpoint=self.endpoint, result=self.checker)
        from judge_decoding.cli.run.swaps import equivalence  # noqa: PLC0415  (loads torch)

        equivalence(self, texts, result, progress)
