"""Teacher forcing: a model's logits and hidden states along given texts."""

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
from judge_decoding.models.forward import Forward, check_finite, finite, input_device, plain_forward, undisturbed
from judge_decoding.models.hidden import HiddenStateHook, opened

BATCH_TOKENS = 2048
"""Maximum tokens per forward pass, including padding; bounds memory, whatever the lengths of the texts."""

_LOGIT_ROWS = 1024
"""Maximum tokens with logits per forward pass, if the model can choose: about a gigabyte for a large vocabulary."""


@dataclass(frozen=True, slots=True, eq=False)
class ForcedOutputs:
    """A model's outputs for a part of a sequence. The pieces of a sequence come in order.

    Attributes:
        number: the index of the sequence.
        positions: the next requested positions, on the CPU [n]; there are no logits for position 0.
        logits: the logits that predict the token at each of ``positions``: float32 [n, V].
        states: the hidden states at the next requested positions, by source, [m, H] in the model's dtype.
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
) -> Iterator[ForcedOutputs]:
    """Read every sequence once, short ones first, as decoding would read it, and yield the model's outputs.

    Sequences of similar length share a forward pass, right-padded: a causal model does not see the padding. A sequence
    with too many tokens or logits for one forward pass is read in parts. Tokens after the last requested position are
    not read.

    Args:
        model: any causal LM.
        sequences: token ids.
        wanted: the requested positions of each sequence, ascending; the position after the last token has logits but no
            state. A sequence without positions is not read.
        sources: the sources of hidden states.
        logits: whether to return logits. If so, at most `_LOGIT_ROWS` tokens have logits at a time, in a model that can
            compute few logits or continue from its KV cache.
        batch_tokens: maximum tokens per forward pass; without logits, a longer sequence gets its own forward pass.
    """
    few, border = Forward(model).keeps_few_logits, rope_border(model)
    # The state of a token requires reading it; its logits only require reading the tokens before it.
    lengths = [
        min(max(at[-1] + bool(sources), 1), len(ids)) if len(at) else 0
        for ids, at in zip(sequences, wanted, strict=True)
    ]
    # The position from which a forward pass computes logits for a sequence.
    begins = [max(at[0] - 1, 0) if few and len(at) else 0 for at in wanted] if logits or not few else None
    forward = _Forward(model, sources)
    for rows in _batches(lengths, begins, batch_tokens, longest=border.length if border else None):
        step, width = None, lengths[rows[-1]]
        if logits and begins and (width > batch_tokens or width - begins[rows[0]] > _LOGIT_ROWS):
            step = min(batch_tokens, _LOGIT_ROWS)
        own, begin = [sequences[i][: lengths[i]] for i in rows], 0
        for end in forward.start(own, step, wanted[rows[0]][0]):
            # This part contains the token at the position, or the token before it.
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
            elif forward.continues:
                forward.read(end, first, state)


def hidden_states(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    norm: Norm,
    layer: int = -1,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Tensor]:
    """Return the hidden states at all tokens of ``sequences``: float32 on the CPU, [T_i, H] each; see `read_given`."""
    found: list[Tensor] = [torch.empty(0)] * len(sequences)
    source, everywhere = HiddenSource(layer, norm), [range(len(ids)) for ids in sequences]
    pieces = read_given(model, sequences, everywhere, sources=[source], logits=False, batch_tokens=batch_tokens)
    for i, own in groupby(pieces, key=lambda piece: piece.number):
        found[i] = torch.cat([piece.states[source].float().cpu() for piece in own])
    return found


def log_probability(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the log-probabilities (natural) of tokens ``ids`` [n] under ``logits`` [n, V]: [n], on the CPU."""
    return (logits.gather(-1, ids[:, None].to(logits.device))[:, 0] - logits.logsumexp(-1)).cpu()


