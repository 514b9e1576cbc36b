"""The target's hidden states over labelled answers: what a head is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.models.teacher_forcing import BATCH_TOKENS, log_probability, read_given

_PART = 256
"""Tokens whose probabilities over the vocabulary are worked out at once."""

LOG_PROBABILITY, RANK = "log-probability", "rank"
"""The trivial detectors: how probable the target found the token, and how many tokens it found more probable."""

BASELINES = (LOG_PROBABILITY, RANK)

Column = HiddenSource | str
"""Something known of every token: its states [H] from a source, or one of `BASELINES`, a number."""


@torch.inference_mode()
def read(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    kept: Sequence[Sequence[int]],
    columns: Sequence[Column],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, dict[Column, Tensor]]]:
    """Read every sequence once and yield what is known of its tokens; see `read_given`.

    No more logits over the vocabulary are made than a baseline needs: all of them in a model that makes no few.

    Args:
        model: any causal LM.
        sequences: token ids.
        kept: the positions of each that are wanted, ascending; a sequence without any is not read.
        columns: what is wanted of them.
        batch_tokens: most tokens of a forward.

    Yields:
        the number of a sequence and, by column, a tensor on the CPU: [n, H] in the model's dtype or, of a baseline,
        float32 [n]. Nothing is known of a first token; it counts as certain.

    Raises:
        JudgeDecodingError: the model has no such layer, or its logits, where a baseline needs them, are not finite.
    """
    sources = [column for column in columns if isinstance(column, HiddenSource)]
    baselines = len(sources) < len(columns)
    pieces = read_given(model, sequences, kept, sources=sources, logits=baselines, batch_tokens=batch_tokens)
    for i, own in groupby(pieces, key=lambda piece: piece.number):
        first = torch.zeros(int(kept[i][0] == 0))
        found: dict[Column, list[Tensor]] = {source: [] for source in sources}
        found |= {name: [first] for name in BASELINES if baselines}
        for piece in own:
            for source in sources:
                found[source].append(piece.states[source].cpu())
            ids = torch.tensor(sequences[i])[piece.positions]
            for logits, tokens in zip(piece.logits.split(_PART), ids.split(_PART), strict=True):
                if baselines:
                    probable = log_probability(logits, tokens)
                    found[LOG_PROBABILITY].append(probable)
                    better = logits > logits.gather(-1, tokens[:, None].to(logits.device))
                    found[RANK].append(-better.sum(-1).float().cpu())
        yield i, {column: torch.cat(parts) for column, parts in found.items()}
