"""A draft model with another tokenizer, which shares only the text with the target."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from threading import Lock

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.decoding.drafters.base import Draft, DraftRequest, TokenBuffer
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.sampling import Sampler, SamplingParams
from judge_decoding.models.context import context_length
from judge_decoding.models.hidden import output_size
from judge_decoding.models.text import INCOMPLETE, decode_ids
from judge_decoding.models.tokenize import bare_ids, lead_ids

_WINDOW = 16
"""This many tokens before the new ones are decoded and encoded with them, as tokens depend on their context."""


class TranslatingDraft:
    """A drafter that uses a draft model whose tokenizer differs from the target's.

    The text so far is encoded for the draft model, which continues it greedily by as many of its own tokens as the
    target requests; the text it adds is encoded for the target. Only ids that the target's tokenizer decodes to exactly
    that text are proposed; if the texts cannot be aligned, the draft is empty. Special tokens are translated if both
    tokenizers use the same name, end tokens to the other's end token; others are left out.

    Nothing is sampled: above temperature 0 the proposals count as certain, and rules that need the draft's
    probabilities or hidden states get none. Each round encodes the whole text again, some microseconds per token;
    the unchanged part stays in the draft's cache. One object may serve several decodings.

    Source: universal assisted decoding, as ``AssistedCandidateGeneratorDifferentTokenizers`` of transformers; string
    level exact match (SLEM) of Timor et al. 2025, arXiv 2502.05202.

    Args:
        model: the draft model.
        tokenizer: the draft's tokenizer.
        target_tokenizer: the target's tokenizer.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, target_tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._tokenizer, self._target = tokenizer, target_tokenizer
        self._lock = Lock()
        self._model = _RereadingDraft(model, output_size(model))
        self._device = model.device
        self._greedy = Sampler(SamplingParams(), model.device)
        self._context = context_length(model) or 2**31
        self._to_draft = _special_ids(target_tokenizer, tokenizer)
        self._to_target = _special_ids(tokenizer, target_tokenizer)
        # The ids that the draft expects before any text, such as a begin token.
        self._lead = lead_ids(tokenizer)

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Propose at most ``count`` tokens per row; none if the draft's text cannot be expressed in target tokens."""
        with self._lock:  # several threads may share this object, and its draft model has a single cache
            return self._propose(requests)

    def _propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        drafts = [Draft(request.ids[:0]) for request in requests]
        known = [request.tokens.host for request in requests]
        reading = [self._for_draft(ids) for ids in known]
        readable = [i for i, ids in enumerate(reading) if 0 < len(ids) < self._context]
        inner = [
            replace(
                requests[i],
                tokens=TokenBuffer(torch.tensor(reading[i], device=self._device)),
                count=min(requests[i].count, self._context - len(reading[i])) if self._is_whole(known[i]) else 0,
                sampler=self._greedy, distribution=False, norm=None,
            )
            for i in readable
        ]  # fmt: skip
        for i, draft in zip(readable, self._model.propose(inner) if inner else [], strict=True):
            new = self._for_target(known[i], reading[i], draft.ids.tolist())
            drafts[i] = Draft(requests[i].ids.new_tensor(new[: requests[i].count]))
        return drafts

    def _for_draft(self, ids: list[int]) -> list[int]:
        """Return the draft's ids for the text of ``ids``."""
        out: list[int] = []
        for special, run in groupby(ids, key=self._to_draft.__contains__):
            if special:
                out.extend(other for i in run if (other := self._to_draft[i]) is not None)
            else:
                out.extend(bare_ids(decode_ids(self._target, list(run)).rstrip(INCOMPLETE), self._tokenizer))
        return out if out[: len(self._lead)] == self._lead else [*self._lead, *out]

    def _is_whole(self, ids: list[int]) -> bool:
        """Whether the text of ``ids`` ends with a complete character."""
        return not decode_ids(self._target, _tail(ids, self._to_draft)).endswith(INCOMPLETE)

    def _for_target(self, ids: list[int], reading: list[int], drafted: list[int]) -> list[int]:
        """Return the target's ids for the text that ``drafted`` adds to ``reading``, the draft's ids for ``ids``."""
        plain = list(takewhile(lambda i: i not in self._to_target, drafted))
        window = _tail(reading, self._to_target)
        known, grown = (decode_ids(self._tokenizer, part) for part in (window, window + plain))
        if not grown.startswith(known):
            return []
        added = grown[len(known) :].partition(INCOMPLETE)[0]
        new, text = self._continued(_tail(ids, self._to_draft), added)
        end = self._to_target[drafted[len(plain)]] if text == added and len(plain) < len(drafted) else None
        return new if end is None else [*new, end]

    def _continued(self, tail: list[int], added: str) -> tuple[list[int], str]:
        """Return ids that, after ``tail``, add the text ``added`` or as much of it as possible, and the added text."""
        before = decode_ids(self._target, tail)
        whole = bare_ids(before + added, self._target)
        # Find where the text so far ends in the new encoding. The encoding may begin with other tokens than the tail,
        # even for the same text. If a token spans the boundary, the added text is encoded by itself.
        ends = [len(tail)] if whole[: len(tail)] == tail else range(len(whole) + 1)
        start = next((i for i in ends if decode_ids(self._target, whole[:i]) == before), None)
        new = bare_ids(added, self._target) if start is None else whole[start:]
        new = list(takewhile(lambda i: i not in self._to_draft, new))  # unknown words, and names of special tokens
        for count in range(len(new), 0, -1):
            text = decode_ids(self._target, tail + new[:count])
            if text.startswith(before) and added.startswith(text[len(before) :]):
                return new[:count], text[len(before) :]
        return [], ""


class _RereadingDraft(DraftModel):
    """A draft model whose rows may change anywhere: the cache keeps the prefix shared with the last call."""

    def __init__(self, model: PreTrainedModel, vocab_size: int) -> None:
        super().__init__(model, vocab_size)
        self._read: dict[int, list[int]] = {}
        self._rewound_to: dict[int, int] = {}

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """See `DraftModel.propose`."""
        drafts = super().propose(requests)
        self._read = {a.row: [*a.tokens.host, *d.ids.tolist()] for a, d in zip(requests, drafts, strict=True)}
        return drafts

    def _unchanged(self, requests: Sequence[DraftRequest]) -> list[int]:
        same = [_common(self._read.get(request.row, []), request.tokens.host[:-1]) for request in requests]
        # A sliding window no longer holds the tokens before the position of the last rollback.
        if not self._can_batch and any(
            n < self._rewound_to.get(request.row, 0) for n, request in zip(same, requests, strict=True)
        ):
            self._lm = None
        self._rewound_to = {request.row: n for request, n in zip(requests, same, strict=True)}
        return same


def _tail(ids: list[int], specials: Collection[int]) -> list[int]:
    """Return the last few of ``ids``, at most back to the last special token."""
    return list(takewhile(lambda i: i not in specials, reversed(ids[-_WINDOW:])))[::-1]


def _common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _special_ids(source: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> dict[int, int | None]:
    """Map each special token of ``source`` to that of ``other`` with the same name or use, or to None."""
    theirs, end = _specials(other), source.eos_token_id
    meaningless = (source.unk_token_id, source.pad_token_id)
    ids = {i: None if i in meaningless else theirs.get(token) for token, i in _specials(source).items()}
    if end is not None and ids[end] is None:
        ids[end] = other.eos_token_id
    return ids


def _specials(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the special tokens by name: those with a role, and those that only the decoder marks as special."""
    added = {str(token): i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
