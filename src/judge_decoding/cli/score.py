"""``judge-decoding score``: score any text as the draft."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_dtype, check_used
from judge_decoding.cli.options import RUN, TASK, option
from judge_decoding.cli.outputs import check_outputs


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Count the tokens per round that each rule would keep of existing answers.

    The answers can come from people or from a strong model, to see whether judge decoding would help on your workload.
    No draft model is needed.
    """

    context: typer.Context
    answers: Annotated[Path, typer.Argument(help="Answers (JSONL: question and answer), or a TokenCourt file.")]
    target: options.Target
    judge: options.JudgeOption = None
    rule: options.Rules = None
    num_draft_tokens: options.DraftLengths = None
    prompt_field: options.PromptField = None
    answer_field: Annotated[str, option(TASK, "Field of the answer; by default answer.")] = "answer"
    template: options.Template = None
    chat: options.Chat = None
    limit: options.Limit = None
    show: options.Show = 5
    batch_tokens: Annotated[int, option(RUN, "Maximum tokens per forward pass; fewer take less memory.", min=1)] = 1024
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    json: options.Json = False
    html: options.Html = None
    overwrite: options.Overwrite = False

    def run(self) -> None:
        """Check the options, and score."""
        check_outputs([self.html], [self.answers, self.target, self.judge], overwrite=self.overwrite)
        if self.html is None:
            check_used(self.context, "Without --html", "--show", "--overwrite", remedy="give a page")
        check_dtype(self.dtype)
        from judge_decoding.cli.run.score import run  # noqa: PLC0415  (loads torch)

        run(self)
