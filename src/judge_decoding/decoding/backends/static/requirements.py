"""What a model must be like to be compiled; checked before it is, as compiling takes a while and errors say little."""

from __future__ import annotations

import os
import shutil
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache, PreTrainedModel

from judge_decoding.decoding.backends.static.graphs import read
from judge_decoding.decoding.backends.static.masks import IMPLEMENTATIONS
from judge_decoding.decoding.backends.static.quantized import check_weights
from judge_decoding.decoding.backends.static.slots import new_cache
from judge_decoding.errors import CannotCompileError, reason
from judge_decoding.models.abilities import FAILURES, abilities, probe_sequence, same_logits
from judge_decoding.models.context import rope_border
from judge_decoding.models.draft_vocabulary import compact
from judge_decoding.models.forward import Forward, row_positions, undisturbed

_PLAIN_LAYERS = {
    (DynamicCache.__module__, name) for name in ("DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer")
}
"""Caches with a key and a value for each token; the last is that of layers that read another layer's."""

_CHECKED: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()


def check_compiles(model: PreTrainedModel) -> None:
    """Raise `CannotCompileError` for whatever can be found before a model is compiled.

    That is an unsupported cache or attention, several devices, or no C++ compiler for the CPU.
    """
    name = type(model).__name__
    devices = {parameter.device for parameter in model.parameters()}
    can = abilities(model)
    if why := can.cannot_read or can.cannot_rewind or _unlike_slots(model):
        raise CannotCompileError(f"{name} has no plain KV cache ({why})")
    if rope_border(model) is not None:
        raise CannotCompileError(f"the rotary positions of {name} change their scale with the sequence's length")
    implementation = model.config.get_text_config()._attn_implementation
    if implementation not in IMPLEMENTATIONS:
        raise CannotCompileError(
            f'{name} was loaded with attn_implementation="{implementation}", not with "sdpa" or "eager"'
        )
    if len(devices) > 1 or getattr(model, "hf_device_map", None):
        raise CannotCompileError(f"{name} is spread over several devices")
    compilers = [os.environ.get("CXX", "g++"), "c++", "g++", "clang++"]
    if devices == {torch.device("cpu")} and not any(shutil.which(compiler) for compiler in compilers):
        raise CannotCompileError("there is no C++ compiler (g++ or clang)")
    check_weights(model)
    if model not in _CHECKED:
        _CHECKED[model] = _unlike_plain(model)
    if why := _CHECKED[model]:
        raise CannotCompileError(f"{name} cannot be compiled: {why}")


def _unlike_slots(model: PreTrainedModel) -> str:
    """Return why tokens cannot lie at the column of their position, according to the cache."""
    layers = DynamicCache(config=model.config).layers
    if abilities(model).rewind == "restore":
        return "it has recurrent layers"
    if not layers or not all((type(one).__module__, type(one).__name__) in _PLAIN_LAYERS for one in layers):
        return "its KV cache has layers of another kind"
    return "" if Forward(model).takes_positions else "its forward takes no positions"


def _unlike_plain(model: PreTrainedModel) -> str:
    """Return why a forward pass over such a cache gives other logits than a plain one; empty if it does not.

    Two rows at different positions read a few tokens, after others and in place of rejected ones.
    """
    ids = probe_sequence(model)
    size = len(ids)
    half, wrong = size // 2, ids.flip(0)
    columns = torch.arange(size + 2, device=ids.device)
    try:
        with undisturbed(model), compact(model):
            whole = Forward(model)(ids[None], positions=row_positions(0, size, ids.device))[0].float()
            cache = new_cache(model, 2, len(columns))
            first = torch.stack((ids[: size - 3], torch.cat((ids[:half], wrong[half : size - 3]))))
            read(model, torch.zeros(2, dtype=torch.long, device=ids.device), first, columns, cache, 1)
            starts = torch.tensor([size - 3, half], device=ids.device)
            last = torch.stack((ids[size - 3 :], ids[half : half + 3]))
            found = read(model, starts, last, columns, cache, torch.arange(3, device=ids.device)).float()
    except CannotCompileError as error:
        return str(error)
    except FAILURES as error:
        return f"with a preallocated KV cache it fails ({reason(error)})"
    wanted = whole[size - 3 :], whole[half : half + 3]
    if all(same_logits(model, expected, logits) for expected, logits in zip(wanted, found, strict=True)):
        return ""
    return "with a preallocated KV cache its logits differ from those of a plain forward pass"
