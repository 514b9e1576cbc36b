"""Load models and tokenizers from the Hub or a folder, with errors a user can act on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.decoding.choices import AnyDraft
from judge_decoding.decoding.drafters import named_drafter
from judge_decoding.decoding.drafters.translation import TranslatingDraft
from judge_decoding.errors import JudgeDecodingError, reason
from judge_decoding.io.files import parse_json, read_text
from judge_decoding.io.hub import ModelLocation, locate
from judge_decoding.loading.adapters import WITHOUT, Adapter, can_do_without, find_adapter
from judge_decoding.loading.weights import check_complete, check_depth, check_finite_weights, check_quantization
from judge_decoding.models.draft_vocabulary import FILE, cut_head, read_vocabulary
from judge_decoding.names import embedded_path, is_drafter

AUTO = "auto"
"""The device name that divides the model over all GPUs, and main memory if they are too small."""

ACCESS = frozenset({"cache_dir", "force_download", "local_files_only", "proxies", "token", "trust_remote_code"})
"""Options about access, for models and tokenizers of target and draft."""
PLACE = frozenset({"code_revision", "gguf_file", "revision", "subfolder"})
"""Options about the location within a repository, for the target's model and tokenizer."""
TOKENIZER = frozenset({"add_prefix_space", "fix_mistral_regex", "from_slow", "legacy", "tokenizer_type", "use_fast"})
"""Options for tokenizers only, of target and draft, which must have the same tokens."""
MACHINE = frozenset(
    "allow_all_kernels attn_implementation device device_map disable_mmap dtype experts_implementation "
    "low_cpu_mem_usage max_memory offload_buffers offload_folder quantization_config torch_dtype use_kernels "
    "use_safetensors weights_only".split()
)
"""Options about the machine and about trusted files, for target and draft."""

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "tekken.json",
)  # fmt: skip
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def default_device() -> str:
    """Return the default device: a GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def draft_device(device: str | None) -> str | None:
    """Return the draft's device if the target is on ``device``; with a divided target, the draft is on one GPU."""
    return default_device() if device == AUTO else device


def load_model(name_or_path: str | Path, *, device: str | None = None, **kwargs: Any) -> PreTrainedModel:  # noqa: ANN401  (passed on)
    """Load a causal LM in evaluation mode, from safetensors only, with all its weights and without custom code.

    A folder or repository with a LoRA adapter stands for its base model with the adapter.

    Args:
        name_or_path: Hub name or folder; "reference" and "reference-draft" are the embedded models.
        device: the device; "auto" divides the model over all GPUs and requires accelerate, as ``device_map`` does.
        kwargs: passed to ``AutoModelForCausalLM.from_pretrained``. ``use_safetensors=False`` also reads pickles
            (``.bin``), and ``trust_remote_code=True`` runs custom code of the model.
    """
    if device == AUTO:
        if find_spec("accelerate") is None:
            raise JudgeDecodingError(
                "Splitting a model over several devices needs accelerate; install it with: pip install accelerate, "
                "or choose one device."
            )
        device, kwargs["device_map"] = None, "auto"
    if device is not None:
        _check_device(device)
    name = embedded_path(name_or_path, "target")
    kwargs = {key: value for key, value in kwargs.items() if key not in TOKENIZER} | _trust(kwargs)
    kwargs.setdefault("use_safetensors", True)  # other weight files are pickles, which can run code
    source, rest = _located(name, "model", kwargs)
    _check_generation_config(source)
    adapter = None if rest.get("gguf_file") else find_adapter(source)
    try:
        model = _load(source, rest) if adapter is None else _load_with(adapter, rest, str(name))
        if device is not None:
            model.to(torch.device(device))  # type: ignore[arg-type]  # the decorated signature loses its self
    except JudgeDecodingError:
        raise
    except Exception as error:  # quantisation libraries and custom code raise any exception
        raise _cannot_load_model(source, str(name), error, rest) from error
    check_finite_weights(model, str(name))
    model.eval().requires_grad_(False)
    return model


