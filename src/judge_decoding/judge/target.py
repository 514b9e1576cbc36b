"""The models that a judge head was trained on, and checks that a given model is the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import LAST, HiddenSource
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.config import FINGERPRINT, Probe, TargetInfo, name_of
from judge_decoding.judge.probe import QUANTIZED, allowed, difference, probe_model
from judge_decoding.models.forward import input_rows
from judge_decoding.models.unwrap import unwrap
from judge_decoding.models.weights import plain_weight
from judge_decoding.names import reserved_name


def target_info(model: PreTrainedModel, source: HiddenSource = LAST) -> TargetInfo:
    """Describe ``model``, whose hidden states are read at ``source``."""
    model = bare(model)
    weight = plain_weight(model.get_output_embeddings())
    return TargetInfo(
        **shape(model),
        fingerprint=None if weight is None else list(_values(weight, *weight.shape).values()),
        rows=None if weight is None else weight.shape[0],
        probe=probe_model(model, source),
    )


def check_target(info: TargetInfo, model: PreTrainedModel, role: str = "target") -> str | None:
    """Check that ``model`` is the one that ``info`` describes.

    A quantised copy is accepted, and a sentence that warns of it returned.
    """
    model = bare(model)
    its = shape(model)
    info.check_shape(its["name_or_path"], its["hidden_size"], its["num_hidden_layers"], its["architecture"], role=role)
    warning = None if info.probe is None else _check_layers(info.name_or_path, info.probe, model, role)
    weight = plain_weight(model.get_output_embeddings())
    if weight is not None and not (info.probe and info.probe.quantization):
        info.check_weights(_values(weight, info.rows or len(weight), weight.shape[1]), its["name_or_path"], role)
    return warning


def _check_layers(trained_for: str, probe: Probe, model: PreTrainedModel, role: str) -> str | None:
    name = reserved_name(str(model.config.name_or_path))
    if max(probe.ids) >= input_rows(model):
        raise JudgeDecodingError(
            f"This judge head was trained for {name_of(trained_for)}, and the {role} {name_of(name)} has a "
            f"smaller vocabulary of {input_rows(model)} tokens; give the {role} it was trained for, or train a "
            "head."
        )
    its = probe_model(model, HiddenSource(probe.layer, probe.norm), probe.ids)
    found, most = difference(probe, its), allowed(probe, its)
    if found <= most:
        return None
    quantized = its.quantization or probe.quantization
    if quantized is not None and found <= QUANTIZED:
        return (
            f"A layer of the {role} {name_of(name)} differs by {100 * found:.0f}% from that of the model this judge "
            f"head was trained for, as one of them is quantised ({quantized}); calibrate the threshold with this "
            f"{role}, or train a head on it."
        )
    raise JudgeDecodingError(
        f"This judge head was trained for {name_of(trained_for)}, and the {role} {name_of(name)} has the same "
        f"shape but other weights (a layer's output differs by {100 * found:.2g}%, where rounding explains "
        f"{100 * most:.1g}%); give the {role} it was trained for, or train a head."
    )


def bare(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model inside its wrappers; see `unwrap`."""
    inner = unwrap(model)
    if not isinstance(inner, PreTrainedModel):
        raise JudgeDecodingError(f"{type(inner).__name__} is not a transformers model; give a causal language model.")
    return inner


def shape(model: PreTrainedModel) -> dict[str, Any]:
    """Return the fields of a `TargetInfo` that do not depend on the weights."""
    config = model.config.get_text_config()
    return {
        "name_or_path": reserved_name(str(model.config.name_or_path)),
        "architecture": type(model).__name__,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
    }


def fingerprint_positions(rows: int, columns: int) -> list[tuple[int, int]]:
    """Return row and column of each weight of a fingerprint over output embeddings of ``rows`` and ``columns``."""
    flat = torch.linspace(0, rows * columns - 1, FINGERPRINT, dtype=torch.float64).long().tolist()
    return [divmod(position, columns) for position in flat]


def _values(weight: Tensor, rows: int, columns: int) -> dict[int, float]:
    """Return the weights of a fingerprint over ``rows``, by index, as far as ``weight`` contains them."""
    positions = enumerate(fingerprint_positions(rows, columns))
    return {number: float(weight[row, column]) for number, (row, column) in positions if row < len(weight)}
