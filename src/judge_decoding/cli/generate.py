"""``judge-decoding generate``: stream the answer of any pair, with each token marked by why it was kept."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_dtype, check_one_rule, check_used
from judge_decoding.cli.options import DECODING, OUTPUT, option, out_option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.errors import JudgeDecodingError


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Answer one prompt with any pair of models."""

    context: typer.Context
    target: options.Target
    prompt: Annotated[str | None, typer.Argument(help="The prompt; by default standard input.")] = None
    draft: options.DraftOption = None
    translate: options.Translate = False
    judge: options.JudgeOption = None
    chat: options.Chat = None
    system: options.System = ""
    max_new_tokens: options.BudgetOption = None
    threshold: options.Threshold = None
    rule: options.Rule = None
    num_draft_tokens: options.DraftLengthOption = None
    draft_schedule: Annotated[
        str, option(DECODING, "How the draft length adapts: fixed, heuristic, confident or cost_optimal.")
    ] = "fixed"
    guard: options.Guards = None
    stop: options.StopOption = None
    generation_config: Annotated[
        str, option(DECODING, "model: use the model's generation configuration; none: ignore it.")
    ] = "model"
    temperature: options.OwnTemperature = None
    top_p: options.TopP = None
    top_k: options.TopKOption = None
    min_p: options.MinP = None
    repetition_penalty: Annotated[
        float | None, option(DECODING, "Repetition penalty; above 1 repeats less, 1 is off.")
    ] = None
    seed: options.OptionalSeed = None
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    backend: options.BackendOption = "eager"
    plain: Annotated[bool, option(OUTPUT, "Print the text only, for pipes.", "--plain")] = False
    out: Annotated[
        Path | None, out_option("File (JSONL) for text, rounds, probabilities and figures, for `report`.")
    ] = None
    with_target: Annotated[
        bool, option(OUTPUT, "Add the target's own answer to --out and --json, for comparison.", "--with-target")
    ] = False
    overwrite: options.Overwrite = False
    json: options.Json = False

    def run(self) -> None:
        """Check the options, and answer."""
        check_outputs([self.out], [self.target, self.draft, self.judge], overwrite=self.overwrite)
        if self.prompt is None and sys.stdin.isatty():
            raise JudgeDecodingError(
                f"There is no prompt for the target {self.target}; give both, as in judge-decoding generate --target "
                "TARGET PROMPT, or the prompt on standard input."
            )
        check_dtype(self.dtype)
        check_one_rule(self.rule, self.threshold)
        if self.json:
            check_used(self.context, "With --json", "--plain")
        if self.out is None:
            check_used(self.context, "Without --out", "--overwrite", remedy="give a file")
            if self.with_target and not self.json:
                raise JudgeDecodingError(
                    "--with-target adds the target's own answer to --out and --json; give one of them."
                )
        from judge_decoding.cli.run.generate import run  # noqa: PLC0415  (loads torch)

        run(self)
