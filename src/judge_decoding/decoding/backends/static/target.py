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
from judge_decoding.decoding.backends.static.lm import CompiledForwards, StaticLM
from judge_decoding.decoding.backends.static.memory import StaticKVCache
from judge_decoding.decoding.drafters.base import Draft
from judge_decoding.decoding.tokens import TokenBuffer
from judge_decoding.models.forward import check_finite
from judge_decoding.rules.base import Fused

if TYPE_CHECKING:
    from judge_decoding.decoding.request import Request, SequenceState


class StaticTarget:
    """A target compiled ahead of time.

    Args:
        model: the target.
        sources: where judges will read hidden states, to compile the target once for all of them.
        progress: called before the target is compiled, which takes from half a minute to some minutes, once.
        folder: the folder of compiled code.

    Raises:
        CannotCompileError: this model cannot be compiled; decode with the eager back end.
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
        told, run = self._forwards.for_sources(sources)
        # The forward pass applies one judge, at the first source; other judges are computed after it.
        fused = [_fused(row.request) for row in rows]
        judge = next((own for own in fused if own and own.source == told[0]), None)
        columns = max(len(row.tokens) + row.request.max_new_tokens for row in rows)
        weights = (judge.weight, judge.bias) if judge else (None, None)
        lm = StaticLM(self.model, run, StaticKVCache(self.model, len(rows), columns), *weights)
        usual = [own is not None and (own.source is None or _same(own, judge)) for own in fused]
        return StaticSession(lm, told, usual)


def _fused(request: Request) -> Fused | None:
    """Return the fused rule if the forward pass can compute all that a round of this request needs, else None."""
    plain = request.sampler.plain and not (request.guards or request.logprobs or request.details)
    return request.rule.fused() if plain else None


def _same(one: Fused, other: Fused | None) -> bool:
    """Whether both use the same judge; their thresholds are applied to its scores on the host."""
    return other is not None and one.source == other.source and one.weight is other.weight and one.bias is other.bias


def _batch(rows: Sequence[TokenBuffer], drafts: Sequence[Draft]) -> Tensor | None:
    """Return the target's whole input as one tensor, if a compiled draft has prepared it."""
    batch = drafts[0].origin.batch if drafts[0].origin else None
    if batch is None or batch.shape[0] != len(rows):
        return None
    for i, draft in enumerate(drafts):
        if draft.origin is None or not draft.origin.is_of(batch, i, rows[i]):
            return None
    return batch


class StaticSession:
    """A static target during one decoding.

    Args:
        lm: the target, with a judge in its forward pass.
        sources: the sources whose hidden states it returns.
        usual: for which rows the fused results of the forward pass are enough.
    """

    def __init__(self, lm: StaticLM, sources: tuple[HiddenSource, ...], usual: Sequence[bool]) -> None:
        self._lm, self._sources, self._usual = lm, sources, list(usual)

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
        if (batch := _batch(rows, drafts)) is not None and batch.device == self._lm.memory.device:
            output = self._lm.read_batch(batch, counts)
        else:
            output = self._lm.append([row.host[-1:] for row in rows], [draft.ids for draft in drafts])
        states = dict(zip(self._sources, output.states, strict=True))
        # The only synchronisation of a usual round.
        told = output.told.tolist() if any(self._usual) else None
        fused = [self._fused(told, i, count) if told and self._usual[i] else None for i, count in enumerate(counts)]
        return [VerifyOutput(output.logits, states, i, count, fused[i]) for i, count in enumerate(counts)]

    def _fused(self, told: list[list[list[float]]], row: int, count: int) -> FusedVerdict:
        read, own, scores = told[0][row], told[1][row], told[2][row]
        check_finite(not any(map(isnan, scores[:count])))
        return FusedVerdict(list(map(int, read[1:count])), list(map(int, own[:count])), scores[1:count])

    def keep(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """See `TargetSession.keep`."""
        self._lm.select(rows)
        self._lm.rewind_to(lengths)
        self._usual = [self._usual[row] for row in rows]
