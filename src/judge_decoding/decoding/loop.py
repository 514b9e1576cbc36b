"""The loop of judge decoding: ids in, rounds out.

Each round the drafter proposes M tokens; the target reads its last token and the whole draft in one
forward, which gives its distribution at M+1 positions and its hidden state *at* every draft token; the rule
says which draft tokens to keep; the longest accepted prefix stays, and one token of the target follows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.drafting import Draft, Drafter
from judge_decoding.decoding.models import CachedLM, HiddenTap
from judge_decoding.decoding.rounds import Cause, Round
from judge_decoding.decoding.sampling import Sampler
from judge_decoding.rules.base import Evidence, VerificationRule


@torch.inference_mode()
def decode(
    target: PreTrainedModel,
    drafter: Drafter | None,
    prompt_ids: Tensor,
    rule: VerificationRule,
    sampler: Sampler,
    *,
    num_draft_tokens: int,
    max_new_tokens: int,
    end_ids: Collection[int] = (),
) -> Iterator[Round]:
    """Decode after ``prompt_ids`` [1, T], T >= 1, and yield each round as it ends.

    Without a drafter this is plain decoding: rounds of an empty draft and one bonus token. Memory is freed
    when the generator is exhausted or closed. Source: Leviathan et al. 2023, algorithm 1; Judge Decoding
    (arXiv 2501.19309), section 4, for the judge's place in it.
    """
    lm, ids, left = CachedLM(target), prompt_ids, max_new_tokens
    if ids.shape[1] > 1:
        lm.read(ids[:, :-1], keep=1)
        if drafter is not None:
            lm.check_rewinds()
    with ExitStack() as stack:
        tap = stack.enter_context(HiddenTap(target, rule.norm)) if drafter and rule.norm else None
        while left > 0:
            count = min(num_draft_tokens, left - 1) if drafter else 0
            draft = drafter.propose(ids, count, sampler) if drafter and count else Draft(ids[:, :0])
            read = torch.cat((ids, draft.ids), dim=1)
            logits = lm.read(read[:, lm.length :], keep=draft.ids.shape[1] + 1)
            if drafter is not None:
                lm.check_rewinds()
            evidence = Evidence(
                draft_ids=draft.ids,
                target_logits=sampler.process(read, logits),
                draft_probs=draft.probs,
                # Position 0 of the forward read the last kept token; draft token i was read at position i + 1.
                # A target over several devices has its last layer on another one than its input and output.
                hidden=tap.states[:, -draft.ids.shape[1] :].to(logits.device) if tap and draft.ids.shape[1] else None,
                uniform=sampler.uniform(draft.ids.shape[1]),
                greedy=sampler.greedy,
            )
            event = verify(evidence, rule, sampler, left, end_ids)
            yield event
            if event.stopped:
                return
            left -= len(event.token_ids)
            ids = torch.cat((ids, ids.new_tensor([event.token_ids])), dim=1)
            lm.rewind_to(ids.shape[1] - 1)


def verify(
    evidence: Evidence, rule: VerificationRule, sampler: Sampler, budget: int, end_ids: Collection[int]
) -> Round:
    """Keep the longest accepted prefix of the draft and one token of the target after it."""
    kept = rule.accept(evidence)[0]
    accepted = int(kept.long().cumprod(0).sum())  # the one synchronisation of the round
    whole = accepted == evidence.draft_ids.shape[1]
    if evidence.greedy:
        own = evidence.target_ids[0, accepted]
    elif whole:
        own = sampler.draw(evidence.target_probs[:, accepted])[0]
    else:
        own = sampler.draw(rule.replacement(evidence, accepted))[0]

    draft_ids = evidence.draft_ids[0].tolist()
    agreed = evidence.agreed[0].tolist()
    tokens = [*draft_ids[:accepted], int(own)]
    causes = [Cause.AGREED if agreed[i] else Cause.RESCUED for i in range(accepted)]
    causes.append(Cause.BONUS if whole else Cause.CORRECTION)
    end = next((i + 1 for i, token in enumerate(tokens) if token in end_ids), None)
    cut = min(len(tokens) if end is None else end, budget)
    scores = rule.scores(evidence)
    return Round(
        draft_ids=tuple(draft_ids),
        token_ids=tuple(tokens[:cut]),
        causes=tuple(causes[:cut]),
        target_ids=tuple(evidence.target_ids[0].tolist()),
        scores=None if scores is None else tuple(scores[0].tolist()),
        stopped=end is not None and end <= cut,
    )