def _check_device(device: str) -> None:
    """Check that the device exists before a model is loaded."""
    try:
        if torch.empty(1, device=device).is_meta:
            raise ValueError("it holds no numbers")
    except Exception as error:  # device libraries raise their own exceptions
        raise JudgeDecodingError(
            f"The device {device} cannot be used ({reason(error)}); choose another one, such as cpu."
        ) from error


def _check_generation_config(source: ModelLocation) -> None:
    """Check that a folder's generation configuration can be read, as transformers ignores a damaged file."""
    path = Path(source.name_or_path, "generation_config.json")
    if not source.is_folder or not path.is_file():
        return
    try:
        good = isinstance(parse_json(read_text(path, "the generation configuration")), dict)
    except ValueError:
        good = False
    if not good:
        raise JudgeDecodingError(f"{path} is damaged; fetch or save it again, or remove it.")


def _load(source: ModelLocation, kwargs: Mapping[str, Any]) -> PreTrainedModel:
    if source.is_folder:
        check_depth(Path(source.name_or_path))
    wanted = {**WITHOUT, **source.options, **kwargs, "output_loading_info": True}
    # Weights of another shape become random only if the caller asks for it; otherwise our own error names them.
    insisted = wanted.get("ignore_mismatched_sizes", False)
    wanted["ignore_mismatched_sizes"] = True
    loaded = AutoModelForCausalLM.from_pretrained(source.name_or_path, **wanted)
    model: PreTrainedModel
    model, info = loaded if isinstance(loaded, tuple) else (loaded, {})
    check_quantization(model, source.name_or_path)
    check_complete(model, info | ({"mismatched_keys": ()} if insisted else {}), source.name_or_path)
    return model


def _load_with(adapter: Adapter, kwargs: Mapping[str, Any], name: str) -> PreTrainedModel:
    if find_spec("peft") is None:
        raise JudgeDecodingError(f"{name} is an adapter, which needs peft; install it with: pip install peft.")
    if adapter.base is None and not can_do_without(adapter.source):
        return _load(adapter.source, {**kwargs, "adapter_kwargs": {}})
    model = _load(_base_of(adapter) if adapter.base else adapter.source, kwargs)
    adapter.put_into(model, name, use_safetensors=kwargs["use_safetensors"] is not False)
    return model


def _base_of(adapter: Adapter) -> ModelLocation:
    """Locate an adapter's base model; the adapter's revision and subfolder do not apply to it."""
    options = {key: value for key, value in adapter.source.options.items() if key in ACCESS}
    if adapter.revision:
        options["revision"] = adapter.revision
    return locate(adapter.base or "", f"model that the adapter {adapter.source.name_or_path} is for,", options)


def load_tokenizer(name_or_path: str | Path, **kwargs: Any) -> PreTrainedTokenizerBase:  # noqa: ANN401  (passed on)
    """Load a tokenizer; an adapter without a tokenizer uses that of its base model.

    ``kwargs`` are passed to ``AutoTokenizer.from_pretrained``; custom code runs only with ``trust_remote_code=True``.
    """
    name = embedded_path(name_or_path, "target")
    source, rest = _located(name, "tokenizer", kwargs | _trust(kwargs))
    if not rest.get("gguf_file"):
        adapter = find_adapter(source)
        if adapter is not None and adapter.base and not any(map(source.has, _TOKENIZER_FILES)):
            source = _base_of(adapter)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.name_or_path, **source.options, **rest
        )
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise cannot_load("tokenizer", str(name), error) from error
    return tokenizer


def _trust(kwargs: Mapping[str, Any]) -> dict[str, bool]:
    """Return an explicit ``trust_remote_code``, False by default: without it transformers prompts on standard input."""
    return {"trust_remote_code": bool(kwargs.get("trust_remote_code", False))}


_READING = ACCESS - {"trust_remote_code"} | {"revision", "subfolder"}


