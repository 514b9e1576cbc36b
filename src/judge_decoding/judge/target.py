"""The models that a judge head was trained on, and checks that a given model is the same."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Self

import torch
from pydantic import BaseModel, Field
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import LAST, HiddenSource
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.probe import QUANTIZED, Probe
from judge_decoding.models.forward import input_rows
from judge_decoding.models.unwrap import unwrap
from judge_decoding.models.weights import plain_weight

_FINGERPRINT_SIZE = 16

log = logging.getLogger(__name__)


class TargetInfo(BaseModel):
    """The model a head was trained on.

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
    fingerprint: list[float] | None = Field(min_length=_FINGERPRINT_SIZE, max_length=_FINGERPRINT_SIZE)
    rows: int | None = Field(default=None, gt=0)
    probe: Probe | None = None

    @classmethod
    def of(cls, model: PreTrainedModel, source: HiddenSource = LAST) -> Self:
        """Describe ``model``, whose hidden states are read at ``source``.

        Raises:
            JudgeDecodingError: the model has no such layer.
        """
        model = bare(model)
        weight = plain_weight(model.get_output_embeddings())
        return cls(
            **shape(model),
            fingerprint=None if weight is None else list(_values(weight, *weight.shape).values()),
            rows=None if weight is None else weight.shape[0],
            probe=Probe.of(model, source),
        )

    def check(self, model: PreTrainedModel, role: str = "target") -> None:
        """Check that ``model`` is this model; a quantised copy is accepted with a warning.

        Raises:
            JudgeDecodingError: architecture, size, depth or layer outputs differ.
        """
        model = bare(model)
        its = shape(model)
        self.check_shape(
            its["name_or_path"], its["hidden_size"], its["num_hidden_layers"], its["architecture"], role=role
        )
        if self.probe is not None:
            self._check_layers(model, self.probe, role)
        weight = plain_weight(model.get_output_embeddings())
        if weight is not None and not (self.probe and self.probe.quantization):
            self.check_weights(_values(weight, self.rows or len(weight), weight.shape[1]), its["name_or_path"], role)

    def _check_layers(self, model: PreTrainedModel, probe: Probe, role: str) -> None:
        name = str(model.config.name_or_path)
        if max(probe.ids) >= input_rows(model):
            raise JudgeDecodingError(
                f"This judge head was trained for {_name(self.name_or_path)}, and the {role} {_name(name)} has a "
                f"smaller vocabulary of {input_rows(model)} tokens; give the {role} it was trained for, or train a "
                "head."
            )
        its = Probe.of(model, HiddenSource(probe.layer, probe.norm), probe.ids)
        difference, allowed = probe.difference(its), probe.allowed(its)
        if difference <= allowed:
            return
        quantized = its.quantization or probe.quantization
        if quantized is not None and difference <= QUANTIZED:
            log.warning(
                "A layer of the %s %s differs by %.0f%% from that of the model this judge head was trained for, as one "
                "of them is quantised (%s); calibrate the threshold with this %s, or train a head on it.",
                role, _name(name), 100 * difference, quantized, role,
            )  # fmt: skip
            return
        raise JudgeDecodingError(
            f"This judge head was trained for {_name(self.name_or_path)}, and the {role} {_name(name)} has the same "
            f"shape but other weights (a layer's output differs by {100 * difference:.2g}%, where rounding explains "
            f"{100 * allowed:.1g}%); give the {role} it was trained for, or train a head."
        )

    def check_shape(
        self, name: str, hidden_size: int, num_hidden_layers: int, *architectures: str, role: str = "target"
    ) -> None:
        """Check that a model called ``name``, of one of these architectures, has the shape of this model.

        Raises:
            JudgeDecodingError: the shape differs.
        """
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

    def probe_positions(self, rows: int, columns: int) -> list[tuple[int, int]]:
        """Return row and column of each fingerprint weight in output embeddings of ``rows`` and ``columns``.

        Some rows may exceed ``rows``, if the vocabulary was padded when the head was trained.
        """
        return _probe_positions(self.rows or rows, columns)

    def check_weights(self, weights: Mapping[int, float], name: str = "", role: str = "target") -> None:
        """Check weights of a model's output embeddings, given by their index in the fingerprint.

        Raises:
            JudgeDecodingError: they belong to another model.
        """
        if self.fingerprint is None:
            return
        # 2% of the largest weight: above the rounding of 16-bit formats, far below the difference of another model.
        slack = 0.02 * max(abs(value) for value in self.fingerprint)
        if not all(abs(self.fingerprint[position] - value) <= slack for position, value in weights.items()):
            raise JudgeDecodingError(
                f"This judge head was trained for {_name(self.name_or_path)}, and the {role} {_name(name)} has the "
                f"same shape but other weights; give the {role} it was trained for, or train a head."
            )

    def misfit(self, role: str, what: str, mine: object, its: object, their_name: str = "") -> str:
        """Return the error message for a model that is not this one."""
        return (
            f"This judge head was trained for {_name(self.name_or_path)} ({what} {mine}), but the {role} is "
            f"{their_name or 'another'} ({what} {its}); give the {role} it was trained for, or train a head."
        )


def bare(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model inside its wrappers; see `unwrap`."""
    inner = unwrap(model)
    if not isinstance(inner, PreTrainedModel):
        raise JudgeDecodingError(f"{type(inner).__name__} is no model of transformers; give a causal language model.")
    return inner


def shape(model: PreTrainedModel) -> dict[str, Any]:
    """Return the fields of a `TargetInfo` that do not depend on the weights."""
    config = model.config.get_text_config()
    return {
        "name_or_path": str(model.config.name_or_path),
        "architecture": type(model).__name__,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
    }


def _probe_positions(rows: int, columns: int) -> list[tuple[int, int]]:
    count = rows * columns
    flat = torch.linspace(0, count - 1, _FINGERPRINT_SIZE, dtype=torch.float64).long().tolist()
    return [divmod(position, columns) for position in flat]


def _values(weight: Tensor, rows: int, columns: int) -> dict[int, float]:
    """Return the weights of a fingerprint over ``rows``, by index, as far as ``weight`` contains them."""
    probe_positions = enumerate(_probe_positions(rows, columns))
    return {number: float(weight[row, column]) for number, (row, column) in probe_positions if row < len(weight)}


def _name(name: str) -> str:
    return name or "a model without a name"
