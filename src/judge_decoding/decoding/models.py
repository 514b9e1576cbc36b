"""Inside a causal language model: its layers, its final norm, and the hidden states there."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.errors import JudgeDecodingError

Norm = Literal["before", "after"]
"""Where a hidden state is taken: before or after the model's final norm."""

Place = tuple[Norm, int]
"""Where hidden states are taken: before or after the final norm, and the layer, counted from the end."""

_LAYERS = ("layers", "h", "blocks")
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


def layers_name(decoder: nn.Module) -> str | None:
    """Under which name a decoder keeps its layers; None if it is no known one."""
    return next((name for name in _LAYERS if isinstance(getattr(decoder, name, None), nn.ModuleList)), None)


def output_size(model: PreTrainedModel) -> int:
    """How many logits a model gives for a token."""
    size: int = model.get_output_embeddings().weight.shape[0]
    return size


def decoder_layer(model: PreTrainedModel, layer: int) -> nn.Module:
    """The layer number ``layer`` of a model's decoder, counted from the end: -1 is the last.

    Raises:
        JudgeDecodingError: there is no such layer, or the decoder keeps its layers under no known name.
    """
    decoder = model.get_decoder()
    name = layers_name(decoder)
    if name is None:
        raise JudgeDecodingError(
            f"{type(model).__name__} keeps its layers under no known name ({', '.join(_LAYERS)}); read its last layer."
        )
    layers: nn.ModuleList = getattr(decoder, name)
    if not -len(layers) <= layer <= -1:
        raise JudgeDecodingError(
            f"layer is {layer}, and {type(model).__name__} has {len(layers)} layers; it must be from -{len(layers)} "
            "to -1, the last."
        )
    return layers[layer]


def check_place(norm: Norm, layer: int) -> None:
    """Check that hidden states can be taken there.

    Raises:
        JudgeDecodingError: the layer is not counted from the end, or no norm follows it.
    """
    if layer > -1:
        raise JudgeDecodingError(f"layer is {layer}; it must be -1, the last, or below.")
    if layer < -1 and norm != "before":
        raise JudgeDecodingError(
            f"norm is {norm} at layer {layer}; the final norm follows the last layer only, so it must be before."
        )


class HiddenTap:
    """Catches the hidden states of one place in each forward of ``model`` while it is open.

    Those of the last layer are taken at the final norm, those of a lower one (``layer`` < -1) are its output. They are
    there for every position whatever ``logits_to_keep`` says, and cost nothing. ``states`` is [B, T, H] in the model's
    dtype.

    Raises:
        JudgeDecodingError: the model has no such place.
    """

    def __init__(self, model: PreTrainedModel, norm: Norm, layer: int = -1) -> None:
        check_place(norm, layer)
        self._module = final_norm(model) if layer == -1 else decoder_layer(model, layer)
        self._input = norm == "before" and layer == -1
        self._states: Tensor | None = None
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def __enter__(self) -> Self:
        def catch(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            found = inputs if self._input else output
            self._states = found if isinstance(found, Tensor) else found[0]

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