def _located(name: str | Path, what: str, kwargs: Mapping[str, Any]) -> tuple[ModelLocation, dict[str, Any]]:
    reading = {key: value for key, value in kwargs.items() if key in _READING and value is not None}
    rest = {key: value for key, value in kwargs.items() if key not in _READING}
    return locate(name, what, reading), rest


def cannot_load(what: str, name: str, error: Exception) -> JudgeDecodingError:
    """Return the error for a model or tokenizer that cannot be loaded, with the first line of the cause."""
    if "trust_remote_code" in str(error):
        return JudgeDecodingError(
            f"Cannot load the {what} {name}: it comes with code of its own, which the command line never runs; read "
            "it and, if you trust it, load it from Python with JudgeDecoder.from_pretrained(..., "
            "trust_remote_code=True)."
        )
    why = reason(error)
    if isinstance(error, torch.OutOfMemoryError):
        return JudgeDecodingError(
            f"Cannot load the {what} {name}: {why}; free memory, or choose another device, device='auto' or a "
            "smaller dtype."
        )
    if isinstance(error, ImportError):
        return JudgeDecodingError(f"Cannot load the {what} {name}: {why}; install what is missing.")
    if isinstance(error, TypeError) and "unexpected keyword argument" in why:
        option = why.rpartition(" ")[2]
        return JudgeDecodingError(f"Cannot load the {what} {name}: there is no option {option}; check its spelling.")
    remedy = next((remedy for part, remedy in _REMEDIES.items() if part in str(error)), _CHECK)
    return JudgeDecodingError(f"Cannot load the {what} {name}: {why}; {remedy}.")


_CHECK = "check the name, and that its files are there and whole"
_REMEDIES = {
    "does not recognize this architecture": "update transformers if the model is newer, or use another one",
    "Unrecognized configuration class": "use a decoder-only language model",
    "Failed to find class": "update torchao if the quantisation is newer, or use another checkpoint",
}
"""What to do about errors of transformers and torchao, by a part of their messages."""


def _cannot_load_model(
    source: ModelLocation, name: str, error: Exception, kwargs: Mapping[str, Any]
) -> JudgeDecodingError:
    """Return `cannot_load`, with a remedy if the weights are not safetensors."""
    pickled = isinstance(error, OSError) and kwargs["use_safetensors"] and not kwargs.get("gguf_file")
    if not pickled or not any(map(source.has, _PICKLES)):
        return cannot_load("model", name, error)
    new = (
        source.name_or_path if source.is_folder else Path(name).name
    )  # in place, or in a new folder with the tokenizer
    classes = ["AutoModelForCausalLM"] if source.is_folder else ["AutoModelForCausalLM", "AutoTokenizer"]
    steps = [
        f"{one}.from_pretrained({json.dumps(source.name_or_path)}{', use_safetensors=False' if 'Model' in one else ''})"
        f".save_pretrained({json.dumps(new)})"
        for one in classes
    ]
    program = "; ".join([f"from transformers import {', '.join(classes)}", *steps])
    return JudgeDecodingError(
        f"Cannot load the model {name}: its weights are pickles (.bin), which are not read as they can run code; if "
        f"you trust them, convert them to safetensors with: python -c {shlex.quote(program)}"
        f"{'' if source.is_folder else f' and name the folder {Path(name).name}'}, or pass use_safetensors=False."
    )


def check_same_vocabulary(target: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase) -> None:
    """Check that draft and target have the same vocabulary."""
    ours, theirs = target.get_vocab(), draft.get_vocab()
    if ours != theirs:
        differing = sum(theirs.get(token) != index for token, index in ours.items())
        raise JudgeDecodingError(
            f"Target and draft have different vocabularies ({len(ours)} and {len(theirs)} tokens, {differing} of the "
            "target's mean something else to the draft); use a draft of the same family, or translate the draft's "
            "text with translate=True (--translate)."
        )


