"""A model's abilities in decoding, tested with a few short forward passes on first use.

The types of models and caches are not reliable: some caches claim to be croppable and are not, some models count the
columns of a cache instead of tokens. So a short sequence is read in all the ways that decoding will read it, and the
logits are compared with those of plain forward passes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from judge_decoding.errors import JudgeDecodingError, reason
from judge_decoding.models.cached_lm import CachedLM, Rewind
from judge_decoding.models.context import context_length, rope_border
from judge_decoding.models.draft_vocabulary import compact
from judge_decoding.models.forward import Forward, input_rows, row_positions, undisturbed
from judge_decoding.models.unwrap import unwrap

logger = logging.getLogger(__name__)

ModelRole = Literal["target", "draft"]

_LENGTH = 12
"""Length of the test sequence in tokens; longer if that crosses a short sliding window."""

_SHORTEST, _LONGEST = 8, 96
_ROUNDING, _ROUNDING_16, _QUANTIZED = 0.02, 0.5, 2.0
"""Largest allowed differences of logits, in their standard deviations: float32, 16 bits, quantised activations."""
_ALIKE = 1e-3
"""Above this, logits of tokens read at once and one by one differ by more than rounding."""

_WINDOWS = ("window", "window_size", "chunk_size")


@dataclass(frozen=True, slots=True)
class Abilities:
    """The abilities of a model in decoding; an empty reason means that the model has the ability.

    Attributes:
        cannot_read: why the model cannot be decoded from at all.
        cannot_rewind: why its KV cache cannot be rolled back; then it can be neither target nor draft model.
        cannot_batch: why rows of different lengths cannot share its forward passes.
        inexact: why a token's logits depend on the other tokens in the forward pass, as with quantised activations;
            answers may then differ from those without a draft.
        rewind: how the KV cache is rolled back; see `CachedLM`.
    """

    cannot_read: str = ""
    cannot_rewind: str = ""
    cannot_batch: str = ""
    inexact: str = ""
    rewind: Rewind = "crop"


_KNOWN: dict[tuple[Any, ...], Abilities] = {}
# Every answer needs several lookups, and computing the key visits all modules.
_OF_MODEL: WeakKeyDictionary[PreTrainedModel, Abilities] = WeakKeyDictionary()


def as_causal_lm(model: nn.Module, role: ModelRole = "target") -> PreTrainedModel:
    """Return the causal LM inside ``model``, unwrapped from ``torch.compile``, peft and data-parallel wrappers."""
    inner = unwrap(model)
    name = type(inner).__name__
    if not isinstance(inner, PreTrainedModel):
        raise JudgeDecodingError(f"The {role} is a {name}, which is not a transformers model; give a causal LM.")
    if getattr(inner.config, "is_encoder_decoder", False):
        raise JudgeDecodingError(
            f"{name} has an encoder, and judge decoding is for decoder-only models; use a decoder-only model as the "
            f"{role}."
        )
    if inner.get_output_embeddings() is None:
        raise JudgeDecodingError(
            f"{name} has no language-model head, so it predicts no tokens; load the {role} with AutoModelForCausalLM."
        )
    return inner


def abilities(model: PreTrainedModel) -> Abilities:
    """Return the abilities of ``model``; cached by class, configuration, data type and quantisation."""
    if (remembered := _OF_MODEL.get(model)) is not None:
        return remembered
    key = (
        type(model),
        json.dumps(model.config.to_dict(), sort_keys=True, default=str),
        model.dtype,
        frozenset(_quantizations(model)),
    )
    if key not in _KNOWN:
        with undisturbed(model), compact(model):
            found = _KNOWN[key] = _Check(model).run()
        if found.inexact:
            logger.warning(
                "%s: %s; greedy answers may differ from those without a draft.", type(model).__name__, found.inexact
            )
    _OF_MODEL[model] = _KNOWN[key]
    return _KNOWN[key]


def check_reads(model: PreTrainedModel, role: ModelRole = "target") -> None:
    """Check that ``model`` can decode token by token."""
    if why := abilities(model).cannot_read:
        raise JudgeDecodingError(f"{type(model).__name__} cannot be used as the {role}: {why}; use another model.")


def check_rewinds(model: PreTrainedModel, role: ModelRole = "target") -> None:
    """Check that the KV cache of ``model`` can be rolled back."""
    check_reads(model, role)
    if why := abilities(model).cannot_rewind:
        remedy = "decode without a draft" if role == "target" else "use another draft model"
        raise JudgeDecodingError(
            f"The KV cache of {type(model).__name__} cannot drop rejected tokens ({why}); {remedy}."
        )


def can_batch(model: PreTrainedModel) -> bool:
    """Whether rows of different lengths can share the forward passes of ``model``."""
    return not abilities(model).cannot_batch


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether ``model`` has quantised weights."""
    return getattr(model, "hf_quantizer", None) is not None or any(_quantizations(model))


