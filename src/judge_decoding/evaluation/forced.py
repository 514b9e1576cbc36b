"""Teacher forcing: a target reads given answers, each once, and tells what it would have said at every source."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.evaluation.texts import Text
from judge_decoding.models.abilities import abilities, can_batch, check_reads
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.context import rope_border
from judge_decoding.models.forward import check_finite
from judge_decoding.models.hidden import HiddenStateHook


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What the target says along a part of an answer of T tokens. The pieces of an answer come in order.

    Attributes:
        number: which of the texts it is.
        logits: float32 [n, V], its distributions of the next n sources of the answer, in all of its pieces T + 1: of
            each token, and of what follows the last.
        states: its hidden states at the next tokens of the answer, in all of its pieces T; by norm and layer.
    """

    number: int
    logits: Tensor
    states: Mapping[HiddenSource, Tensor]


@torch.inference_mode()
def read_forced(
    model: PreTrainedModel, texts: Sequence[Text], sources: Collection[HiddenSource], *, batch_tokens: int
) -> Iterator[Piece]:
    """Read all ``texts``, short ones first, and yield what the target says along them; its states are of ``sources``.

    Texts of like length share a forward of at most ``batch_tokens`` tokens, padding included; a longer one is read in
    parts of so many. So no more than ``batch_tokens`` distributions over the vocabulary are there at a time.
    """
    check_reads(model)
    border = rope_border(model)
    with ExitStack() as stack:
        taps = {source: stack.enter_context(HiddenStateHook(model, source)) for source in sources}
        for rows in _batches(texts, batch_tokens, alone=border is not None or not can_batch(model)):
            lm = CachedLM(model, len(rows), rewinds=False)
            ids = [torch.tensor((*texts[i].prompt_ids, *texts[i].ids), device=model.device) for i in rows]
            begin = 0
            for end in _ends(model, max(map(len, ids)), batch_tokens):
                if border is not None:
                    lm.prepare([min(end, len(ids[0]))])
                parts = [row[known:end] for row, known in zip(ids, lm.lengths, strict=True)]
                new = [row[begin:end] for row in ids]
                # The last token of the prompt says what it expects of the answer's first.
                heard = [_behind(len(texts[i].prompt_ids) - 1 - begin, row) for i, row in zip(rows, new, strict=True)]
                tokens = [_behind(len(texts[i].prompt_ids) - begin, row) for i, row in zip(rows, new, strict=True)]
                for row, logits in enumerate(lm.read(parts, heard)):
                    check_finite(logits)
                    states = {}
                    for source, tap in taps.items():
                        # Some layers run for those tokens only of which logits are wanted.
                        last = len(parts[row]) - max(map(len, parts)) + tap.states.shape[1]
                        states[source] = tap.states[row, last - tokens[row] : last]
                    if heard[row]:
                        yield Piece(rows[row], logits, states)
                begin = end


def _ends(model: PreTrainedModel, length: int, batch_tokens: int) -> list[int]:
    """Where the parts end in which texts of up to ``length`` tokens are read.

    A batch of several fits into the first. Recurrent layers may not go on with several tokens from what they have
    read; and beyond a border of the positions a text is read as a whole.
    """
    border = rope_border(model)
    if border is not None:
        return [border.length, length] if length > border.length else [length]
    step = length if abilities(model).cannot_rewind else batch_tokens
    return [*range(step, length, step), length]


def _behind(start: int, ids: Tensor) -> int:
    """How many of ``ids`` are at ``start`` or behind it."""
    return min(max(len(ids) - start, 0), len(ids))


def _batches(texts: Sequence[Text], batch_tokens: int, *, alone: bool) -> Iterator[list[int]]:
    """Numbers of the texts that share a forward."""
    lengths = [len(text.prompt_ids) + len(text.ids) for text in texts]
    rows: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: lengths[i]):
        if rows and (alone or lengths[i] * (len(rows) + 1) > batch_tokens):
            yield rows
            rows = []
        rows.append(i)
    if rows:
        yield rows
