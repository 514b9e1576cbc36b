"""The static target: one compiled forward pass per round, including the judge, and one transfer to the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.base import FusedVerdict, VerifyOutput
from judge_decoding.decoding.backends.static.compiling import CompileProgress
from judge_decoding.decoding.backends.static.kv_cache import StaticKVCache
from judge_decoding.decoding.backends.static.lm import CompiledForwards, StaticLM
from judge_decoding.decoding.drafters.base import Draft, TokenBuffer
from judge_decoding.models.forward import check_finite
from judge_decoding.rules.base import Fused

if TYPE_CHECKING:
    from judge_decoding.decoding.request import Request, SequenceState


class StaticTarget:
    """A target compiled ahead of time, and kept in ``folder``.

    It is compiled once for all ``sources``, where judges will read hidden states. ``progress`` is called before that,
    which takes from half a minute to some minutes. Raises `CannotCompileError`; such a model runs in the eager back
    end.
    """

    can_batch = True
    border = None

    def __init__(
        self,
        model: PreTrainedModel,
        sources: Iterable[HiddenSource] = (),
        *,
        progress: CompileProgress = lambda _: None,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self._forwards = CompiledForwards(model, progress, folder)
        self._forwards.for_sources(set(sources))

    def check(self, *, drafts: bool) -> None:
        """See `TargetBackend.check`: a compiled target can do both."""

    def open(self, rows: Sequence[SequenceState], sources: set[HiddenSource]) -> StaticSession:
        """Start decoding ``rows``, whose rules read hidden states at ``sources``."""
        returned, run = self._forwards.for_sources(sources)
        # The forward pass applies one judge, at the first source; other judges are computed after it.
        fused = [_fused(row.request) for row in rows]
        judge = next((one for one in fused if one and one.source == returned[0]), None)
        columns = max(len(row.tokens) + row.request.max_new_tokens for row in rows)
        weights = (judge.weight, judge.bias) if judge else (None, None)
        lm = StaticLM(self.model, run, StaticKVCache(self.model, len(rows), columns), *weights)
        is_fused = [one is not None and (one.source is None or _same(one, judge)) for one in fused]
        return StaticSession(lm, returned, is_fused)


def _fused(request: Request) -> Fused | None:
    """Return the fused rule if the forward pass can compute all that a round of this request needs, else None."""
    plain = request.sampler.plain and not (request.guards or request.logprobs or request.details)
    return request.rule.fused() if plain else None


def _same(one: Fused, other: Fused | None) -> bool:
    """Whether both use the same judge; their thresholds are applied to its scores on the host."""
    return other is not None and one.source == other.source and one.weight is other.weight and one.bias is other.bias


def _batch(rows: Sequence[TokenBuffer], drafts: Sequence[Draft]) -> Tensor | None:
    """Return the target's whole input as one tensor, if a compiled draft has prepared it."""
    batch = drafts[0].buffer.batch if drafts[0].buffer else None
    if batch is None or batch.shape[0] != len(rows):
        return None
    for i, draft in enumerate(drafts):
        if draft.buffer is None or not draft.buffer.is_of(batch, i, rows[i]):
            return None
    return batch


class StaticSession:
    """A static target during one decoding.

    It returns the hidden states of ``sources``. ``is_fused`` says for which rows the fused results are enough.
    """

    def __init__(self, lm: StaticLM, sources: tuple[HiddenSource, ...], is_fused: Sequence[bool]) -> None:
        self._lm, self._sources, self._is_fused = lm, sources, list(is_fused)

    def prefill(self, rows: Sequence[Tensor], source: HiddenSource | None = None) -> list[Tensor]:
        """See `TargetSession.prefill`. With drafters that read hidden states the target runs eager; see `Engine`."""
        assert source is None
        self._lm.prefill(rows)
        return []

    def longest_draft(self, row: int, tokens: int) -> int | None:
        """Return None: the compiled target has no limit."""
        return None

    def read(self, rows: Sequence[TokenBuffer], drafts: Sequence[Draft]) -> list[VerifyOutput]:
        """See `TargetSession.read`."""
        counts = [draft.ids.shape[0] + 1 for draft in drafts]
        if (batch := _batch(rows, drafts)) is not None and batch.device == self._lm.kv_cache.device:
            output = self._lm.read_batch(batch, counts)
        else:
            output = self._lm.append([row.host[-1:] for row in rows], [draft.ids for draft in drafts])
        states = dict(zip(self._sources, output.states, strict=True))
        # The only synchronisation of a round whose rules are all fused.
        packed = output.packed.tolist() if any(self._is_fused) else None
        fused = [
            self._fused(packed, i, count) if packed and self._is_fused[i] else None for i, count in enumerate(counts)
        ]
        return [VerifyOutput(output.logits, states, i, count, fused[i]) for i, count in enumerate(counts)]

    def _fused(self, packed: list[list[list[float]]], row: int, count: int) -> FusedVerdict:
        draft_ids, target_ids, scores = (part[row] for part in packed)
        check_finite(not any(map(isnan, scores[:count])))
        return FusedVerdict(list(map(int, draft_ids[1:count])), list(map(int, target_ids[:count])), scores[1:count])

    def retain(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """See `TargetSession.retain`."""
        self._lm.select(rows)
        self._lm.rewind_to(lengths)
        self._is_fused = [self._is_fused[row] for row in rows]
