"""The target's hidden states over labelled answers: what a head is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.models import HiddenTap, Norm, check_place

BATCH_TOKENS = 2048
"""Tokens of a forward, padding included: what bounds its memory, whatever the answers' lengths."""

_LOGIT_ROWS = 256


@dataclass(frozen=True, slots=True)
class Place:
    """Where a judge reads the target: after which layer (-1 is the last), and before or after the final norm.

    Raises:
        JudgeDecodingError: no norm follows the layer.
    """

    layer: int = -1
    norm: Norm = "after"

    def __post_init__(self) -> None:
        check_place(self.norm, self.layer)

    def __str__(self) -> str:
        return f"last layer, {self.norm} the norm" if self.layer == -1 else f"layer {self.layer}"


LOG_PROBABILITY, RANK = "log-probability", "rank"
"""The trivial detectors: how probable the target found the token, and how many tokens it found more probable."""

BASELINES = (LOG_PROBABILITY, RANK)

Column = Place | str
"""Something known of every token: its states [H] at a place, or one of `BASELINES`, a number."""


def hidden_states(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    norm: Norm,
    layer: int = -1,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """The model's hidden state at every token of ``sequences``: float32 on the CPU, [T_i, H] each.

    ``progress`` is told how many sequences each batch held; see `read`.
    """
    states: list[Tensor] = [torch.empty(0)] * len(sequences)
    place = Place(layer, norm)
    everywhere = [range(len(ids)) for ids in sequences]
    for rows, columns in read(model, sequences, everywhere, [place], batch_tokens=batch_tokens):
        for i, state in zip(rows, columns[place], strict=True):
            states[i] = state.float()
        if progress is not None:
            progress(len(rows))
    return states


@torch.inference_mode()
def read(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    kept: Sequence[Sequence[int]],
    columns: Sequence[Column],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[list[int], dict[Column, list[Tensor]]]]:
    """Read every sequence once and yield what is known of its tokens, batch by batch.

    Only the decoder runs, without logits over the vocabulary, unless a baseline is asked for. Sequences of like length
    share a forward, right-padded: a causal model does not see the padding. What follows the last kept token is not
    read.

    Args:
        model: any causal LM.
        sequences: token ids.
        kept: the positions of each that are wanted, ascending; a sequence without any is not read.
        columns: what is wanted of them.
        batch_tokens: most tokens of a forward; a longer sequence has one to itself.

    Yields:
        the numbers of a batch's sequences and, by column, a tensor on the CPU for each: [n, H] in the model's dtype or,
        of a baseline, float32 [n].

    Raises:
        JudgeDecodingError: the model has no such place.
    """
    places = [column for column in columns if isinstance(column, Place)]
    lengths = [positions[-1] + 1 if positions else 0 for positions in kept]
    decoder = model.get_decoder()
    with ExitStack() as stack:
        taps = {place: stack.enter_context(HiddenTap(model, place.norm, place.layer)) for place in places}
        for rows in _batches(lengths, batch_tokens):
            ids = torch.zeros(len(rows), lengths[rows[-1]], dtype=torch.long, device=model.device)
            for row, i in enumerate(rows):
                ids[row, : lengths[i]] = torch.tensor(sequences[i][: lengths[i]])
            output = decoder(input_ids=ids, use_cache=False)
            wanted = [torch.tensor(list(kept[i])) for i in rows]
            found: dict[Column, list[Tensor]] = {
                place: [states[at.to(states.device)].cpu() for states, at in zip(tap.states, wanted, strict=True)]
                for place, tap in taps.items()
            }
            if len(places) < len(columns):
                known = [_baselines(model, *row) for row in zip(output[0], ids, wanted, strict=True)]
                for n, name in enumerate(BASELINES):
                    found[name] = [pair[n] for pair in known]
            yield rows, found


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of sequences that share a forward, short ones first."""
    rows: list[int] = []
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i]):
        if rows and lengths[i] * (len(rows) + 1) > batch_tokens:
            yield rows
            rows = []
        rows.append(i)
    if rows:
        yield rows


def _baselines(model: PreTrainedModel, states: Tensor, ids: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability and negative rank [n] of the tokens of one row at positions ``at`` [n].

    ``states`` [T, H] are those the output embedding reads. Nothing is known of a first token; it counts as certain.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    logprobs, ranks = torch.zeros(len(at)), torch.zeros(len(at))
    later = at > 0
    found = []
    # In parts, as a long answer's logits over a large vocabulary would take gigabytes.
    for part in at[later].to(states.device).split(_LOGIT_ROWS):
        logits = head(states[part - 1]).float()
        # What some families do to the logits behind the output embedding (Cohere, Granite, Gemma).
        logits = logits * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        own = logits.gather(-1, ids[part, None].to(logits.device))
        found.append(torch.stack((own[:, 0] - logits.logsumexp(-1), -(logits > own).sum(-1).float())).cpu())
    if found:
        logprobs[later], ranks[later] = torch.cat(found, 1)
    return logprobs, ranks
