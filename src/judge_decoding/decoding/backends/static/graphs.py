"""What is compiled: one forward of a target, and a few greedy steps of a draft, over caches that are handed in.

Token i of a row is always at column i of the cache. So a row is its length and nothing else: tokens are taken back by
going on from an earlier position, whose columns the next forward overwrites, rows of a batch advance by different
amounts without padding between them, and what lies behind a row's end is never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.models.draft_vocabulary import compact
from judge_decoding.models.forward import cache_name
from judge_decoding.models.hidden import HiddenStateHook, opened

CHUNK_BYTES = 2**18
"""So much of a matrix stays in a core's own cache while it is multiplied with one token after the other."""

KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, each [B, heads, L, D]."""


class SlotLayer(CacheLayerMixin):
    """One layer of a cache whose tokens are written where their positions say.

    Args:
        keys: [B, heads, L, D], written in place.
        values: the same.
        positions: of the tokens that are read now [B, T].
        width: how many columns are attended to; all positions are below it.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, positions: Tensor, width: int) -> None:
        self.keys, self.values = self._slots = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._positions, self._width = positions, width

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the memory is there."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the new tokens; keys and values of all columns that count."""
        rows = torch.arange(key_states.shape[0], device=self.device)[:, None, None]
        heads = torch.arange(key_states.shape[1], device=self.device)[None, :, None]
        place = (rows, heads, self._positions[:, None, :])
        keys, values = self._slots
        keys.index_put_(place, key_states)
        values.index_put_(place, value_states)
        return keys[:, :, : self._width], values[:, :, : self._width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns a mask has, and from which on."""
        return self._width, 0

    def get_seq_length(self) -> int:
        """Of no use here: positions are given."""
        return 0

    def get_max_length(self) -> int:
        """How many tokens there is memory for."""
        return self._slots[0].shape[2]


class FewTokens(TorchFunctionMode):
    """Linear layers for few tokens at once, as sums that are compiled to plain loops: the fastest in float32 on a CPU.

    A forward of few tokens has the time it takes to read the weights. MKL's product of a few rows with a matrix takes
    two to four times that. Here some rows of the matrix are multiplied with all tokens before the next ones are read.
    """

    def __torch_function__(  # torch's own protocol
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """The same number, by another way."""
        return (_few_tokens_linear if function is nn.functional.linear else function)(*args, **(kwargs or {}))


def _few_tokens_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    out, size = weight.shape
    rows = x.reshape(-1, size).contiguous()
    # A view by strides must lie in memory. Without one the compiler would compute what gives x for each product anew.
    rows = rows.as_strided(rows.shape, rows.stride())
    most = max(CHUNK_BYTES // (size * weight.element_size()), 1)
    chunk = next(count for count in range(min(most, out), 0, -1) if out % count == 0)
    found = (weight.view(out // chunk, 1, chunk, size) * rows[:, None]).sum(-1)  # [chunks, tokens, chunk]
    found = found.transpose(0, 1).reshape(*x.shape[:-1], out)
    return found if bias is None else found + bias


def _forward(
    model: PreTrainedModel, start: Tensor, ids: Tensor, columns: Tensor, cache: KeysValues, keep: Tensor | int
) -> Tensor:
    """Read ``ids`` [B, T] from each row's position ``start`` [B] on; the logits of those to ``keep`` [B, K, V]."""
    positions = (start[:, None] + torch.arange(ids.shape[1], device=ids.device)).clamp(min=0)
    layers: list[Any] = [SlotLayer(keys, values, positions, columns.shape[0]) for keys, values in cache]
    output = model(
        input_ids=ids,
        attention_mask=(columns <= positions[:, :, None])[:, None],
        position_ids=positions,
        use_cache=True,
        logits_to_keep=keep,
        **{cache_name(model): Cache(layers=layers)},
    )
    logits: Tensor = output.logits
    return logits


@dataclass(frozen=True, slots=True)
class TargetOutput:
    """What one forward of the target tells.

    Attributes:
        told: [3, B, K] in float32, which holds every id below 2 ** 24: the ids that were read, the target's own choice
            behind each, and the judge's probability that it is correct, NaN where logits are not finite. A usual
            round needs no more.
        logits: [B, K, V], in the model's dtype.
        states: hidden states at what was read [B, K, H], one tensor a source.
    """

    told: Tensor
    logits: Tensor
    states: tuple[Tensor, ...]


class TargetGraph(nn.Module):
    """One forward of the target, with the judge in it.

    Args:
        model: the target.
        sources: where hidden states are wanted; the judge reads those of the first.
        few: for few tokens at a time; see `FewTokens`.
    """

    def __init__(self, model: PreTrainedModel, sources: tuple[HiddenSource, ...], *, few: bool = False) -> None:
        super().__init__()
        self.model, self._few = model, few
        # Made here, as looking for one takes a forward pass of its own.
        self._hooks = [HiddenStateHook(model, source) for source in sources]

    def forward(
        self, tokens: Tensor, columns: Tensor, keep: Tensor, weight: Tensor, bias: Tensor, cache: KeysValues
    ) -> tuple[Tensor, ...]:
        """The parts of `TargetOutput`.

        Args:
            tokens: the position of each row's first token and, behind it, the ids to read [B, 1 + T]. One tensor, as
                each has to be made and handed over.
            columns: 0, 1, ... up to the number of columns that are attended to [W].
            keep: which of the T positions are asked about [K].
            weight: the judge's [1, H].
            bias: the judge's [1].
            cache: keys and values, written in place.
        """
        start, ids = tokens[:, 0], tokens[:, 1:]
        with opened(self._hooks):
            with FewTokens() if self._few else nullcontext():
                logits = _forward(self.model, start, ids, columns, cache, keep)
            states = [hook.states[:, keep] for hook in self._hooks]
        scores = torch.sigmoid(nn.functional.linear(states[0].float(), weight, bias)[..., 0])
        best = logits.max(-1)
        scores = torch.where(best.values.isfinite(), scores, torch.nan)
        told = torch.stack((ids[:, keep].float(), best.indices.float(), scores))
        return told, logits, *states


class DraftGraph(nn.Module):
    """Read some tokens, then go on greedily for a few.

    Args:
        model: the draft.
        steps: how many tokens are chosen.
        vocab_size: the target's; the draft chooses from its own tokens below that.
        few: for few tokens at a time; see `FewTokens`.
    """

    def __init__(self, model: PreTrainedModel, steps: int, vocab_size: int, *, few: bool = False) -> None:
        super().__init__()
        self.model, self._steps, self._vocab_size, self._few = model, steps, vocab_size, few
        self._last_id = model.get_input_embeddings().get_parameter("weight").shape[0] - 1

    def forward(self, tokens: Tensor, columns: Tensor, cache: KeysValues) -> tuple[Tensor, Tensor]:
        """The draft as a target reads it: position and id of the last token, and the chosen ones [B, 2 + steps].

        And what to go on with, which is the same of the last chosen one [B, 2]. The arguments are those of
        `TargetGraph.forward`.
        """
        start, ids = tokens[:, 0], tokens[:, 1:]
        chosen = [(start + ids.shape[1] - 1)[:, None], ids[:, -1:]]
        for _ in range(self._steps):
            with compact(self.model) as kept, FewTokens() if self._few else nullcontext():
                logits = _forward(self.model, start, ids.clamp(max=self._last_id), columns, cache, 1)
            start = start + ids.shape[1]
            ids = logits[:, -1, : self._vocab_size].argmax(-1, keepdim=True)
            if kept is not None:  # the places of a cut head's tokens
                ids = kept[ids]
            chosen.append(ids)
        return torch.cat(chosen, 1), torch.cat((start[:, None], ids), 1)
