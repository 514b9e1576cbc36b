"""The eager back end: any causal LM of transformers, run as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.base import TargetSession, VerifyOutput
from judge_decoding.decoding.drafters.base import Draft, TokenBuffer
from judge_decoding.decoding.request import SequenceState
from judge_decoding.models.abilities import abilities, can_batch, check_reads, check_rewinds
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.context import RopeBorder, rope_border
from judge_decoding.models.hidden import HiddenStateHook, opened

MOST_REREAD = 32
"""At most this many tokens are read again before a draft; a forward pass of a few dozen tokens costs little more."""


class EagerTarget:
    """Any causal LM of transformers, run as it is."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def can_batch(self) -> bool:
        """See `judge_decoding.models.abilities`."""
        return can_batch(self.model)

    @property
    def border(self) -> RopeBorder | None:
        """See `judge_decoding.models.context`."""
        return rope_border(self.model)

    def check(self, *, drafts: bool) -> None:
        """See `judge_decoding.models.abilities`."""
        (check_rewinds if drafts else check_reads)(self.model)

    def open(self, rows: Sequence[SequenceState], sources: set[HiddenSource]) -> TargetSession:
        """Return an eager session."""
        return _EagerSession(self.model, len(rows), sources)


class _EagerSession:
    def __init__(self, model: PreTrainedModel, rows: int, sources: set[HiddenSource]) -> None:
        rewind = abilities(model).rewind
        self._lm, self._restores = CachedLM(model, rows, rewind=rewind), rewind == "restore"
        self._border = rope_border(model)
        self._hooks = {source: HiddenStateHook(model, source) for source in sources}

    def prefill(self, rows: Sequence[Tensor], source: HiddenSource | None = None) -> list[Tensor]:
        # A prompt that cannot be read in parts is read by `read`, together with its last token.
        whole = self._border is None or all(self._border.splits(len(row) + 1) for row in rows)
        if not (whole and any(map(len, rows))):
            return [torch.empty(0, 0)] * len(rows)
        with opened([self._hooks[source]] if source else []):
            self._lm.read(rows, [0] * len(rows))
            return [self._hooks[source].states[i, : len(row)] for i, row in enumerate(rows)] if source else []

    def longest_draft(self, row: int, tokens: int) -> int | None:
        # After a partly rejected draft, recurrent layers read its accepted tokens again before the next draft. Once
        # there are too many of these, one token is read without a draft, so that nothing can be rejected.
        if self._restores and tokens - 1 - self._lm.lengths[row] > MOST_REREAD:
            return 0
        return None if self._border is None else self._border.longest_draft(tokens)

    def read(self, rows: Sequence[TokenBuffer], drafts: Sequence[Draft]) -> list[VerifyOutput]:
        counts = [draft.ids.shape[0] + 1 for draft in drafts]
        if self._border is not None:
            self._lm.prepare([len(row) - 1 + count for row, count in zip(rows, counts, strict=True)])
        new = [
            torch.cat((draft.ids.new_tensor(row.host[known:]), draft.ids))
            for row, draft, known in zip(rows, drafts, self._lm.lengths, strict=True)
        ]
        if max(counts) > 1:
            self._lm.checkpoint()
        with opened(self._hooks.values()):
            logits = self._lm.read(new, counts)
            states = {source: hook.states for source, hook in self._hooks.items()}
        # Only a batch of one row ever reads more than the last kept token and the draft.
        before = len(new[0]) - counts[0] if len(new) == 1 else 0
        return [VerifyOutput(logits, states, i, count, before=before) for i, count in enumerate(counts)]

    def retain(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        self._lm.select(rows)
        self._lm.rewind_to(lengths)
