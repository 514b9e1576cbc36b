"""A head's configuration: what it says of itself, its models and its training questions. It is read without torch."""

from __future__ import annotations

import base64
import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import pstdev
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, deserialize

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem, read_bytes, read_text
from judge_decoding.judge.files import CONFIG, WEIGHTS

PROBE_IDS = 16
"""The number of token ids of a probe's forward pass."""
PROBE_NUMBERS = 64
"""The number of coordinates that a probe keeps of each layer's output."""
FINGERPRINT = 16
"""The number of weights in a fingerprint."""
MOST_RANK = 64
"""The largest number of directions in a head's statistics of its training questions."""

ALLOWED = 0.25
"""Largest allowed difference of the scores, as a share of their spread, where nothing is quantised.

`benchmarks/probe.py` measures what storing and tuning a model make. SmolLM2-135M and its head: bfloat16 3%, 8-bit
weights 6%, 4-bit weights (rounded to nearest) 63%, LoRA adapters of growing size 2% to 37%. Unrelated models differ by
more than 100%.
"""
ALLOWED_QUANTIZED = 0.5
"""The same where one of the two models is quantised."""

_LEAST_SPREAD = 0.25  # a log-odd; a smaller difference changes no probability by more than 6 percentage points

TokenId = Annotated[int, Field(ge=0)]


class Probe(BaseModel):
    """A few coordinates of each layer's output for one fixed input.

    Every layer below the judge's hidden states gets the same input, whatever the layers below it computed. So a change
    of any layer is visible, rounding does not accumulate over layers, and neither the vocabulary size nor the storage
    format of the weights matters.

    Attributes:
        ids: the token ids of the forward pass.
        norm, layer: where the judge reads; layers above are ignored.
        dtype: the data type of the computation.
        quantization: how the weights were quantised; None if they were not.
        numbers: float16, little-endian, in base64: `PROBE_NUMBERS` of the first layer's input for ``ids``, as many of
            each layer's output, and of the final norm's output if the judge reads after it.
    """

    ids: list[int] = Field(min_length=PROBE_IDS, max_length=PROBE_IDS)
    norm: Norm
    layer: int = Field(le=-1)
    dtype: str
    quantization: str | None = None
    numbers: str

    @model_validator(mode="after")
    def _numbers_can_be_read(self) -> Self:
        try:
            found = self.values()
        except (ValueError, struct.error) as error:
            raise ValueError("the numbers of the probe cannot be read") from error
        if not found or len(found) % PROBE_NUMBERS:
            raise ValueError("the numbers of the probe cannot be read")
        if not all(map(math.isfinite, found)) or min(self.ids) < 0:
            raise ValueError("the probe holds no finite numbers, or ids below 0")
        return self

    def values(self) -> tuple[float, ...]:
        """The kept coordinates, layer by layer: `PROBE_NUMBERS` each."""
        content = base64.b64decode(self.numbers, validate=True)
        return struct.unpack(f"<{len(content) // 2}e", content)


class TargetInfo(BaseModel):
    """The model a head was trained on; `judge_decoding.judge.target` compares it with a loaded model.

    Attributes:
        fingerprint: a few weights spread evenly over the output embeddings, for engines that cannot be probed; None if
            they are quantised.
        rows: the number of rows of the output embeddings that the fingerprint covers; None for all rows (heads of
            older versions).
        probe: the outputs of its layers for a fixed input; None in heads of older versions.
    """

    name_or_path: str
    architecture: str
    hidden_size: int = Field(gt=0, le=2**20)
    num_hidden_layers: int = Field(gt=0)
    fingerprint: list[float] | None = Field(min_length=FINGERPRINT, max_length=FINGERPRINT)
    rows: int | None = Field(default=None, gt=0)
    probe: Probe | None = None

    def check_shape(
        self, name: str, hidden_size: int, num_hidden_layers: int, *architectures: str, role: str = "target"
    ) -> None:
        """Check that a model called ``name``, of one of these architectures, has the shape of this model."""
        for what, mine, its in (
            ("hidden size", self.hidden_size, hidden_size),
            ("number of layers", self.num_hidden_layers, num_hidden_layers),
        ):
            if mine != its:
                raise JudgeDecodingError(self.misfit(role, what, mine, its, name))
        if self.architecture not in architectures:
            raise JudgeDecodingError(
                self.misfit(role, "architecture", self.architecture, ", ".join(architectures), name)
            )

    def check_weights(self, weights: Mapping[int, float], name: str = "", role: str = "target") -> None:
        """Check weights of a model's output embeddings, given by their index in the fingerprint."""
        if self.fingerprint is None:
            return
        # 2% of the largest weight: above the rounding of 16-bit formats, far below the difference of another model.
        slack = 0.02 * max(abs(value) for value in self.fingerprint)
        if not all(abs(self.fingerprint[position] - value) <= slack for position, value in weights.items()):
            raise JudgeDecodingError(
                f"This judge head was trained for {name_of(self.name_or_path)}, and the {role} {name_of(name)} has the "
                f"same shape but other weights; give the {role} it was trained for, or train a head."
            )

    def misfit(self, role: str, what: str, mine: object, its: object, their_name: str = "") -> str:
        """Return the error message for a model that is not this one."""
        return (
            f"This judge head was trained for {name_of(self.name_or_path)} ({what} {mine}), but the {role} is "
            f"{their_name or 'another'} ({what} {its}); give the {role} it was trained for, or train a head."
        )


