"""The verification of one draft: what is kept of it, which token of the target follows, and the round that tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from judge_decoding.decoding.backends import Reading, Told
from judge_decoding.decoding.details import details_of
from judge_decoding.decoding.drafting import Draft
from judge_decoding.decoding.rounds import Cause, Round
from judge_decoding.models.forward import check_finite, finite
from judge_decoding.rules.base import Evidence
from judge_decoding.rules.judge import Judge

if TYPE_CHECKING:
    from judge_decoding.decoding.loop import Row


def verify(row: Row, draft: Draft, reading: Reading) -> Round:
    """Keep the longest accepted prefix of the draft and one token of the target after it."""
    if reading.told is not None:
        return _usual(row, reading.told)
    request, count = row.request, len(draft.ids)
    rule, sampler = request.rule, request.sampler
    ids, logits = torch.cat((row.tokens.ids, draft.ids))[None], reading.logits
    evidence = _evidence(row, draft, ids, logits, reading)
    verdicts = torch.stack([part.accept(evidence)[0] for part in rule.parts])
    if (allowed := sampler.allowed(ids, logits[None], draft.ids)) is not None:
        verdicts &= allowed
    lossless = [part.lossless for part in rule.parts]
    agreed = torch.stack((evidence.agreed[0], *verdicts[lossless])).any(0)
    kept = wanted = verdicts.any(0)
    for guard in request.guards:
        kept = (kept & agreed) | guard.permit(kept & ~agreed, evidence, row.history)
    sound = [finite(logits), *([] if draft.probs is None else [finite(draft.probs)])]
    # Whether the numbers are finite is asked with what waits for the device anyway.
    accepted, *good = torch.stack([kept.long().cumprod(0).sum(), *sound]).tolist()
    for role, fine in zip(("target", "draft"), good, strict=False):
        check_finite(bool(fine), role)
    whole = accepted == count
    if sampler.greedy:
        own = evidence.target_ids[0, accepted]
    elif whole:
        own = sampler.draw(evidence.target_probs[:, accepted])[0]
    elif wanted[accepted]:  # a guard said no: as if verification were standard
        own = sampler.draw(evidence.residual(accepted))[0]
    else:
        own = sampler.draw(rule.replacement(evidence, accepted))[0]
    found = rule.scores(evidence)
    scores = None if found is None else found[0].tolist()
    names, first = [part.name for part in rule.parts], verdicts.long().argmax(0).tolist()
    event = _round(
        row, draft.ids.tolist(), evidence.target_ids[0].tolist(), agreed.tolist(), [names[i] for i in first],
        accepted, int(own), scores,
    )  # fmt: skip
    if not (request.logprobs or request.details):
        return event
    return replace(
        event,
        logprobs=_logprobs(event.token_ids, evidence) if request.logprobs else None,
        details=details_of(evidence, agreed, draft) if request.details else None,
    )


def _usual(row: Row, told: Told) -> Round:
    """The round of a greedy draft and a rule that was asked in the forward: exact, or a judge."""
    rule = row.request.rule
    agreed = [draft == own for draft, own in zip(told.draft_ids, told.target_ids, strict=False)]
    kept, scores = agreed, None
    if isinstance(rule, Judge) and told.draft_ids:
        scores = told.scores
        assert scores is not None
        kept = [a or rule.rescues(score) for a, score in zip(agreed, scores, strict=True)]
    accepted = kept.index(False) if False in kept else len(kept)
    return _round(
        row, told.draft_ids, told.target_ids, agreed, [rule.name] * len(kept), accepted, told.target_ids[accepted],
        scores,
    )  # fmt: skip


def _evidence(row: Row, draft: Draft, ids: Tensor, logits: Tensor, reading: Reading) -> Evidence:
    """What the rule decides by; ``ids`` [1, T + M] is all that the target has read."""
    request, count = row.request, len(draft.ids)
    rule, sampler = request.rule, request.sampler
    hidden = reading.states(rule.place)[1:] if rule.place and count else None
    # What only the details asked for is hidden from rules and guards, so that details change no token.
    asked = rule.needs_draft_probs or request.length.stop_below or not request.details
    seen = draft.distribution if asked else None
    return Evidence(
        draft_ids=draft.ids[None],
        target_logits=sampler.process(ids, logits[None]),
        draft_probs=None if draft.probs is None else draft.probs[None],
        draft_distribution=None if seen is None else seen[None],
        # A target over several devices has its last layer on another one than its input and output.
        hidden=None if hidden is None else hidden[None].to(logits.device),
        draft_hidden=None if draft.hidden is None else draft.hidden[None],
        uniform=sampler.uniform(count),
        greedy=sampler.greedy,
    )


def _round(
    row: Row,
    draft_ids: Sequence[int],
    target_ids: Sequence[int],
    agreed: Sequence[bool],
    rescuers: Sequence[str],
    accepted: int,
    own: int,
    scores: Sequence[float] | None,
) -> Round:
    """What became of the draft: ``accepted`` of its tokens and the target's ``own`` one, cut at an end token.

    ``agreed`` tells what standard verification keeps of the M draft tokens, ``rescuers`` which rule keeps the others.
    """
    tokens = [*draft_ids[:accepted], own]
    causes = [Cause.AGREED if agreed[i] else Cause.RESCUED for i in range(accepted)]
    causes.append(Cause.BONUS if accepted == len(draft_ids) else Cause.CORRECTION)
    end_ids = row.request.end_ids
    end = next((i for i, token in enumerate(tokens, 1) if token in end_ids), None)
    cut = min(end or len(tokens), row.left)
    return Round(
        draft_ids=tuple(draft_ids),
        token_ids=tuple(tokens[:cut]),
        causes=tuple(causes[:cut]),
        target_ids=tuple(target_ids),
        scores=None if scores is None else tuple(scores),
        stopped=end is not None and end <= cut,
        rescuers=tuple(rescuers[i] if cause is Cause.RESCUED else "" for i, cause in enumerate(causes[:cut])),
    )


def _logprobs(token_ids: Sequence[int], evidence: Evidence) -> tuple[float, ...]:
    """The target's log-probability of each kept token."""
    chosen = evidence.draft_ids.new_tensor(token_ids)[:, None]
    found = evidence.target_logits[0, : len(token_ids)].log_softmax(-1).gather(-1, chosen)[:, 0]
    return tuple(found.tolist())
