"""The verification of one draft: what is kept of it, which token of the target follows, and the round that tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from judge_decoding.decoding.details import details_of
from judge_decoding.decoding.drafting import Draft
from judge_decoding.decoding.models import Norm
from judge_decoding.decoding.rounds import Cause, Round
from judge_decoding.rules.base import Evidence

if TYPE_CHECKING:
    from judge_decoding.decoding.loop import Row


def verify(row: Row, draft: Draft, logits: Tensor, states: Mapping[tuple[Norm, int], Tensor]) -> Round:
    """Keep the longest accepted prefix of the draft and one token of the target after it.

    ``logits`` are the target's [M+1, V], ``states`` its hidden states at the draft tokens [M, H], by norm and layer.
    """
    request, count = row.request, len(draft.ids)
    rule, sampler = request.rule, request.sampler
    ids = torch.cat((row.ids, draft.ids))[None]
    evidence = _evidence(row, draft, ids, logits, states)
    verdicts = torch.stack([part.accept(evidence)[0] for part in rule.parts])
    if (allowed := sampler.allowed(ids, logits[None], draft.ids)) is not None:
        verdicts &= allowed
    lossless = [part.lossless for part in rule.parts]
    agreed = torch.stack((evidence.agreed[0], *verdicts[lossless])).any(0)
    kept = wanted = verdicts.any(0)
    for guard in request.guards:
        kept = (kept & agreed) | guard.permit(kept & ~agreed, evidence, row.history)
    accepted = int(kept.long().cumprod(0).sum())  # the one synchronisation of the round
    whole = accepted == count
    if sampler.greedy:
        own = evidence.target_ids[0, accepted]
    elif whole:
        own = sampler.draw(evidence.target_probs[:, accepted])[0]
    elif wanted[accepted]:  # a guard said no: as if verification were standard
        own = sampler.draw(evidence.residual(accepted))[0]
    else:
        own = sampler.draw(rule.replacement(evidence, accepted))[0]
    return _round(row, draft, evidence, verdicts, agreed, accepted, int(own))


def _evidence(
    row: Row, draft: Draft, ids: Tensor, logits: Tensor, states: Mapping[tuple[Norm, int], Tensor]
) -> Evidence:
    """What the rule decides by; ``ids`` [1, T + M] is all that the target has read."""
    request, count = row.request, len(draft.ids)
    rule, sampler = request.rule, request.sampler
    hidden = states[rule.place] if rule.place and count else None
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
    row: Row, draft: Draft, evidence: Evidence, verdicts: Tensor, agreed: Tensor, accepted: int, own: int
) -> Round:
    """What became of the draft: ``accepted`` of its tokens and the target's ``own`` one, cut at an end token.

    ``verdicts`` are those of the rule's parts [P, M], ``agreed`` standard verification's [M].
    """
    request = row.request
    draft_ids, agreed_list = draft.ids.tolist(), agreed.tolist()
    tokens = [*draft_ids[:accepted], own]
    causes = [Cause.AGREED if agreed_list[i] else Cause.RESCUED for i in range(accepted)]
    causes.append(Cause.BONUS if accepted == len(draft_ids) else Cause.CORRECTION)
    names, first = [part.name for part in request.rule.parts], verdicts.long().argmax(0).tolist()
    rescuers = [names[first[i]] if cause is Cause.RESCUED else "" for i, cause in enumerate(causes)]
    end = next((i + 1 for i, token in enumerate(tokens) if token in request.end_ids), None)
    cut = min(len(tokens) if end is None else end, row.left)
    scores = request.rule.scores(evidence)
    logprobs = None
    if request.logprobs:
        chosen = draft.ids.new_tensor(tokens[:cut])[:, None]
        logprobs = tuple(evidence.target_logits[0, :cut].log_softmax(-1).gather(-1, chosen)[:, 0].tolist())
    return Round(
        draft_ids=tuple(draft_ids),
        token_ids=tuple(tokens[:cut]),
        causes=tuple(causes[:cut]),
        target_ids=tuple(evidence.target_ids[0].tolist()),
        scores=None if scores is None else tuple(scores[0].tolist()),
        stopped=end is not None and end <= cut,
        rescuers=tuple(rescuers[:cut]),
        logprobs=logprobs,
        details=details_of(evidence, agreed, draft) if request.details else None,
    )
