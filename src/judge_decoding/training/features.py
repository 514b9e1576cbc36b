"""The target's hidden states over labelled answers: what a head is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.models.context import rope_border
from judge_decoding.models.forward import input_device, keeps_few_logits, plain_forward, undisturbed
from judge_decoding.models.hidden import HiddenStateHook

BATCH_TOKENS = 2048
"""Tokens of a forward, padding included: what bounds its memory, whatever the answers' lengths."""

_LOGIT_ROWS = 1024
"""Tokens whose logits a forward makes, where the model can choose: a gigabyte or so in a large vocabulary."""

_PART = 256


LOG_PROBABILITY, RANK = "log-probability", "rank"
"""The trivial detectors: how probable the target found the token, and how many tokens it found more probable."""

BASELINES = (LOG_PROBABILITY, RANK)

Column = HiddenSource | str
"""Something known of every token: its states [H] from a source, or one of `BASELINES`, a number."""


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
    source = HiddenSource(layer, norm)
    everywhere = [range(len(ids)) for ids in sequences]
    for rows, columns in read(model, sequences, everywhere, [source], batch_tokens=batch_tokens):
        for i, state in zip(rows, columns[source], strict=True):
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

    No more logits over the vocabulary are made than a baseline needs: all of them in a model that makes no few.
    Sequences of like length share a forward, right-padded: a causal model does not see the padding. What follows the
    last kept token is not read.

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
        JudgeDecodingError: the model has no such layer.
    """
    border = rope_border(model)
    if border is None:
        yield from _read(model, sequences, kept, columns, batch_tokens)
        return
    # Decoding reads the first tokens of a long sequence before it is long, so with other positions than the rest.
    before = [[at for at in positions if at < border.length] for positions in kept]
    behind = [[at for at in positions if at >= border.length] for positions in kept]
    first: dict[int, dict[Column, Tensor]] = {}
    for rows, found in _read(model, sequences, before, columns, batch_tokens):
        for n, i in enumerate(rows):
            first[i] = {column: values[n] for column, values in found.items()}
        whole = [n for n, i in enumerate(rows) if not behind[i]]
        yield [rows[n] for n in whole], {column: [values[n] for n in whole] for column, values in found.items()}
    together = 1 if border.changes_always else batch_tokens
    for rows, found in _read(model, sequences, behind, columns, together):
        yield (
            rows,
            {
                column: [
                    torch.cat((first[i][column], own)) if i in first else own
                    for i, own in zip(rows, values, strict=True)
                ]
                for column, values in found.items()
            },
        )


def _read(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    kept: Sequence[Sequence[int]],
    columns: Sequence[Column],
    batch_tokens: int,
) -> Iterator[tuple[list[int], dict[Column, list[Tensor]]]]:
    """`read` for sequences whose positions have one scale."""
    sources = [column for column in columns if isinstance(column, HiddenSource)]
    baselines = len(sources) < len(columns)
    lengths = [positions[-1] + 1 if positions else 0 for positions in kept]
    # From where on a forward makes logits for a sequence: those before a token say what was expected of it.
    begins = None
    if not keeps_few_logits(model):
        begins = [0] * len(kept)
    elif baselines:
        begins = [max(positions[0] - 1, 0) if positions else 0 for positions in kept]
    with ExitStack() as stack:
        taps = {source: stack.enter_context(HiddenStateHook(model, source)) for source in sources}
        # Layers that share the keys of others (Gemma 4) run for those tokens only of which logits are wanted.
        keep = 1
        for rows in _batches(lengths, begins, batch_tokens):
            with undisturbed(model):  # not while a batch is handed out: others may use the model then
                ids = torch.zeros(len(rows), lengths[rows[-1]], dtype=torch.long, device=input_device(model))
                for row, i in enumerate(rows):
                    ids[row, : lengths[i]] = torch.tensor(sequences[i][: lengths[i]])
                wanted = [torch.tensor(list(kept[i])) for i in rows]
                known = _baselines(model, ids, wanted) if baselines else None
                if known is None:
                    plain_forward(model, ids, keep or ids.shape[1])
                if any(tap.states.shape[1] < ids.shape[1] for tap in taps.values()):
                    keep = 0
                    plain_forward(model, ids, ids.shape[1])
                found: dict[Column, list[Tensor]] = {
                    source: [states[at.to(states.device)].cpu() for states, at in zip(tap.states, wanted, strict=True)]
                    for source, tap in taps.items()
                }
                if known is not None:
                    for n, name in enumerate(BASELINES):
                        found[name] = [pair[n] for pair in known]
            yield rows, found


def _batches(lengths: Sequence[int], begins: Sequence[int] | None, batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of sequences that share a forward, short ones first.

    Of at most ``batch_tokens`` tokens, padding included, and `_LOGIT_ROWS` logits, which are made of all rows alike:
    to the end of the longest, from the first of ``begins`` on.
    """
    rows: list[int] = []
    begin = 0
    for i in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i]):
        if begins is not None:
            begin = min(begin, begins[i]) if rows else begins[i]
        logits = 1 if begins is None else lengths[i] - begin
        if rows and ((len(rows) + 1) * lengths[i] > batch_tokens or (len(rows) + 1) * logits > _LOGIT_ROWS):
            yield rows
            rows, begin = [], 0 if begins is None else begins[i]
        rows.append(i)
    if rows:
        yield rows


def _baselines(model: PreTrainedModel, ids: Tensor, wanted: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Log-probability and negative rank [n] of the tokens of each row of ``ids`` [B, T] at its wanted positions [n].

    From the model's own logits, for what is done behind the output embeddings is every family's own. Nothing is known
    of a first token; it counts as certain. The last forward is over all of ``ids``, for the taps.
    """
    found = [(torch.zeros(len(at)), torch.zeros(len(at))) for at in wanted]
    begin, end = max(min(int(at[0]) for at in wanted) - 1, 0), ids.shape[1]
    # In parts, as a long answer's logits over a large vocabulary would take gigabytes.
    step = _LOGIT_ROWS if len(wanted) == 1 and keeps_few_logits(model) else end
    for start, stop in pairwise([*range(begin, end, step), end]):
        logits = plain_forward(model, ids[:, :stop], stop - start)
        for row, at in enumerate(wanted):
            # Of a token the logits before it tell.
            here = ((at > start) & (at <= stop)).nonzero()[:, 0]
            for part in here.split(_PART):
                places = at[part].to(ids.device)
                said = logits[row, (places - 1 - start).to(logits.device)].float()
                own = said.gather(-1, ids[row, places, None].to(said.device))
                found[row][0][part] = (own[:, 0] - said.logsumexp(-1)).cpu()
                found[row][1][part] = -(said > own).sum(-1).float().cpu()
    return found
