"""Teacher forcing: what a model says along given texts. The one place that reads them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.models.abilities import abilities
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.context import reset_positions, rope_border, rotary_modules
from judge_decoding.models.forward import check_finite, input_device, keeps_few_logits, plain_forward, undisturbed
from judge_decoding.models.hidden import HiddenStateHook, opened

BATCH_TOKENS = 2048
"""Tokens of a forward, padding included: what bounds its memory, whatever the texts' lengths."""

_LOGIT_ROWS = 1024
"""Tokens whose logits a forward makes, where the model can choose: a gigabyte or so in a large vocabulary."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What a model says along a part of a sequence. The pieces of a sequence follow each other, in order.

    Attributes:
        number: which of the sequences it is.
        positions: the next of the wanted positions, on the CPU [n]; there are no logits for position 0.
        logits: those of the token at each of ``positions``, given what is before it: float32 [n, V].
        states: the hidden states at the next of the wanted positions, by source, [m, H] in the model's dtype.
    """

    number: int
    positions: Tensor
    logits: Tensor
    states: Mapping[HiddenSource, Tensor]


def read_given(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    wanted: Sequence[Sequence[int]],
    *,
    sources: Collection[HiddenSource] = (),
    logits: bool = True,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[Piece]:
    """Read every sequence once, short ones first, as decoding would read it, and yield what the model says of it.

    Sequences of like length share a forward, right-padded: a causal model does not see the padding. One that has too
    many tokens or logits for a forward is read in parts. What follows the last wanted position is not read.

    Args:
        model: any causal LM.
        sequences: token ids.
        wanted: the positions of each that are wanted, ascending; the one behind the last token has logits and no state.
            A sequence without any is not read.
        sources: where hidden states are taken.
        logits: whether logits are wanted. If so, no more than `_LOGIT_ROWS` tokens have some at a time, in a model that
            can make few or go on from its KV cache.
        batch_tokens: most tokens of a forward; without logits, a longer sequence has one to itself.

    Raises:
        JudgeDecodingError: the model has no such layer, or its logits are not finite.
    """
    few, border = keeps_few_logits(model), rope_border(model)
    # The state of a token is there when it was read itself, its logits are there before.
    lengths = [
        min(max(at[-1] + bool(sources), 1), len(ids)) if len(at) else 0
        for ids, at in zip(sequences, wanted, strict=True)
    ]
    # From where on a forward makes logits for a sequence.
    begins = [max(at[0] - 1, 0) if few and len(at) else 0 for at in wanted] if logits or not few else None
    forward = _Forward(model, sources)
    for rows in _batches(lengths, begins, batch_tokens, longest=border.length if border else None):
        step, width = None, lengths[rows[-1]]
        if logits and begins and (width > batch_tokens or width - begins[rows[0]] > _LOGIT_ROWS):
            step = min(batch_tokens, _LOGIT_ROWS)
        own, begin = [sequences[i][: lengths[i]] for i in rows], 0
        for end in forward.start(own, step, wanted[rows[0]][0]):
            # The token at a position is read in this part, or the one before it is.
            parts = [wanted[i][bisect_left(wanted[i], begin) : bisect_right(wanted[i], end)] for i in rows]
            ahead = [[at for at in part if at > begin and logits] for part in parts]
            inside = [
                [at for at in part if at < min(end, len(sequences[i]))] for i, part in zip(rows, parts, strict=True)
            ]
            begin = end
            state = min((at[0] for at in inside if at), default=end)
            first = min([state, *(at[0] - 1 for at in ahead if at)]) if logits else end
            if any(parts):
                yield from _pieces(rows, end, ahead, inside, *forward.read(end, first, state))
            elif forward.goes_on:
                forward.read(end, first, state)


def hidden_states(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    norm: Norm,
    layer: int = -1,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Tensor]:
    """The model's hidden state at every token of ``sequences``: float32 on the CPU, [T_i, H] each; see `read_given`."""
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    source, everywhere = HiddenSource(layer, norm), [range(len(ids)) for ids in sequences]
    pieces = read_given(model, sequences, everywhere, sources=[source], logits=False, batch_tokens=batch_tokens)
    for i, own in groupby(pieces, key=lambda piece: piece.number):
        found[i] = torch.cat([piece.states[source].float().cpu() for piece in own])
    return found


def log_probability(logits: Tensor, ids: Tensor) -> Tensor:
    """How probable tokens ``ids`` [n] are by ``logits`` [n, V]: natural logarithms [n], on the CPU."""
    return (logits.gather(-1, ids[:, None].to(logits.device))[:, 0] - logits.logsumexp(-1)).cpu()


class _Forward:
    """The forwards of a model over one batch after the other: of several sequences at once, or of one in parts."""

    def __init__(self, model: PreTrainedModel, sources: Collection[HiddenSource]) -> None:
        self._model, self._hooks = model, {source: HiddenStateHook(model, source) for source in sources}
        self._border = rope_border(model)
        # Layers that share the keys of others (Gemma 4) run for those tokens only of which logits are wanted.
        self._shares = False

    def start(self, sequences: Sequence[Sequence[int]], step: int | None, wanted: int) -> list[int]:
        """Begin with the next batch; where the parts end in which it is read.

        They have ``step`` tokens where that helps. The first position ``wanted`` is where a prompt ends.
        """
        self._ids = pad_sequence([torch.tensor(ids) for ids in sequences], batch_first=True)
        self._ids = self._ids.to(input_device(self._model))
        self._lm, border, width = None, self._border, self._ids.shape[1]
        crosses = border is not None and width > border.length
        if step is None and not crosses:
            return [width]
        if not abilities(self._model).cannot_rewind:
            self._lm = CachedLM(self._model, rewind="never")
        elif not keeps_few_logits(self._model):
            step = None
        ends = {width, *(range(step, width, step) if step else ())}
        if border is not None and crosses:
            # As in decoding: the first tokens are read before the sequence is long, so with other positions than the
            # rest, and a long prompt as a whole.
            edge = max(border.length, wanted)
            ends = {end for end in ends if (end > edge if end > border.length else edge == border.length)} | {
                edge,
                width,
            }
            ends |= set(range(edge, width) if border.changes_always else ())
        return sorted(ends)

    @property
    def goes_on(self) -> bool:
        """Whether a part goes on from the cache of those before it, which then have to be read."""
        return self._lm is not None

    def read(self, end: int, first: int, state: int) -> tuple[Tensor, Mapping[HiddenSource, Tensor]]:
        """Read up to ``end``: the logits [B, K, V] and the states [B, K', H] of the last tokens before it.

        The logits reach back to the token at ``first``, the states to that at ``state``.
        """
        keep = end - first
        with (
            undisturbed(self._model),
            opened(self._hooks.values()),
        ):  # not while a piece is handed out: others may use the model then
            if self._lm is not None:
                self._lm.prepare([end])
                said = self._lm.read([self._ids[0, self._lm.lengths[0] : end]], [keep])[0][None]
            else:
                said = self._plain(end, max(keep, end - state if self._shares else 1, 1))
                if any(hook.states.shape[1] < end - state for hook in self._hooks.values()):
                    self._shares = True
                    said = self._plain(end, end - state)
            return said, {source: hook.states for source, hook in self._hooks.items()}

    def _plain(self, end: int, keep: int) -> Tensor:
        """A forward without a cache."""
        if self._border is not None and self._border.changes_always:
            reset_positions(rotary_modules(self._model))
        return plain_forward(self._model, self._ids[:, :end], keep)


def _pieces(
    rows: Sequence[int],
    end: int,
    ahead: Sequence[Sequence[int]],
    inside: Sequence[Sequence[int]],
    logits: Tensor,
    states: Mapping[HiddenSource, Tensor],
) -> Iterator[Piece]:
    """The pieces of a part that ends at ``end``: logits of the tokens ``ahead``, states of those ``inside``, by row."""
    for row, (number, expected, known) in enumerate(zip(rows, ahead, inside, strict=True)):
        said = _take(logits, row, [at - 1 - end for at in expected]).float()
        check_finite(said)
        found = {source: _take(each, row, [at - end for at in known]) for source, each in states.items()}
        yield Piece(number, torch.tensor(expected, dtype=torch.long), said, found)


def _take(values: Tensor, row: int, places: Sequence[int]) -> Tensor:
    """Some places of a row of ``values`` [B, K, ...], counted from the end."""
    return values[row, torch.tensor(places, dtype=torch.long, device=values.device)]


def _batches(
    lengths: Sequence[int], begins: Sequence[int] | None, batch_tokens: int, longest: int | None
) -> Iterator[list[int]]:
    """Numbers of sequences that share a forward, short ones first.

    Of at most ``batch_tokens`` tokens, padding included, and `_LOGIT_ROWS` logits, which are made of all rows alike:
    to the end of the longest, from the first of ``begins`` on. One with more tokens than ``longest`` is alone.
    """
    rows: list[int] = []
    begin = 0
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i]):
        if begins is not None:
            begin = min(begin, begins[i]) if rows else begins[i]
        logits = 1 if begins is None else lengths[i] - begin
        full = (len(rows) + 1) * lengths[i] > batch_tokens or (len(rows) + 1) * logits > _LOGIT_ROWS
        if rows and (full or (longest is not None and lengths[i] > longest)):
            yield rows
            rows, begin = [], 0 if begins is None else begins[i]
        rows.append(i)
    if rows:
        yield rows
