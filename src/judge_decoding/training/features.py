"""The target's hidden states over labelled answers: the training features of a head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.models.teacher_forcing import BATCH_TOKENS, log_probability, read_given

_PART = 256
"""Tokens whose probabilities over the vocabulary are computed together."""

LOG_PROBABILITY, RANK = "log-probability", "rank"
"""The trivial detectors: the target's log-probability of the token, and how many tokens it found more probable."""

BASELINES = (LOG_PROBABILITY, RANK)

Column = HiddenSource | str
"""A feature of every token: its hidden state [H] from a source, or the number of one of `BASELINES`."""


@torch.inference_mode()
def read(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    kept: Sequence[Sequence[int]],
    columns: Sequence[Column],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, dict[Column, Tensor]]]:
    """Read every sequence once and yield the requested features of its tokens; see `read_given`.

    Only the logits that a baseline needs are computed, except in models that cannot compute a part of them.

    Args:
        model: any causal LM.
        sequences: token ids.
        kept: the positions to read in each sequence, ascending; a sequence without positions is not read.
        columns: the features to read at these positions.
        batch_tokens: the most tokens of a forward pass.

    Yields:
        the index of a sequence and, by column, a tensor on the CPU: [n, H] in the model's dtype or, for a baseline,
            float32 [n]. A first token has no prediction; it counts as certain.

    Raises:
        JudgeDecodingError: the model has no such layer, or logits that a baseline needs are not finite.
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