def load_draft(
    name_or_path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    translate: bool = False,
    **kwargs: Any,  # noqa: ANN401  (passed on)
) -> PreTrainedModel | TranslatingDraft:
    """Load a draft for a target with this ``tokenizer``.

    Args:
        name_or_path: Hub name or folder; "reference" is the embedded draft.
        tokenizer: the target's tokenizer.
        translate: translate through text if the draft has another vocabulary.
        kwargs: see `load_model`; ``device`` is the target's, see `draft_device`. The draft's tokenizer gets its part.
    """
    name = embedded_path(name_or_path, "draft")
    if "device" in kwargs:
        kwargs["device"] = draft_device(kwargs["device"])
    own = load_tokenizer(name, **tokenizer_options(kwargs))
    if translate and own.get_vocab() != tokenizer.get_vocab():
        return TranslatingDraft(_load_draft_model(name, kwargs), own, tokenizer)
    check_same_vocabulary(tokenizer, own)
    return _load_draft_model(name, kwargs)


def _load_draft_model(name: str | Path, kwargs: Mapping[str, Any]) -> PreTrainedModel:
    """Load a draft model, and cut its output head to its draft vocabulary if it has one."""
    model = load_model(name, **kwargs)
    path = _located(name, "draft", kwargs)[0].file(FILE)
    if path is not None:
        cut_head(model, read_vocabulary(path, model))
    return model


def as_draft(
    draft: str | Path | AnyDraft | None,
    tokenizer: Callable[[], PreTrainedTokenizerBase],
    *,
    translate: bool = False,
    draft_kwargs: Mapping[str, Any] | None = None,
    **kwargs: Any,  # noqa: ANN401  (passed on)
) -> AnyDraft | None:
    """Return the draft, loading it by name or, for names such as "prompt-lookup", constructing it.

    Args:
        draft: a name or folder, or the draft itself.
        tokenizer: returns the target's tokenizer; called only if needed.
        translate: as for `load_draft`.
        draft_kwargs: options for loading this draft; they override ``kwargs``.
        kwargs: options for loading the target; `draft_options` selects those that also apply to the draft.
    """
    if isinstance(draft, str | Path) and not is_drafter(draft):
        options = draft_options(draft, kwargs, draft_kwargs or {})
        return load_draft(draft, tokenizer(), translate=translate, **options)
    if draft_kwargs:
        raise JudgeDecodingError("draft_kwargs are for loading a draft by name; leave them out.")
    return named_drafter(str(draft)) if isinstance(draft, str | Path) else draft


def tokenizer_options(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for loading a model that also apply to its tokenizer."""
    own = {key: value for key, value in kwargs.items() if key in ACCESS | PLACE | TOKENIZER}
    if isinstance(kwargs.get("config"), PreTrainedConfig):
        own["config"] = kwargs["config"]
    return own


def draft_options(name: str | Path, kwargs: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options for loading a draft whose target is loaded with ``kwargs``; its ``own`` take precedence.

    Options about access, the tokenizer or the machine apply to both; options about locations in the target's repository
    or its configuration apply to the target only. The exception is a ``subfolder`` that the draft also has. With a
    ``device_map`` that names the target's modules, the whole draft is on one device.
    """
    options = {key: value for key, value in kwargs.items() if key in ACCESS | TOKENIZER | MACHINE}
    if isinstance(options.get("device_map"), dict) and set(options["device_map"]) != {""}:
        del options["device_map"]
        options.setdefault("device", default_device())
    if own.keys() & {"device", "device_map"}:
        options = {key: value for key, value in options.items() if key not in ("device", "device_map")}
    subfolder = kwargs.get("subfolder")
    if subfolder and "subfolder" not in own:
        root, _ = _located(embedded_path(name, "draft"), "draft", {**options, **own})
        if root.is_folder:
            there = Path(root.name_or_path, subfolder).is_dir()
        else:
            inside = ModelLocation(root.name_or_path, {**root.options, "subfolder": subfolder})
            there = inside.has("config.json")
        options |= {"subfolder": subfolder} if there else {}
    return options | dict(own)
