"""How a draft model is made from a target: settings, forecast and results."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from judge_decoding.bounds import check_bounds
from judge_decoding.errors import JudgeDecodingError

Loss = Literal["kl", "ce"]
"""kl: the divergence from the target's distribution; ce: cross-entropy on the target's answers."""

FILES = (
    "config.json", "model.safetensors", "README.md", "generation_config.json", "tokenizer.json",
    "tokenizer_config.json", "draft_vocabulary.safetensors",
)  # fmt: skip
"""The files of a draft's folder. A large model's weights are in several files with an index."""

LAYERS = 4
"""The default number of layers of a draft."""

LEARNING_RATE, LORA_LEARNING_RATE = 5e-4, 1e-3


def prompts_hash(prompts: Sequence[str]) -> str:
    """A hash of the prompts that a draft was made with, as its configuration has it."""
    return hashlib.sha256("\0".join(dict.fromkeys(prompts)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """How `make_draft` makes a draft model.

    Attributes:
        num_layers: how many of the target's first layers it keeps.
        loss: "kl", the Kullback-Leibler divergence from the target's distribution at each token of its answers, or
            "ce", the cross-entropy on the answers.
        lora: rank of the LoRA adapters that are trained and merged instead of the layers themselves; needs peft.
        keep_adapter: also keep the adapter, in the draft's subfolder ``adapter``.
        embeddings: train the embeddings and the output head too; only without LoRA.
        vocab: propose only this many of the most frequent tokens (FR-Spec, arXiv 2502.14856); None for all.
        learning_rate: the peak, reached after a warm-up; it then falls to a tenth by a cosine. None: 5e-4, LoRA 1e-3.
        epochs: how often each answer is trained on.
        batch_size: answers per optimiser step, and answers that are generated together.
        max_new_tokens: token budget of an answer.
        temperature: sampling temperature of the target's answers; 0 is greedy.
        held_out: share of the prompts that are used for measuring and not for training.
        num_draft_tokens: the draft length at which the mean acceptance length is measured.
        seed: chooses the held-out prompts, orders the answers and seeds all sampling.

    Raises:
        JudgeDecodingError: a value is out of range, or two of them exclude each other.
    """

    num_layers: int = LAYERS
    loss: Loss = "kl"
    lora: int | None = None
    keep_adapter: bool = False
    embeddings: bool = False
    vocab: int | None = None
    learning_rate: float | None = None
    epochs: int = 3
    batch_size: int = 16
    max_new_tokens: int = 256
    temperature: float = 0.0
    held_out: float = 0.1
    num_draft_tokens: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.loss not in get_args(Loss):
            raise JudgeDecodingError(f"The loss is {self.loss}; it must be {' or '.join(get_args(Loss))}.")
        if not 0 < self.held_out < 1:
            raise JudgeDecodingError(f"held_out is {self.held_out:g}; it must be between 0 and 1.")
        if self.embeddings and self.lora:
            raise JudgeDecodingError("LoRA leaves the embeddings as they are; give either embeddings or lora.")
        if self.embeddings and self.vocab:
            raise JudgeDecodingError(
                "A head that is cut to some tokens is not trained; give either embeddings or vocab."
            )
        if self.keep_adapter and not self.lora:
            raise JudgeDecodingError("There is no adapter to keep without LoRA; give its rank in lora (--lora).")

    @property
    def highest_rate(self) -> float:
        """The effective peak learning rate."""
        return self.learning_rate or (LORA_LEARNING_RATE if self.lora else LEARNING_RATE)

    @property
    def fewest_prompts(self) -> int:
        """The smallest number of prompts: ten, or enough to hold one out."""
        return max(10, round(1 / self.held_out), round(1 / (1 - self.held_out)))


@dataclass(frozen=True, slots=True)
class DraftForecast:
    """The cost of `make_draft`, estimated on a few prompts.

    Attributes:
        answers: how many answers the target has yet to generate.
        generated_tokens: approximate number of tokens of these answers.
        trained_tokens: approximate number of answer tokens to train on, each counted once per epoch.
        seconds: approximate time for both.
    """

    answers: int
    generated_tokens: int
    trained_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DraftMeasure:
    """How a draft does on the held-out answers.

    Attributes:
        step: the optimiser steps done.
        steps: the optimiser steps in all.
        training_loss: mean loss per token since the last measurement, in nats; None before the first step.
        loss: mean loss per held-out token, in nats.
        agreement: share of the held-out tokens at which the draft's most probable token is the target's.
        mean_acceptance_length: tokens per target forward in greedy decoding of these answers at the draft length,
            computed from the positions of agreement.
    """

    step: int
    steps: int
    training_loss: float | None
    loss: float
    agreement: float
    mean_acceptance_length: float


@dataclass(frozen=True, slots=True)
class MadeDraft:
    """The result of `make_draft`.

    Attributes:
        folder: the folder of the draft.
        before: figures of the layers as they were cut, before training.
        after: figures of the saved draft, the one with the best agreement.
        answers: the number of answers trained on.
        tokens: the number of tokens of these answers.
        held_out: the number of prompts used for measuring.
        num_draft_tokens: the draft length of the figures below.
        mean_acceptance_length: tokens per target forward, decoded on the held-out prompts.
        acceptance_rate: accepted share of the draft tokens there.
        cost: time of a draft token as a share of a target forward's.
        covered: share of the tokens of the held-out answers that the draft can propose.
        warnings: reasons to doubt the figures.
    """

    folder: Path
    before: DraftMeasure
    after: DraftMeasure
    answers: int
    tokens: int
    held_out: int
    num_draft_tokens: int
    mean_acceptance_length: float
    acceptance_rate: float
    cost: float
    covered: float
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return asdict(self) | {"folder": str(self.folder), "warnings": list(self.warnings)}