class _Forward:
    """The forward passes of a model, batch by batch: over several sequences at once, or over one in parts."""

    def __init__(self, model: PreTrainedModel, sources: Collection[HiddenSource]) -> None:
        self._model, self._hooks = model, {source: HiddenStateHook(model, source) for source in sources}
        self._border = rope_border(model)
        # Layers that share the keys of others (Gemma 4) run only for tokens whose logits are requested.
        self._shares = False

    def start(self, sequences: Sequence[Sequence[int]], step: int | None, wanted: int) -> list[int]:
        """Begin the next batch; return the ends of the parts in which to read it.

        Parts have ``step`` tokens if that helps. ``wanted``, the first requested position, is the end of the prompt.
        """
        self._ids = pad_sequence([torch.tensor(ids) for ids in sequences], batch_first=True)
        self._ids = self._ids.to(input_device(self._model))
        self._lm, border, width = None, self._border, self._ids.shape[1]
        crosses = border is not None and width > border.length
        if step is None and not crosses:
            return [width]
        # Recurrent layers read several tokens after others with other rounding than all tokens at once.
        if abilities(self._model).rewind == "crop":
            self._lm = CachedLM(self._model, rewind="never")
        elif not Forward(self._model).keeps_few_logits:
            step = None
        ends = {width, *(range(step, width, step) if step else ())}
        if border is not None and crosses:
            # As in decoding: the first tokens are read while the sequence is short, so with other positions than the
            # rest, and a long prompt is read as a whole.
            edge = max(border.length, wanted)
            ends = {end for end in ends if (end > edge if end > border.length else edge == border.length)} | {
                edge,
                width,
            }
            ends |= set(range(edge, width) if border.changes_always else ())
        return sorted(ends)

    @property
    def continues(self) -> bool:
        """Whether a part continues from the cache of the earlier parts, which must then be read."""
        return self._lm is not None

    def read(self, end: int, first: int, state: int) -> tuple[Tensor, Mapping[HiddenSource, Tensor]]:
        """Read up to ``end``; return the logits [B, K, V] and the states [B, K', H] of the last tokens before it.

        The logits begin with the token at ``first``, the states with the token at ``state``.
        """
        logits_to_keep = end - first
        # Not while yielding a piece, when others may use the model.
        with undisturbed(self._model), opened(self._hooks.values()):
            if self._lm is not None:
                self._lm.prepare([end])
                logits = self._lm.read([self._ids[0, self._lm.lengths[0] : end]], [logits_to_keep])[0][None]
            else:
                logits = self._plain(end, max(logits_to_keep, end - state if self._shares else 1, 1))
                if any(hook.states.shape[1] < end - state for hook in self._hooks.values()):
                    self._shares = True
                    logits = self._plain(end, end - state)
            return logits, {source: hook.states for source, hook in self._hooks.items()}

    def _plain(self, end: int, logits_to_keep: int) -> Tensor:
        if self._border is not None and self._border.changes_always:
            reset_positions(rotary_modules(self._model))
        return plain_forward(self._model, self._ids[:, :end], logits_to_keep)


def _pieces(
    rows: Sequence[int],
    end: int,
    ahead: Sequence[Sequence[int]],
    inside: Sequence[Sequence[int]],
    logits: Tensor,
    states: Mapping[HiddenSource, Tensor],
) -> Iterator[ForcedOutputs]:
    """Yield the pieces of a part ending at ``end``, by row: logits for tokens ``ahead``, states of those ``inside``."""
    for row, (number, expected, known) in enumerate(zip(rows, ahead, inside, strict=True)):
        row_logits = _at_positions(logits, row, [at - 1 - end for at in expected]).float()
        check_finite(bool(finite(row_logits)))
        found = {source: _at_positions(each, row, [at - end for at in known]) for source, each in states.items()}
        yield ForcedOutputs(number, torch.tensor(expected, dtype=torch.long), row_logits, found)


def _at_positions(values: Tensor, row: int, positions: Sequence[int]) -> Tensor:
    """Select positions of a row of ``values`` [B, K, ...], counted from the end."""
    return values[row, torch.tensor(positions, dtype=torch.long, device=values.device)]


def _batches(
    lengths: Sequence[int], begins: Sequence[int] | None, batch_tokens: int, longest: int | None
) -> Iterator[list[int]]:
    """Yield the indices of sequences that share a forward pass, short ones first.

    A batch has at most ``batch_tokens`` tokens, including padding, and `_LOGIT_ROWS` logits. All rows have logits from
    the first of ``begins`` to the end of the longest row. A sequence longer than ``longest`` is alone.
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
