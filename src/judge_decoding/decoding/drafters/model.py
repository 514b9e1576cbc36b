"""A draft model: a small causal LM with the target's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.drafters.base import Draft, DraftRequest
from judge_decoding.models.abilities import abilities, can_batch, check_rewinds
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.context import context_length, rope_border
from judge_decoding.models.draft_vocabulary import cut_head_of
from judge_decoding.models.forward import input_rows
from judge_decoding.models.hidden import HiddenStateHook

if TYPE_CHECKING:
    from judge_decoding.decoding.backends.static.lm import StaticLM


class DraftModel:
    """A small causal LM with the target's vocabulary; it drafts for one decoding at a time.

    It proposes nothing once its context is full.

    Args:
        model: the draft model.
        vocab_size: the size of the target's logits.

    Raises:
        JudgeDecodingError: its KV cache cannot be rolled back.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int) -> None:
        check_rewinds(model, "draft")
        self._model, self._rewind = model, abilities(model).rewind
        self._border = rope_border(model)
        self._lm: CachedLM | StaticLM | None = None
        self._rows: tuple[int, ...] = ()
        self._vocab_size = vocab_size
        self._cut = cut_head_of(model) is not None
        self._last_id = input_rows(model) - 1
        self._can_batch = can_batch(model) and self._border is None
        self._single: dict[int, DraftModel] = {}
        self._context = context_length(model) or 2**31

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Propose ``count`` tokens per row, chosen by the row's sampler; fewer at the end of the context."""
        if all(len(request.tokens) + request.count <= self._context for request in requests):
            return self._propose(requests)
        fitting = {
            request.row: replace(request, count=min(request.count, self._context - len(request.tokens)))
            for request in requests
            if len(request.tokens) < self._context
        }
        drafts = dict(zip(fitting, self._propose(list(fitting.values())) if fitting else [], strict=True))
        return [drafts.get(request.row) or Draft(request.ids[:0]) for request in requests]

    def _propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        if not self._can_batch and (len(requests) > 1 or self._single):  # then each row has its own cache
            another = partial(type(self), self._model, self._vocab_size)
            self._single = {request.row: self._single.get(request.row) or another() for request in requests}
            return [self._single[request.row]._propose([request])[0] for request in requests]
        rows = [_GrowingDraft(request, self._vocab_size, cut=self._cut) for request in requests]
        unchanged = self._unchanged(requests)
        lm = self._narrowed(tuple(request.row for request in requests))
        # The cache may hold rejected tokens, and lacks the last draft token if all were accepted.
        lm.rewind_to(unchanged)
        if self._border is not None:
            lm.prepare([len(request.tokens) for request in requests])
        new = [self._in_vocabulary(request.ids[length:]) for request, length in zip(requests, lm.lengths, strict=True)]
        if not max(lm.lengths) and max(map(len, new)) > 1:  # a whole prompt's logits would take V numbers per token
            lm.read([ids[:-1] for ids in new], [0] * len(rows))
            new = [ids[-1:] for ids in new]
        norm = next((request.norm for request in requests if request.norm), None)
        with HiddenStateHook(self._model, HiddenSource(-1, norm)) if norm else nullcontext() as tap:
            known = True  # the tokens read first are final; those drafted after them may be rejected
            while any(row.open for row in rows):
                logits = lm.read(new, [1] * len(rows))
                if known:
                    lm.checkpoint()
                    known = False
                if tap:
                    _collect(rows, tap)
                # A row whose draft is complete reads nothing while the others continue.
                new = [self._in_vocabulary(row.draw(own)) for row, own in zip(rows, logits, strict=True)]
            if tap and any(map(len, new)):  # the last token must be read to get its hidden state
                lm.read(new, [0] * len(rows))
                _collect(rows, tap)
        return [row.draft() for row in rows]

    def _unchanged(self, requests: Sequence[DraftRequest]) -> list[int]:
        """Return how many tokens of each row may stay in the cache; the last one is read again, for its logits."""
        return [len(request.tokens) - 1 for request in requests]

    def _in_vocabulary(self, ids: Tensor) -> Tensor:
        return ids.clamp(max=self._last_id).to(self._model.device)

    def _narrowed(self, rows: tuple[int, ...]) -> CachedLM | StaticLM:
        """Return the cache of these rows: the last call's without the rows that have left, or a new one."""
        if self._lm is not None and rows == self._rows:
            return self._lm
        indices = [self._rows.index(row) for row in rows if row in self._rows]
        if self._lm is None or len(indices) < len(rows) or indices != sorted(indices):
            self._lm = self._new_lm(len(rows))
        else:
            self._lm.select(indices)
        self._rows = rows
        return self._lm

    def _new_lm(self, rows: int) -> CachedLM | StaticLM:
        return CachedLM(self._model, rows, rewind=self._rewind)


class _GrowingDraft:
    def __init__(self, request: DraftRequest, vocab_size: int, *, cut: bool) -> None:
        self._request = request
        self._vocab_size, self._cut = vocab_size, cut
        self._ids = request.ids
        self._probs: list[Tensor] = []
        self._states: list[Tensor] = []
        self.open = request.count > 0

    def draw(self, logits: Tensor) -> Tensor:
        """Choose the next token [1] from the draft's ``logits`` [1, V']; empty if the draft is finished."""
        request, sampler = self._request, self._request.sampler
        if not self.open:
            return self._ids[:0]
        logits = sampler.process(self._ids[None], self._fit(logits.to(self._ids.device))[None])[0]
        if self._cut and not sampler.is_bare and not bool(logits.isfinite().any()):
            self.open = False  # every token that the draft could propose is forbidden
            return self._ids[:0]
        if not sampler.greedy or request.distribution or request.stop_below:
            self._probs.append(logits.softmax(-1))
        token = logits.argmax(-1) if sampler.greedy else sampler.draw(self._probs[-1])
        self._ids = torch.cat((self._ids, token))
        unsure = request.stop_below and bool(self._probs[-1][0, token[0]] < request.stop_below)
        self.open = self.drawn < request.count and not unsure
        return token

    @property
    def drawn(self) -> int:
        """The number of tokens drafted so far."""
        return len(self._ids) - len(self._request.ids)

    def add_state(self, state: Tensor) -> None:
        """Store the hidden state [Hd] at the last drafted token, once."""
        if len(self._states) < self.drawn:
            self._states.append(state.to(self._ids.device))

    def draft(self) -> Draft:
        """Return the complete draft."""
        return Draft(
            self._ids[len(self._request.ids) :],
            probs=torch.cat(self._probs) if self._probs else None,
            hidden=torch.stack(self._states) if self._states else None,
        )

    def _fit(self, logits: Tensor) -> Tensor:
        """Cut or pad to the target's vocabulary size: models of one family pad their embeddings differently."""
        missing = self._vocab_size - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits


def _collect(rows: Sequence[_GrowingDraft], tap: HiddenStateHook) -> None:
    """Give each row the hidden state at the token it has just read: each row reads at most one token."""
    for row, states in zip(rows, tap.states, strict=True):
        row.add_state(states[0])
