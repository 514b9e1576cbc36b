"""How a draft model is made from a target, and what is known of it before and after."""

from __future__ import annotations

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
"""What is written into a draft's folder; a large model's weights are in several files, beside an index."""

LAYERS = 4
"""How many layers a draft has if nobody says."""

LEARNING_RATE, LORA_LEARNING_RATE = 5e-4, 1e-3


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """How `make_draft` makes a draft model.

    Attributes:
        num_layers: how many of the target's first layers it has.
        loss: "kl", the Kullback-Leibler divergence from the target's distribution at each token of its answers, or
            "ce", the cross-entropy on the answers.
        lora: rank of LoRA adapters that are trained and merged instead of the layers themselves; needs peft.
        keep_adapter: keep the adapter beside the draft, in its folder ``adapter``.
        embeddings: train the embeddings and the output head too; without LoRA only.
        vocab: propose only so many of the most frequent tokens (FR-Spec, arXiv 2502.14856); None for all.
        learning_rate: the highest, after a warm-up; it falls to a tenth by a cosine. None for 5e-4, with LoRA 1e-3.
        epochs: how often each answer is trained on.
        batch_size: answers in a step of the optimiser, and answers that are generated at once.
        max_new_tokens: token budget of an answer.
        temperature: of the target's answers; 0 is greedy.
        held_out: share of the prompts that measure and are not trained on.
        num_draft_tokens: the draft length at which the mean acceptance length is measured.
        seed: chooses the held-out prompts, orders the answers and draws what is drawn.

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
        """The learning rate that counts."""
        return self.learning_rate or (LORA_LEARNING_RATE if self.lora else LEARNING_RATE)

    @property
    def fewest_prompts(self) -> int:
        """How many prompts there must be: ten, or enough that one can be held out."""
        return max(10, round(1 / self.held_out), round(1 / (1 - self.held_out)))


@dataclass(frozen=True, slots=True)
class DraftForecast:
    """What `make_draft` will take, measured on a few prompts.

    Attributes:
        answers: how many answers of the target are still to be generated.
        generated_tokens: about how many tokens these have.
        trained_tokens: about how many answer tokens are trained on, each one counted once an epoch.
        seconds: about how long both take.
    """

    answers: int
    generated_tokens: int
    trained_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DraftMeasure:
    """What a draft gives on the held-out answers.

    Attributes:
        step: after so many steps of the optimiser.
        steps: how many there are in all.
        training_loss: mean loss of a token since the last measurement, in nats; None before the first step.
        loss: mean loss of a held-out token, in nats.
        agreement: share of the held-out tokens at which the draft's most probable token is the target's.
        mean_acceptance_length: tokens per target forward that greedy decoding of these answers takes at the draft
            length, as the places of agreement tell.
    """

    step: int
    steps: int
    training_loss: float | None
    loss: float
    agreement: float
    mean_acceptance_length: float


@dataclass(frozen=True, slots=True)
class MadeDraft:
    """What `make_draft` made.

    Attributes:
        folder: where the draft is.
        before: of the layers as they were cut.
        after: of the draft that was saved, the one with the best agreement.
        answers: how many answers were trained on.
        tokens: how many tokens these have.
        held_out: how many prompts measured.
        num_draft_tokens: the draft length of what follows.
        mean_acceptance_length: tokens per target forward, decoded on the held-out prompts.
        acceptance_rate: accepted share of the draft tokens there.
        cost: time of a draft token, as a share of a target forward's.
        covered: share of the held-out answers' tokens that the draft can propose at all.
        warnings: what makes the figures doubtful.
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
