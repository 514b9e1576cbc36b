"""``judge-decoding draft``: make a draft model from the target's own first layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_dtype, check_used
from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.options import TRAINING, option, out_option
from judge_decoding.cli.outputs import WORK, check_outputs
from judge_decoding.cli.steps import steps
from judge_decoding.core.tracking import check_tracker
from judge_decoding.io.questions import Fields
from judge_decoding.judge.files import RUN_FILE
from judge_decoding.training.draft_options import FILES, DraftConfig, Loss


@dataclass(frozen=True, kw_only=True)
class DraftOptions:
    """Train a draft model made from the target's first layers; an interrupted run resumes.

    The target answers the prompts; a tenth of them are held out to measure acceptance. The result is an ordinary folder
    of transformers.
    """

    context: typer.Context
    target: options.Target
    prompts: options.PromptsOption
    out: Annotated[Path, out_option("Folder for the draft model.")]
    draft_layers: options.NumLayers = 4
    vocab: Annotated[int | None, option(TRAINING, "Propose only this many of the most frequent tokens.")] = None
    loss: Annotated[str, option(TRAINING, "kl: the target's distribution; ce: the target's answers.")] = "kl"
    lora: Annotated[int | None, option(TRAINING, "Train LoRA adapters of this rank, then merge them.")] = None
    keep_adapter: Annotated[bool, option(TRAINING, "Keep the adapter in the subfolder adapter.", "--keep-adapter")] = (
        False
    )
    embeddings: Annotated[bool, option(TRAINING, "Train embeddings and LM head too.", "--embeddings")] = False
    epochs: Annotated[int, option(TRAINING, "Passes over the answers.", min=1)] = 3
    learning_rate: Annotated[float | None, option(TRAINING, "Peak learning rate; by default 5e-4, with LoRA 1e-3.")] = (
        None
    )
    batch_size: options.BatchSize = 16
    max_new_tokens: options.FixedBudget = 256
    temperature: options.Temperature = 0.0
    num_draft_tokens: options.OneDraftLength = 4
    prompt_field: options.PromptField = None
    template: options.Template = None
    chat: options.Chat = None
    limit: options.Limit = None
    seed: options.Seed = 0
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    log_to: options.LogTo = None
    yes: options.Yes = False
    overwrite: options.Overwrite = False
    json: options.Json = False

    def run(self) -> None:
        """Check the options, and make the draft."""
        if self.lora is None:
            check_used(self.context, "Without --lora", "--keep-adapter", remedy="give a rank with it")
        check_dtype(self.dtype)
        check_tracker(self.log_to)
        work = self.out.with_name(f"{self.out.name}.work")
        check_outputs(
            [self.out / name for name in (*FILES, RUN_FILE)], [self.prompts, self.target], overwrite=self.overwrite,
            folder=True, work=[work / "answers.jsonl"],
        )  # fmt: skip
        self.context.meta[WORK] = [work]
        from judge_decoding.cli.run.draft import made, read_rendered, report  # noqa: PLC0415  (loads torch)

        with steps(lines=True) as screen:
            screen("loading the target", 0, 0)
            config = DraftConfig(
                self.draft_layers, cast("Loss", self.loss), lora=self.lora, keep_adapter=self.keep_adapter,
                embeddings=self.embeddings, vocab=self.vocab, learning_rate=self.learning_rate, epochs=self.epochs,
                batch_size=self.batch_size, max_new_tokens=self.max_new_tokens, temperature=self.temperature,
                num_draft_tokens=self.num_draft_tokens, seed=self.seed,
            )  # fmt: skip
            fields = Fields(self.prompt_field, None, self.template)
            questions, chatted = read_rendered(self.prompts, fields, self.target, self.limit, chat=self.chat)
            found = made(self, [one.prompt for one in questions], self.out, config, screen)
        keep_config(self.context, self.out)
        report(found, self, chat=chatted)
