"""A causal language model with its cache: read tokens, take tokens back."""

from __future__ import annotations

import inspect
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from judge_decoding.errors import JudgeDecodingError

Norm = Literal["before", "after"]
"""Where a hidden state is taken: before or after the model's final norm."""

_FINAL_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "norm_f", "final_norm", "embedding_norm")


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm between the last layer and the language-model head.

    Raises:
        JudgeDecodingError: the model's decoder has no norm of a known name.
    """
    decoder = model.get_decoder()
    for name in _FINAL_NORMS:
        module = getattr(decoder, name, None)
        if isinstance(module, nn.Module):
            return module
    raise JudgeDecodingError(
        f"{type(model).__name__} has no final norm of a known name ({', '.join(_FINAL_NORMS)}), "
        "so a judge cannot find its hidden states; use a decoder-only model with one."
    )


class HiddenTap:
    """Catches the last hidden states of each forward of ``model`` while it is open.

    The states are taken at the final norm, so they are there for every position whatever
    ``logits_to_keep`` says, and cost nothing. ``states`` is [B, T, H] in the model's dtype.
    """

    def __init__(self, model: PreTrainedModel, norm: Norm) -> None:
        self._module, self._norm = final_norm(model), norm
        self._states: Tensor | None = None
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def __enter__(self) -> Self:
        def catch(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._states = inputs[0] if self._norm == "before" else output

        self._hook = self._module.register_forward_hook(catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._states = None

    @property
    def states(self) -> Tensor:
        """The states of the latest forward [B, T, H]."""
        if self._states is None:
            raise RuntimeError("no forward has run since the tap was opened")
        return self._states


class CachedLM:
    """A causal LM and the cache of one sequence.

    The cache holds the first ``length`` tokens of the sequence. `read` appends tokens to it, `rewind_to`
    takes the last ones back, so that a rejected draft leaves no trace.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._cache = DynamicCache(config=model.config)
        self._cache.activate_past_recording()
        # The Mamba family has its own name for it.
        names = inspect.signature(model.forward).parameters
        self._argument = "cache_params" if "cache_params" in names else "past_key_values"
        self.length = 0

    def read(self, ids: Tensor, keep: int) -> Tensor:
        """Append ``ids`` [1, T] to the cache; the logits of the last ``keep`` positions, float32 [1, keep, V].

        Raises:
            JudgeDecodingError: the model has no cache, or one of its own making.
        """
        output = self.model(input_ids=ids, use_cache=True, logits_to_keep=keep, **{self._argument: self._cache})
        if output.get(self._argument) is not self._cache:
            raise JudgeDecodingError(
                f"{type(self.model).__name__} does not keep what it read in transformers' usual cache; "
                "use another model."
            )
        self.length += ids.shape[1]
        logits: Tensor = output.logits
        return logits[:, -keep:].float()

    def rewind_to(self, length: int) -> None:
        """Take back all tokens from position ``length`` on; a shorter cache keeps all of its tokens."""
        if self.length == 0:
            return
        back = max(self.length - length, 0)
        # A count of 0 also goes through: it trims what sliding-window and recurrent layers recorded to go back to.
        self._cache.crop(-back)
        self.length -= back

    def check_rewinds(self) -> None:
        """Check, after the prefill, that this model's cache can take tokens back.

        Raises:
            JudgeDecodingError: it cannot, as with recurrent (state-space, linear attention) layers.
        """
        if self.length and not self._cache.is_croppable:
            raise JudgeDecodingError(
                f"The cache of {type(self.model).__name__} cannot take rejected tokens back (it has recurrent layers); "
                "use a model with attention layers only, or decode without a draft."
            )
