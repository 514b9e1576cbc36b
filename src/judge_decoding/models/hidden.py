"""Layers, final norm and hidden states of a causal language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.anatomy import anatomy, first_tensor
from judge_decoding.models.unwrap import unwrap


def output_size(model: PreTrainedModel) -> int:
    """Return the number of logits per token."""
    head = unwrap(model).get_output_embeddings()  # type: ignore[operator]
    # Quantised layers have weights of other shapes, and a cut head has fewer rows.
    size = getattr(head, "full_size", getattr(head, "out_features", None))
    if not isinstance(size, int):
        weight = getattr(head, "weight", None)
        size = weight.shape[0] if isinstance(weight, Tensor) else anatomy(model).logits
    return size


def decoder_layer(model: PreTrainedModel, layer: int) -> nn.Module:
    """Return layer ``layer`` of a model's decoder, counted from the end: -1 is the last."""
    name = anatomy(model).layers
    if name is None:
        raise JudgeDecodingError(f"{type(model).__name__} has no list of layers; read its last layer.")
    layers = unwrap(model).get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    if not -len(layers) <= layer <= -1:
        raise JudgeDecodingError(
            f"layer is {layer}, and {type(model).__name__} has {len(layers)} layers; it must be from -{len(layers)} "
            "to -1, the last."
        )
    return layers[layer]


class HiddenStateHook:
    """Captures the hidden states of one source in each forward pass of ``model`` while it is open.

    States of the last layer are captured at the final norm, states of a lower layer at its output. Without a final
    norm the last layer's output is used both before and after it. All positions have states, whatever
    ``logits_to_keep`` is. They cost nothing, except that the first hook of a model runs a short forward pass to find
    the module. ``states`` is [B, T, H] in the model's dtype. A hook can be opened repeatedly; it keeps the last states
    of every thread that runs the model until it is closed, so open it around a forward pass. Each thread sees only the
    states of its own forward passes.
    """

    def __init__(self, model: PreTrainedModel, source: HiddenSource) -> None:
        parts, layer = anatomy(model), source.layer
        at_norm = layer == -1 and parts.norm is not None
        last = parts.norm or parts.last
        assert last is not None  # see `anatomy`
        self._module = unwrap(model).get_submodule(last) if layer == -1 else decoder_layer(model, layer)
        self._input = source.norm == "before" and at_norm
        self._states: dict[int, Tensor | None] = {}  # by thread
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def __enter__(self) -> Self:
        def catch(_module: nn.Module, args: tuple[Any, ...], *others: Any) -> None:  # noqa: ANN401  (torch's own)
            # Keyword arguments and output; only the output if this closes during another thread's forward pass.
            if len(others) == 2:
                self._states[get_ident()] = first_tensor((args, others[0]) if self._input else others[1])

        self._hook = self._module.register_forward_hook(catch, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        self._states.clear()

    @property
    def states(self) -> Tensor:
        """The states of this thread's latest forward pass [B, T, H]."""
        states = self._states.get(get_ident())
        if states is None:
            raise RuntimeError("no forward has run since the hook was opened")
        return states


@contextmanager
def opened(hooks: Iterable[HiddenStateHook]) -> Iterator[None]:
    """Open all ``hooks``, around one forward pass."""
    with ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(hook)
        yield
