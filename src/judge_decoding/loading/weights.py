"""Checks that the loaded weights are those of the model: complete, without extra weights, and finite.

``from_pretrained`` initialises missing weights at random, with a warning at most.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.bounds import check_bound
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_bytes

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_OLD_BUFFERS = ("bias", "masked_bias")
"""Masks that attention layers used to store in their checkpoints."""


def check_depth(folder: Path) -> None:
    """Check that the model in ``folder`` has a sane number of layers, since each creates Python objects on loading."""
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        config = json.loads(read_bytes(path, "the model's configuration"))
    except (ValueError, RecursionError):
        return  # errors in it are raised on loading
    for part in (config, *(config.values() if isinstance(config, dict) else ())):
        for name, value in part.items() if isinstance(part, dict) else ():
            if name.endswith(("layers", "layer")):
                check_bound("num_hidden_layers", value, f"{name} of {path}")


def check_complete(model: PreTrainedModel, info: Mapping[str, Collection[Any]], name: str) -> None:
    """Check that all weights of a model come from its checkpoint, and that the checkpoint is of the same model.

    ``info`` already excludes tied weights and weights that the model's class allows to be missing or left over. Buffers
    may be missing: the model computes them. Parts of a checkpoint outside the model may be left over: a vision tower, a
    value head, layers that predict further tokens.

    Args:
        model: the loaded model.
        info: loading info from ``from_pretrained`` with ``output_loading_info=True``.
        name: the checkpoint's name, for the error message.
    """
    kind = type(model).__name__
    if differing := sorted(info.get("mismatched_keys", ())):
        key, theirs, ours = differing[0]
        raise JudgeDecodingError(
            f"The weights of {name} do not fit its configuration: {key} is {_shape(theirs)} and {kind} wants "
            f"{_shape(ours)}{_and_more(differing)}; {_REMEDY}"
        )
    if missing := sorted(_missing(model, info.get("missing_keys", ()))):
        raise JudgeDecodingError(
            f"{name} lacks weights of {kind}, and they would be random: {missing[0]}{_and_more(missing)}; {_REMEDY}"
        )
    if left := sorted(key for key in info.get("unexpected_keys", ()) if _belongs_inside(model, key)):
        raise JudgeDecodingError(
            f"{name} has weights that {kind} does not use, so they would be ignored: {left[0]}"
            f"{_and_more(left)}; {_REMEDY}"
        )


def check_finite(model: nn.Module, name: str) -> None:
    """Check that no weight is NaN or infinite, and no buffer NaN (masks may be infinite).

    It reads the weights once, without a copy, and synchronises once per device. Integers, 8-bit floats and tensors on
    disk are not checked; the scales of quantised weights are.
    """
    names: list[str] = []
    found: dict[torch.device, list[Tensor]] = {}
    order: dict[torch.device, list[str]] = {}
    for key, tensor, finite in _tensors(model):
        lowest, highest = torch.aminmax(tensor.detach())
        bad = ~(lowest.isfinite() & highest.isfinite()) if finite else lowest.isnan()
        found.setdefault(tensor.device, []).append(bad)
        order.setdefault(tensor.device, []).append(key)
    for device, flags in found.items():
        bad_ones = torch.stack(flags).tolist()
        names += [key for key, bad in zip(order[device], bad_ones, strict=True) if bad]
    if names:
        raise JudgeDecodingError(
            f"Weights of {name} are not finite numbers: {names[0]}{_and_more(names)}; fetch or save the model again, "
            "or choose a dtype in which they fit."
        )


_REMEDY = "fetch or save it again, or use the config.json that belongs to these weights."


def _missing(model: PreTrainedModel, keys: Iterable[str]) -> Iterator[str]:
    """Yield the missing keys that leave weights random.

    A quantised layer may lack some of its tensors (zero points, activation scales), but not all.
    """
    buffers = {key for key, _ in model.named_buffers()}
    absent = [key for key in keys if key not in buffers]
    if not _is_quantised(model):
        yield from absent
        return
    everything: dict[str, set[str]] = {}
    for key in model.state_dict():
        everything.setdefault(key.rpartition(".")[0], set()).add(key)
    for key in absent:
        if everything.get(key.rpartition(".")[0], set()) <= set(absent):
            yield key


def _belongs_inside(model: PreTrainedModel, key: str) -> bool:
    """Whether an unexpected key belongs to the model's computation.

    It does not if it belongs to a part that the model lacks as a whole. It does if it is a further layer in a list of
    layers, or an extra weight in one of them.
    """
    module: nn.Module = model
    *parents, last = key.split(".")
    inside = False
    for part in parents:
        child = dict(module.named_children()).get(part)
        if child is None:
            if isinstance(module, nn.ModuleList) and part.isdecimal():
                return not _predicts_further(model, int(part), len(module))
            return inside and not _is_quantised(model)
        inside = inside or isinstance(module, nn.ModuleList)
        module = child
    if _is_quantised(model) or (last in _OLD_BUFFERS and dict(module.named_children())):
        return False
    return inside or not dict(module.named_children())


def _predicts_further(model: PreTrainedModel, number: int, layers: int) -> bool:
    """Whether layer ``number`` after the model's own layers predicts further tokens (MTP), according to its config."""
    config = model.config.get_text_config()
    more = getattr(config, "num_nextn_predict_layers", None) or getattr(config, "mtp_num_hidden_layers", None) or 0
    return number < layers + int(more)


def _is_quantised(model: PreTrainedModel) -> bool:
    return getattr(model, "hf_quantizer", None) is not None


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield names, floating-point tensors, and whether infinite values are also errors."""
    for key, parameter in model.named_parameters():
        yield from ((key, tensor, True) for tensor in _plain(parameter))
    for key, buffer in model.named_buffers():
        yield from ((key, tensor, False) for tensor in _plain(buffer))


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors that a tensor consists of; a quantised tensor has several."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            inner = getattr(tensor, name)
            if isinstance(inner, Tensor):
                yield from _plain(inner)
    elif tensor.dtype in _FLOATS and tensor.numel() and tensor.device.type != "meta":
        yield tensor


def _and_more(names: Collection[object]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))
