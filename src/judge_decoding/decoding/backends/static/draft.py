"""The static draft: several tokens per call, without synchronising before the target has read them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.backends.static.compiling import CompileProgress, compile_draft, default_folder, has_few
from judge_decoding.decoding.backends.static.kv_cache import StaticKVCache
from judge_decoding.decoding.backends.static.lm import CompiledForwards, StaticLM, are_few, in_parts
from judge_decoding.decoding.backends.static.slots import KeysValues
from judge_decoding.decoding.drafters.base import Draft, DraftBuffer, DraftRequest
from judge_decoding.decoding.drafters.model import DraftModel

LAYERS = 16
"""A call runs about this many layers: enough to make its overhead small, few enough to compile quickly."""
MOST_STEPS = 4
COLUMNS = 512
"""The initial capacity in tokens per row; it doubles when full."""


class CompiledDraft:
    """A draft model compiled ahead of time, for any number of consecutive decodings.

    ``vocab_size`` is the size of the target's logits. For the other parameters and errors see `StaticTarget`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        vocab_size: int,
        *,
        progress: CompileProgress = lambda _: None,
        folder: Path | None = None,
    ) -> None:
        self.model, self.vocab_size = model, vocab_size
        self._forwards = CompiledForwards(model, progress, folder)
        self.steps = max(min(LAYERS // model.config.get_text_config().num_hidden_layers, MOST_STEPS), 1)
        folder = folder or default_folder()
        self._few = has_few(model)
        self._wide = compile_draft(model, 1, vocab_size, progress, folder)
        self._greedy = self._wide
        if self._few or self.steps > 1:
            self._greedy = compile_draft(model, self.steps, vocab_size, progress, folder, few=self._few)

    def forward(self, tokens: Tensor, *others: Tensor | KeysValues) -> list[Tensor]:
        """See `CompiledForward`; used for drafts that are not greedy, and compiled on first use."""
        return self._forwards.for_sources(set())[1](tokens, *others)

    def drafter(self) -> StaticDraft:
        """Return the drafter for one decoding; its KV cache belongs to that decoding's rows."""
        return StaticDraft(self)

    def draft_greedily(self, tokens: Tensor, kv_cache: StaticKVCache, end: int, count: int) -> Tensor:
        """Read ``tokens`` [B, 1 + T] and draft ``count`` more greedily; return the target's next input [B, 2 + count].

        It consists of position and id of each row's last token, and the chosen tokens. ``end`` is the longest row's
        number of tokens before the draft. No call waits for the previous one.
        """
        columns = kv_cache.columns(end + count + self.steps)
        parts: list[Tensor] = []
        left = count
        while left > 0:
            several = 2 * left > self.steps and (are_few(tokens) or not self._few)
            more, tokens = (self._greedy if several else self._wide)(tokens, columns, kv_cache.cache)
            left -= more.shape[1] - 2
            parts.append(more[:, 2:] if parts else more)
        found = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return found[:, : 2 + count].contiguous() if left else found

    def prefill(self, rows: Sequence[Tensor], kv_cache: StaticKVCache) -> None:
        """Read the first tokens of empty rows."""
        for tokens, end in in_parts(rows):
            self._wide(tokens, kv_cache.columns(end), kv_cache.cache)
        kv_cache.lengths = [len(row) for row in rows]


class StaticDraft(DraftModel):
    """A compiled draft during one decoding. What is not plainly greedy is drafted step by step, by `DraftModel`."""

    def __init__(self, compiled: CompiledDraft) -> None:
        super().__init__(compiled.model, compiled.vocab_size)
        self._compiled = compiled
        self._can_batch = True
        self._eager: DraftModel | None = None

    def _propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        rows: list[int] = []
        count = 0
        for request in requests:
            if not request.plain:
                return self._otherwise(requests)
            rows.append(request.row)
            count = max(count, request.count)
        lm = self._narrowed(tuple(rows))
        assert isinstance(lm, StaticLM)  # see `_new_lm`
        kv_cache = lm.kv_cache
        if not any(kv_cache.lengths):
            self._compiled.prefill([request.ids[:-1].to(kv_cache.device) for request in requests], kv_cache)
        sizes = [len(request.tokens) for request in requests]
        # The last token is read again; after a fully accepted draft, the draft's last token is new, too.
        missing = max(1, *map(sub, sizes, kv_cache.lengths))
        # Rows that lack fewer tokens read known tokens again; at negative positions they read the first token.
        last = [
            [size - missing, *_last(request.tokens.host, missing)]
            for size, request in zip(sizes, requests, strict=True)
        ]
        batch = self._compiled.draft_greedily(kv_cache.tokens(last), kv_cache, max(sizes), count)
        kv_cache.lengths = [size + count - 1 for size in sizes]
        return [
            Draft.from_buffer(DraftBuffer(batch, i, request.tokens, size), request.count)
            for i, (request, size) in enumerate(zip(requests, sizes, strict=True))
        ]

    def _otherwise(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        if not any(request.norm for request in requests):
            return super()._propose(requests)
        # The compiled draft does not return hidden states.
        self._eager = self._eager or DraftModel(self._model, self._vocab_size)
        return self._eager.propose(requests)

    def _new_lm(self, rows: int) -> StaticLM:
        return StaticLM(self._model, self._compiled.forward, StaticKVCache(self._model, rows, COLUMNS))


def _last(ids: list[int], count: int) -> list[int]:
    """Return the last ``count`` of ``ids``, with the first one repeated if there are fewer."""
    return [ids[0]] * (count - len(ids)) + ids[-count:]