class StoredScores(BaseModel):
    """The log-odds of CORRECT (``w·h + b``) that a head gives at the last token of each of a few prompts.

    The prompts are arbitrary token ids, so that a head reveals nothing about its training texts.
    """

    prompts: list[Annotated[list[TokenId], Field(min_length=1, max_length=64)]] = Field(min_length=2, max_length=64)
    scores: list[Annotated[float, Field(allow_inf_nan=False)]]

    @model_validator(mode="after")
    def _one_score_for_each(self) -> Self:
        if len(self.scores) != len(self.prompts):
            raise ValueError(f"{len(self.scores)} scores are stored for {len(self.prompts)} prompts")
        return self

    def difference(self, found: Sequence[float]) -> float:
        """Return how far the scores ``found`` for these prompts are from the stored ones, as a share of their spread.

        It is the root of the mean squared difference, over the standard deviation of the stored scores.
        """
        if not all(math.isfinite(score) for score in found):
            return math.inf
        squares = [(one - other) ** 2 for one, other in zip(self.scores, found, strict=True)]
        return math.sqrt(sum(squares) / len(squares)) / max(pstdev(self.scores), _LEAST_SPREAD)

    def check(self, found: Sequence[float], target: str, *, quantized: bool) -> str:
        """Compare scores ``found`` on ``target`` with the stored ones; return a clause that says how close they are.

        More is allowed if that target, or the one that the head was trained for, is quantised.
        """
        difference, allowed = self.difference(found), ALLOWED_QUANTIZED if quantized else ALLOWED
        if difference > allowed:
            raise JudgeDecodingError(
                f"On {target} this judge head's scores for {len(self.prompts)} stored prompts differ by "
                f"{difference:.0%} of their spread from those on the target it was trained for, and {allowed:.0%} are "
                "allowed; give that target in another format, or train a head on this one."
            )
        return (
            f"the judge head's scores for {len(self.prompts)} stored prompts differ by {difference:.0%} of their "
            f"spread from those in its training, where {allowed:.0%} are allowed"
        )


class FamiliarityConfig(BaseModel):
    """Statistics of the training questions other than tensors; ``familiarity`` in a head's ``config.json``."""

    questions: int = Field(gt=0)
    rank: int = Field(gt=0, le=MOST_RANK)
    quantile: float = Field(default=0.95, gt=0, lt=1)
    limit: float = Field(gt=0, allow_inf_nan=False)
    """The Mahalanobis distance at this quantile of the held-out questions."""


class JudgeHeadConfig(BaseModel):
    """The configuration needed to use a head; ``config.json`` in its folder."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: Literal["judge_head"] = "judge_head"
    version: Literal[1] = 1
    target: TargetInfo
    draft: TargetInfo | None = None
    """The draft model whose hidden states the head also reads; None for a head on the target alone."""
    layer: int = -1
    """The target's layer whose states are read, counted from the end; for the draft it is always the last layer."""
    norm: Norm = "before"
    polarity: Literal["correct"] = "correct"
    threshold: float = Field(default=0.5, ge=0, le=1)
    labels: str = "not recorded"
    """How the labels were read, in words; see `TrainingConfig.reading`."""
    num_draft_tokens: int | None = Field(default=None, gt=0)
    data: dict[str, Any] = Field(default_factory=dict)
    calibration: dict[str, Any] = Field(default_factory=dict)
    familiarity: FamiliarityConfig | None = None
    """Statistics of the training questions in the target's hidden space; None if unknown."""
    scores: StoredScores | None = None
    """What the head says of a few prompts; None in heads of older versions, and in those that also read the draft."""
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _there_are_such_states(self) -> Self:
        HiddenSource(self.layer, self.norm)
        if -self.layer > self.target.num_hidden_layers:
            raise ValueError(f"layer is {self.layer}, and the target has {self.target.num_hidden_layers} layers")
        return self

    @property
    def source(self) -> HiddenSource:
        """Which hidden states of the target are read."""
        return HiddenSource(self.layer, self.norm)

    @property
    def input_size(self) -> int:
        """The number of inputs per token: the target's hidden size, plus the draft's if the head reads it."""
        return self.target.hidden_size + (self.draft.hidden_size if self.draft else 0)

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor in the head's file of weights, by name."""
        shapes: dict[str, tuple[int, ...]] = {"linear.weight": (1, self.input_size), "linear.bias": (1,)}
        if self.familiarity is not None:
            size, rank = self.target.hidden_size, self.familiarity.rank
            shapes |= {
                "familiarity.mean": (size,),
                "familiarity.components": (rank, size),
                "familiarity.variances": (rank + 1,),
            }
        return shapes


def read_config(folder: Path) -> JudgeHeadConfig:
    """Read the configuration of the head in ``folder``."""
    text = read_text(folder / CONFIG, "the judge head's configuration")
    try:
        return JudgeHeadConfig.model_validate_json(text)
    except ValidationError as error:
        raise JudgeDecodingError(
            f"{folder / CONFIG} does not describe a judge head: {first_problem(error)}; check the path."
        ) from error


def has_sound_weights(folder: Path, config: JudgeHeadConfig) -> bool:
    """Whether the head's weights are surely what `JudgeHead` loads: there, float32, of these shapes, and finite."""
    try:
        tensors = dict(deserialize(read_bytes(folder / WEIGHTS, "the judge head's weights")))
    except (JudgeDecodingError, SafetensorError):
        return False
    kinds = {name: (one["dtype"], tuple(one["shape"])) for name, one in tensors.items()}
    if kinds != {name: ("F32", shape) for name, shape in config.weight_shapes.items()}:
        return False
    numbers = {name: array("f", bytes(one["data"])) for name, one in tensors.items()}
    if not all(math.isfinite(number) for one in numbers.values() for number in one):
        return False
    return config.familiarity is None or min(numbers["familiarity.variances"]) > 0


def name_of(name: str) -> str:
    """A model's name for a message, as some have none."""
    return name or "a model without a name"
