"""A causal language model with its cache: read tokens, take tokens back, for one sequence or several at once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.anatomy import anatomy, first_tensor
from judge_decoding.models.unwrap import unwrap

Norm = Literal["before", "after"]
"""Where a hidden state is taken: before or after the model's final norm."""

Place = tuple[Norm, int]
"""Where hidden states are taken: before or after the final norm, and the layer, counted from the end."""


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """The norm between the last layer and the language-model head; None where the last layer has the last word.

    Raises:
        JudgeDecodingError: see `anatomy`.
    """
    name = anatomy(model).norm
    return None if name is None else unwrap(model).get_submodule(name)


def output_size(model: PreTrainedModel) -> int:
    """How many logits a model gives for a token.

    Raises:
        JudgeDecodingError: the model has no output embeddings of a known size, and see `anatomy`.
    """
    head = unwrap(model).get_output_embeddings()  # type: ignore[operator]
    size = getattr(head, "out_features", None)  # of quantised layers, too, whose weights have other shapes
    if not isinstance(size, int):
        weight = getattr(head, "weight", None)
        size = weight.shape[0] if isinstance(weight, Tensor) else anatomy(model).logits
    return size


def decoder_layer(model: PreTrainedModel, layer: int) -> nn.Module:
    """The layer number ``layer`` of a model's decoder, counted from the end: -1 is the last.

    Raises:
        JudgeDecodingError: there is no such layer, or the decoder keeps its layers in no list.
    """
    name = anatomy(model).layers
    if name is None:
        raise JudgeDecodingError(f"{type(model).__name__} keeps its layers in no list; read its last layer.")
    layers = unwrap(model).get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
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

    Those of the last layer are taken at the final norm, those of a lower one (``layer`` < -1) are its output. Without
    a final norm the last layer's output is both: before and after. States are there for every position whatever
    ``logits_to_keep`` says, and cost nothing but the model's first tap, which looks for the place in a short forward
    pass. ``states`` is [B, T, H] in the model's dtype. A tap may be opened again and again.

    Raises:
        JudgeDecodingError: the model has no such place.
    """

    def __init__(self, model: PreTrainedModel, norm: Norm, layer: int = -1) -> None:
        check_place(norm, layer)
        parts = anatomy(model)
        at_norm = layer == -1 and parts.norm is not None
        last = parts.norm or parts.last
        assert last is not None  # see `anatomy`
        self._module = unwrap(model).get_submodule(last) if layer == -1 else decoder_layer(model, layer)
        self._input = norm == "before" and at_norm
        self._states: Tensor | None = None
        self._hook: torch.utils.hooks.RemovableHandle | None = None

    def __enter__(self) -> Self:
        def catch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            self._states = first_tensor((args, kwargs) if self._input else output)

        self._hook = self._module.register_forward_hook(catch, with_kwargs=True)
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
    """A causal LM and the cache of one or more sequences, the *rows*.

    `read` appends tokens to each row, `rewind_to` takes the last ones back, so that a rejected draft leaves no trace.
    Rows may grow by different amounts: what a row lacks is padding, which nothing attends to; padding in the middle
    of the cache is squeezed out when there is too much of it.

    Attributes:
        lengths: how many tokens of each row the cache holds.
    """

    def __init__(self, model: PreTrainedModel, rows: int = 1) -> None:
        self.model = model
        self.lengths = [0] * rows
        self._cache = DynamicCache(config=model.config)
        self._cache.activate_past_recording()
        # Which columns of the cache hold tokens [rows, columns]; on the CPU, as counting must not wait for the device.
        self._live = torch.ones(rows, 0, dtype=torch.bool)
        # The Mamba family has its own name for it.
        names = inspect.signature(model.forward).parameters
        self._argument = "cache_params" if "cache_params" in names else "past_key_values"

    def read(self, rows: Sequence[Tensor], keep: Sequence[int]) -> list[Tensor]:
        """Append ``rows[i]`` [T_i] to each row; the logits of its last ``keep[i]`` tokens, float32 [keep_i, V] each.

        Raises:
            JudgeDecodingError: the model has no cache, or one of its own making.
        """
        sizes = [len(row) for row in rows]
        width = max(sizes)
        kept = width - max(min(size - count for size, count in zip(sizes, keep, strict=True)), 0)
        ids = pad_sequence(list(rows), batch_first=True)
        live = torch.cat((self._live, torch.arange(width) < torch.tensor(sizes)[:, None]), dim=1)
        extra = {} if bool(live.all()) else self._padding(live, sizes, ids.device)
        output = self.model(
            input_ids=ids, use_cache=True, logits_to_keep=max(kept, 1), **{self._argument: self._cache}, **extra
        )
        if output.get(self._argument) is not self._cache:
            raise JudgeDecodingError(
                f"{type(self.model).__name__} does not keep what it read in transformers' usual cache; "
                "use another model."
            )
        self._live = live
        self.lengths = [length + size for length, size in zip(self.lengths, sizes, strict=True)]
        logits: Tensor = output.logits[:, -kept:] if kept else output.logits[:, :0]
        ends = [size - (width - kept) for size in sizes]
        return [logits[i, end - count : end].float() for i, (end, count) in enumerate(zip(ends, keep, strict=True))]

    def _padding(self, live: Tensor, sizes: list[int], device: torch.device) -> dict[str, Tensor]:
        """The attention mask and the positions of rows with padding."""
        mask = live.clone()
        mask[~mask.any(1)] = True  # a row that attends to nothing would be NaN
        before, new = torch.tensor(self.lengths)[:, None], torch.tensor(sizes)[:, None]
        positions = (before + torch.arange(max(sizes))).minimum(before + new - 1).clamp(min=0)
        return {"attention_mask": mask.long().to(device), "position_ids": positions.to(device)}

    def rewind_to(self, lengths: Sequence[int]) -> None:
        """Take back each row's tokens from position ``lengths[i]`` on; a shorter row keeps all of its tokens."""
        self.lengths = [min(pair) for pair in zip(self.lengths, lengths, strict=True)]
        columns = self._live.shape[1]
        if not columns:
            return
        self._live &= self._live.cumsum(1) <= torch.tensor(self.lengths)[:, None]
        used = self._live.any(0).nonzero()
        width = int(used[-1]) + 1 if len(used) else 0
        # A count of 0 also goes through: it trims what sliding-window and recurrent layers recorded to go back to.
        self._cache.crop(width - columns)
        self._live = self._live[:, :width]
        if width > 1.5 * max(self.lengths) + 32:
            self._squeeze(max(self.lengths))

    def _squeeze(self, width: int) -> None:
        """Move every row's tokens to the last ``width`` columns. Keys carry their positions, so they may move."""
        order = self._live.long().argsort(dim=1, stable=True)[:, -width:]
        for layer in self._cache.layers:
            assert isinstance(layer, DynamicLayer)  # see `can_batch`
            layer.keys, layer.values = _take(layer.keys, order), _take(layer.values, order)
        self._live = self._live.gather(1, order)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""
        if len(rows) == len(self.lengths):
            return
        self._cache.batch_select_indices(torch.tensor(rows))
        self._live = self._live[list(rows)]
        self.lengths = [self.lengths[i] for i in rows]

    def check_rewinds(self) -> None:
        """Check, after the prefill, that this model's cache can take tokens back.

        Raises:
            JudgeDecodingError: it cannot, as with recurrent (state-space, linear attention) layers.
        """
        if max(self.lengths) and not self._cache.is_croppable:
            raise JudgeDecodingError(
                f"The cache of {type(self.model).__name__} cannot take rejected tokens back (it has recurrent layers); "
                "use a model with attention layers only, or decode without a draft."
            )


def _take(states: Tensor | None, columns: Tensor) -> Tensor:
    """``columns`` [B, C'] of keys or values [B, heads, C, D]."""
    assert states is not None
    index = columns[:, None, :, None].to(states.device)
    return states.gather(2, index.expand(-1, states.shape[1], -1, states.shape[3]))


def can_batch(model: PreTrainedModel) -> bool:
    """Whether rows of different lengths can share this model's forwards.

    Not with sliding windows, which count columns of the cache and so would count padding, nor with recurrent layers.
    """
    layers = DynamicCache(config=model.config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    return plain and "position_ids" in inspect.signature(model.forward).parameters