def _quantizations(model: nn.Module) -> Iterator[str]:
    """Yield how each quantised layer of ``model`` is quantised, which its configuration need not say."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if type(weight).__module__.startswith("torchao"):
            yield f"{type(weight).__name__}, activations {getattr(weight, 'act_quant_kwargs', None)}"
        elif type(module).__module__.startswith(("torch.ao.nn.quantized", "torchao", "bitsandbytes")):
            yield type(module).__name__


class _Check:
    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._coarse = False
        self._rewind: Rewind = "crop"
        self._forward = Forward(model)
        self._windows = window_sizes(model)
        self._ids = probe_sequence(model)
        self._length = len(self._ids)

    def run(self) -> Abilities:
        """Read the sequence in all the ways that decoding does."""
        if self._forward.cache_name is None:
            return _cannot_read("its forward takes no KV cache")
        if self._length < _SHORTEST:
            short = f"its context of {self._length} tokens is too short"
            return Abilities(cannot_rewind=short, rewind="never", cannot_batch=short)
        try:
            self._whole = self._plain(self._length)
            causal = self._same(self._whole[: self._length // 2], self._plain(self._length // 2))
        except FAILURES as error:
            return _cannot_read(f"a forward pass over token ids fails ({reason(error)})")
        if not causal:
            return _cannot_read("the logits of a token depend on the tokens after it")
        if why := _try(self._can_read):
            return _cannot_read(why)
        why, rewind = _try(self._rewinds), self._rewind
        batch = why or self._plain_batch() or _try(self._batches)
        inexact = "its logits for a token depend on the tokens that are read with it" if self._coarse else ""
        return Abilities("", why, batch, inexact, "never" if why else rewind)

    def _plain(self, count: int) -> Tensor:
        ids = self._ids[None, :count]
        return self._forward(ids, positions=row_positions(0, count, ids.device))[0].float()

    def _can_read(self) -> str:
        """Return why reading a part and then single tokens differs from reading the whole; empty if it does not."""
        lm, half = CachedLM(self._model, rewind="never"), self._length // 2
        lm.read([self._ids[:half]], [0])
        found = [lm.read([self._ids[i : i + 1]], [1])[0] for i in (half, half + 1)]
        same = self._same(self._whole[half : half + 2], torch.cat(found))
        return "" if same else "it does not continue from what it has read"

    def _rewinds(self) -> str:
        """Return why rolled-back tokens leave a trace; empty if they do not."""
        lm, size = CachedLM(self._model, rewind=self._rewind), self._length
        wrong = self._ids.flip(0)
        for end in (1, size // 2, size - 2):
            lm.read([self._ids[lm.lengths[0] : end]], [0])
            if why := lm.cannot_crop:
                return why
            if self._rewind == "crop" and lm.is_recurrent:
                self._rewind = "restore"
                return _try(self._can_read_several) or self._rewinds()
            lm.checkpoint()
            lm.read([wrong[: min(3, size - end)]], [0])
            lm.rewind_to([end])
        found = lm.read([self._ids[size - 2 :]], [2])[0]
        same = self._same(self._whole[size - 2 :], found)
        return "" if same else "tokens after a rejected draft differ from those without it"

    def _can_read_several(self) -> str:
        """Return why reading several tokens at once after others differs from reading them one by one.

        Some recurrent layers use their states for single tokens only. In 16 bits both ways have rounding errors, and
        the differences may be as large as these.
        """
        half = self._length // 2
        lms = [CachedLM(self._model, rewind="never") for _ in range(2)]
        for lm in lms:
            lm.read([self._ids[:half]], [0])
        at_once = lms[0].read([self._ids[half:]], [self._length - half])[0]
        singly = torch.cat([lms[1].read([self._ids[i : i + 1]], [1])[0] for i in range(half, self._length)])
        whole = self._whole[half:]
        spread, apart = float(whole.std()), float((at_once - singly).std())
        if apart > max(3 * float((singly - whole).std()), _ROUNDING / 2 * spread):
            return "its recurrent layers continue from what they have read with single tokens only"
        if self._model.dtype == torch.float32 and not is_quantized(self._model) and apart > _ALIKE * spread:
            return "it computes a token that is read alone otherwise than tokens that are read together"
        return ""

    def _plain_batch(self) -> str:
        """Return why rows cannot share forward passes, according to cache and configuration."""
        layers = DynamicCache(config=self._model.config).layers
        if any(getattr(layer, "is_sliding", False) for layer in layers):
            return "it has layers with a sliding window"
        if not layers or not all(type(layer) is DynamicLayer for layer in layers):
            return "its KV cache has layers of another kind"
        if not self._forward.takes_positions:
            return "its forward takes no positions"
        return f"it looks back {min(self._windows)} columns of the cache" if self._windows else ""

    def _batches(self) -> str:
        """Return why rows of uneven growth, with padding in the middle, give other logits than each row alone."""
        lm, size = CachedLM(self._model, 2), self._length
        short = size // 2
        lm.read([self._ids[: size - 3], self._ids[: short - 2]], [0, 0])
        lm.read([self._ids[size - 3 : size - 2], self._ids.flip(0)[:3]], [0, 0])
        lm.rewind_to([size - 2, short - 2])
        long, other = lm.read([self._ids[size - 2 :], self._ids[short - 2 : short]], [2, 2])
        same = self._same(self._whole[size - 2 :], long) and self._same(self._whole[short - 2 : short], other)
        return "" if same else "a row with padding differs from the row alone"

    def _same(self, expected: Tensor, found: Tensor) -> bool:
        """Whether logits are equal up to rounding, which is larger in formats with fewer bits."""
        if same_logits(self._model, expected, found):
            return True
        if is_quantized(self._model) and _apart(expected, found) <= _QUANTIZED:
            self._coarse = True
            return True
        return False


# Exceptions that third-party code raises when it is called in an unexpected way.
FAILURES = (
    TypeError,
    ValueError,
    RuntimeError,
    AttributeError,
    IndexError,
    KeyError,
    AssertionError,
    NotImplementedError,
)


def _cannot_read(why: str) -> Abilities:
    return Abilities(why, why, why, rewind="never")


def _try(check: Callable[[], str]) -> str:
    """Return why a check fails; an empty string if it passes."""
    try:
        return check()
    except FAILURES as error:
        return f"it fails ({reason(error)})"


def window_sizes(model: PreTrainedModel) -> Sequence[int]:
    """Return the window sizes in the configuration of ``model`` that are smaller than its context length.

    There are none if every layer is said to attend to all tokens.
    """
    config, context = model.config.get_text_config(), context_length(model)
    if set(getattr(config, "layer_types", None) or ()) == {"full_attention"}:
        return []
    return [
        value
        for name, value in config.to_dict().items()
        if name.endswith(_WINDOWS)
        and isinstance(value, int)
        and not isinstance(value, bool)
        and 0 < value < (context or 2**31)
    ]


def probe_sequence(model: PreTrainedModel) -> Tensor:
    """Return token ids [T] that cross the windows of ``model`` if these are short, within its context length."""
    length = max([_LENGTH, *(window + 6 for window in window_sizes(model) if window + 6 <= _LONGEST)])
    if (context := context_length(model)) is not None:
        length = min(length, context)
    if (border := rope_border(model)) is not None:
        length = min(length, border.length)
    size = min(input_rows(model), model.config.get_text_config().vocab_size)
    # Spread over the vocabulary, and never the same token twice in a row.
    return torch.tensor([(7 * i * i + 5 * i + 3) % size for i in range(length)], device=model.device)


def same_logits(model: PreTrainedModel, expected: Tensor, found: Tensor) -> bool:
    """Whether logits of ``model`` are equal up to rounding, which is larger in formats with fewer bits."""
    if not bool(expected.isfinite().all()):
        return True  # undecidable; decoding raises an error for logits that are not finite
    return _apart(expected, found) <= (_ROUNDING if model.dtype == torch.float32 else _ROUNDING_16)


def _apart(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max() / expected.std().clamp(min=1e-6))
