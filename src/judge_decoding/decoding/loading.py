"""Loading models and tokenizers from the Hub or a folder, with errors a user can act on."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from judge_decoding.decoding.translation import TranslatingDraft
from judge_decoding.errors import JudgeDecodingError

AUTO = "auto"
"""For a device: divide the model over all GPUs, and the memory of the machine where they are too small."""


def usual_device() -> str:
    """Where a model goes if nobody says: a GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def draft_device(device: str | None) -> str | None:
    """Where the draft goes if its target goes to ``device``: one that is divided leaves the draft on one GPU, whole."""
    return usual_device() if device == AUTO else device


def load_model(name_or_path: str, *, device: str | None = None, **kwargs: Any) -> PreTrainedModel:  # noqa: ANN401  (passed on)
    """Load a causal LM in evaluation mode, from safetensors only.

    Args:
        name_or_path: Hub name or folder.
        device: where to put it; "auto" divides it over all GPUs, and needs accelerate, as ``device_map`` does.
        kwargs: given to ``AutoModelForCausalLM.from_pretrained``.

    Raises:
        JudgeDecodingError: there is no such model, its files are damaged, it is no causal LM, the device is unknown,
            or accelerate is not there to divide the model.
    """
    if device == AUTO:
        if find_spec("accelerate") is None:
            raise JudgeDecodingError(
                "Dividing a model over several devices needs accelerate; install it with: pip install accelerate, or "
                "name one device."
            )
        device, kwargs["device_map"] = None, "auto"
    kwargs.setdefault("use_safetensors", True)  # other weight files are pickles, which can run code
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name_or_path, **kwargs)
        if device is not None:
            model.to(torch.device(device))  # type: ignore[arg-type]  # the decorated signature loses its self
    except (OSError, ValueError, SafetensorError, RuntimeError, AssertionError) as error:
        raise cannot_load("model", name_or_path, error) from error
    model.eval().requires_grad_(False)
    return model


def load_tokenizer(name_or_path: str, **kwargs: Any) -> PreTrainedTokenizerBase:  # noqa: ANN401  (passed on)
    """Load a tokenizer; ``kwargs`` go to ``AutoTokenizer.from_pretrained``.

    Raises:
        JudgeDecodingError: there is none, or its files are damaged.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name_or_path, **kwargs)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise cannot_load("tokenizer", name_or_path, error) from error
    return tokenizer


def cannot_load(what: str, name: str, error: Exception) -> JudgeDecodingError:
    """The sentence about a model or tokenizer that cannot be loaded, with the first line of what is wrong."""
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(".") if lines else type(error).__name__
    return JudgeDecodingError(
        f"Cannot load the {what} {name}: {reason}; check the name, and that its files are there and whole."
    )


def check_same_vocabulary(target: PreTrainedTokenizerBase, draft: PreTrainedTokenizerBase) -> None:
    """Check that a draft's tokens mean the same to the target.

    Raises:
        JudgeDecodingError: the two vocabularies differ.
    """
    ours, theirs = target.get_vocab(), draft.get_vocab()
    if ours != theirs:
        differing = sum(theirs.get(token) != index for token, index in ours.items())
        raise JudgeDecodingError(
            f"Target and draft have different vocabularies ({len(ours)} and {len(theirs)} tokens, {differing} of the "
            "target's mean something else to the draft); use a draft of the same family, or draft by its "
            "text with translate=True (--translate)."
        )


def load_draft(
    name_or_path: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    translate: bool = False,
    **kwargs: Any,  # noqa: ANN401  (passed on)
) -> PreTrainedModel | TranslatingDraft:
    """Load a draft for a target with this ``tokenizer``.

    Args:
        name_or_path: Hub name or folder.
        tokenizer: the target's.
        translate: go through the text if the draft has another vocabulary.
        kwargs: see `load_model`; ``device`` is the target's, see `draft_device`.

    Raises:
        JudgeDecodingError: it cannot be loaded, or has another vocabulary and is not to be translated.
    """
    if "device" in kwargs:
        kwargs["device"] = draft_device(kwargs["device"])
    own = load_tokenizer(name_or_path)
    if translate and own.get_vocab() != tokenizer.get_vocab():
        return TranslatingDraft(load_model(name_or_path, **kwargs), own, tokenizer)
    check_same_vocabulary(tokenizer, own)
    return load_model(name_or_path, **kwargs)
