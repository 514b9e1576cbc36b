"""Checks that the loaded weights are those of the model: complete, without extra weights, and finite.

``from_pretrained`` initialises missing weights at random, with a warning at most.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers import __version__ as version

from judge_decoding.bounds import check_bound
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_bytes
from judge_decoding.models.weights import FLOATS, plain_tensors

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


def check_quantization(model: PreTrainedModel, name: str) -> None:
    """Check that transformers has read the quantisation of a model's checkpoint, called ``name``.

    It skips a method that it does not know, with a warning, and takes the stored numbers for weights.
    """
    for config in (model.config, model.config.get_text_config()):
        skipped = getattr(config, "quantization_config", None)
        if isinstance(skipped, Mapping) and not _has_quantizer(model):  # otherwise it is an object by now
            raise JudgeDecodingError(
                f"{name} is quantised by {str(skipped.get('quant_method'))[:40]}, which transformers {version} does "
                "not read; use the checkpoint that is not quantised, or one quantised by another method, such as "
                "torchao."
            )


def check_complete(model: PreTrainedModel, info: Mapping[str, Collection[Any]], name: str) -> None:
    """Check that all weights of a model come from its checkpoint, called ``name``, and that both are the same model.

    ``info`` is the loading info of ``from_pretrained``. It already excludes tied weights and weights that the model's
    class allows to be missing or left over. Buffers may be missing: the model computes them. Parts of a checkpoint
    outside the model may be left over: a vision tower, a value head, layers that predict further tokens.
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


def check_finite_weights(model: nn.Module, model_name: str) -> None:
    """Check that no weight is NaN or infinite, and no buffer NaN (masks may be infinite).

    It reads the weights once, without a copy, and synchronises once per device. Integers, 8-bit floats and tensors on
    disk are not checked; the scales of quantised weights are.
    """
    flags: defaultdict[torch.device, dict[str, Tensor]] = defaultdict(dict)
    parameters = dict(model.named_parameters())
    for key, value in (*parameters.items(), *model.named_buffers()):
        for name, part in plain_tensors(key, value):
            tensor = part.to_local() if isinstance(part, DTensor) else part
            if tensor.dtype in FLOATS and tensor.numel() and not tensor.is_meta:
                lowest, highest = torch.aminmax(tensor)
                bad = ~(lowest.isfinite() & highest.isfinite()) if key in parameters else lowest.isnan()
                flags[tensor.device][name] = bad
    names: list[str] = []
    for bad_by_name in flags.values():
        bad_ones = torch.stack(list(bad_by_name.values())).tolist()
        names += [name for name, bad in zip(bad_by_name, bad_ones, strict=True) if bad]
    if names:
        raise JudgeDecodingError(
            f"Weights of {model_name} are not finite numbers: {names[0]}{_and_more(names)}; fetch or save the model "
            "again, or choose a dtype in which they fit."
        )


_REMEDY = "fetch or save it again, or use the config.json that belongs to these weights."


def _missing(model: PreTrainedModel, keys: Iterable[str]) -> Iterator[str]:
    """Yield the missing keys that leave weights random.

    A quantised layer may lack some of its tensors (zero points, activation scales), but not all.
    """
    buffers = {key for key, _ in model.named_buffers()}
    absent = [key for key in keys if key not in buffers]
    if not _has_quantizer(model):
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
            return inside and not _has_quantizer(model)
        inside = inside or isinstance(module, nn.ModuleList)
        module = child
    if _has_quantizer(model) or (last in _OLD_BUFFERS and dict(module.named_children())):
        return False
    return inside or not dict(module.named_children())


def _predicts_further(model: PreTrainedModel, number: int, layers: int) -> bool:
    """Whether layer ``number`` after the model's own layers predicts further tokens (MTP), according to its config."""
    config = model.config.get_text_config()
    more = getattr(config, "num_nextn_predict_layers", None) or getattr(config, "mtp_num_hidden_layers", None) or 0
    return number < layers + int(more)


def _has_quantizer(model: PreTrainedModel) -> bool:
    """Whether transformers loaded a quantised checkpoint; `is_quantized` also finds weights quantised afterwards."""
    return getattr(model, "hf_quantizer", None) is not None


def _and_more(names: Collection[object]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))
