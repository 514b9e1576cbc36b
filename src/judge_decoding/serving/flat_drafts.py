"""Drafts of many requests in one flat tensor, as serving engines store them, and which tokens the rules rescue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from judge_decoding.decoding.guards import Guard, History, permitted
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence
from judge_decoding.rules.verification import decide, in_parts

LIFTED = 1e30
"""The logit of a rescued token: large enough for a softmax of 1, without infinities or NaN."""


@dataclass(frozen=True, slots=True, eq=False)
class FlatDrafts:
    """The drafts of R requests, concatenated: N tokens in total.

    Attributes:
        token_ids: the draft tokens [N]; a negative id marks a token that must not be kept.
        counts: the number of draft tokens of each request, R numbers that add up to N.
        logits: the target's logits for each draft token [N, V], float32, logits processors applied.
        allowed: which tokens are allowed by grammars and lists of banned tokens, bool [N].
        hidden: the target's hidden states at the draft tokens [N, H]; None if no rule reads them.
        probs: the distributions that the draft was drawn from [N, V]; None for drafters that provide none.
    """

    token_ids: Tensor
    counts: Sequence[int]
    logits: Tensor
    allowed: Tensor
    hidden: Tensor | None = None
    probs: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Guarded:
    """A request's guards and the tokens it has kept so far."""

    guards: tuple[Guard, ...]
    history: History


def rescues(
    drafts: FlatDrafts,
    rules: Sequence[VerificationRule | None],
    greedy: Sequence[bool],
    guarded: Sequence[Guarded | None] | None = None,
) -> Tensor:
    """Return which draft tokens the requests' rules keep beyond standard verification, bool [N].

    The engine applies standard verification to the other tokens and draws its own random numbers there, so above
    temperature 0 this is correct only for rules whose own criterion is deterministic.

    Each request has a rule, None for standard verification; decodes at temperature 0 (``greedy``) or not; and may be
    ``guarded``. Guards read the draft on the host, so a guarded request waits for the device.
    """
    found = torch.zeros_like(drafts.token_ids, dtype=torch.bool)
    permissible = drafts.allowed & (drafts.token_ids >= 0)
    groups: defaultdict[tuple[VerificationRule, bool], list[int]] = defaultdict(list)
    for row, (rule, count, is_greedy) in enumerate(zip(rules, drafts.counts, greedy, strict=True)):
        if rule is not None and count and not rule.is_lossless:
            groups[rule, is_greedy].append(row)
    starts = [0]
    for count in drafts.counts:
        starts.append(starts[-1] + count)
    for (rule, is_greedy), members in groups.items():
        if rule.needs_draft_probs and drafts.probs is None:
            continue  # the engine has lost this round's draft probabilities: use standard verification
        for rows in in_parts(members, max(drafts.counts[row] for row in members), drafts.logits.shape[-1]):
            counts = torch.tensor([drafts.counts[row] for row in rows])
            inside = torch.arange(int(counts.max())) < counts[:, None]
            positions = torch.tensor([starts[row] for row in rows])[:, None] + inside.cumsum(1) - 1
            device = drafts.token_ids.device
            evidence = _evidence(drafts, positions.to(device), counts.to(device), greedy=is_greedy)
            verdicts = decide(rule, evidence)
            # Above temperature 0 the evidence rejects every random draw, so only the rule itself keeps tokens there.
            rescued = verdicts.permitted & ~verdicts.agreed if is_greedy else verdicts.permitted
            kept = rescued & permissible[positions.to(device)]
            for number, row in enumerate(rows):
                if guarded is not None and (own := guarded[row]) is not None:
                    count = drafts.counts[row]
                    kept[number, :count] = permitted(
                        own.guards, kept[number, :count], _row(evidence, number, count), own.history
                    )
            # Indexing by a mask would wait for the device.
            found[positions[inside].to(device)] = kept.flatten()[inside.flatten().nonzero()[:, 0].to(device)]
    return found


def _evidence(drafts: FlatDrafts, positions: Tensor, counts: Tensor, *, greedy: bool) -> Evidence:
    """Build the evidence of the requests with draft tokens at ``positions`` [B, M], padded with their last token."""
    token_ids = drafts.token_ids[positions].long().clamp(min=0)
    # No rule reads the target's distribution after the draft to accept a token; the last one stands in for it.
    logits = drafts.logits[torch.cat((positions, positions[:, -1:]), 1)].float()
    return Evidence(
        draft_ids=token_ids,
        target_logits=logits,
        draft_probs=None if drafts.probs is None else drafts.probs[positions],
        hidden=None if drafts.hidden is None else drafts.hidden[positions],
        # Infinite draws are always rejected: the engine draws for standard verification itself.
        uniform=torch.full(positions.shape, torch.inf, device=positions.device),
        greedy=greedy,
        lengths=counts,
    )


def _row(evidence: Evidence, row: int, count: int) -> Evidence:
    """Return the evidence of one request with ``count`` draft tokens, as a batch of one."""

    def own(value: Tensor | None, width: int = count) -> Tensor | None:
        return None if value is None else value[row : row + 1, :width]

    return replace(
        evidence,
        draft_ids=evidence.draft_ids[row : row + 1, :count],
        target_logits=evidence.target_logits[row : row + 1, : count + 1],
        draft_probs=own(evidence.draft_probs),
        hidden=own(evidence.hidden),
        uniform=own(evidence.uniform),
        lengths=None,
    )


def lift(logits: Tensor, rows: Tensor, token_ids: Tensor, rescued: Tensor) -> None:
    """Make each rescued token the most probable token of its row in ``logits`` [K, V], in place.

    ``rows`` [N] has the row of the logits for each of ``token_ids`` [N]; ``rescued`` [N] marks the tokens to lift.
    """
    index = token_ids.long().clamp(min=0)
    lifted = torch.full_like(logits[rows, index], min(LIFTED, torch.finfo(logits.dtype).max))
    logits[rows, index] = torch.where(rescued, lifted, logits[rows, index])


def kept_rescues(rescued: Tensor, counts: Sequence[int], accepted: Tensor) -> Tensor:
    """Count the rescued tokens, marked in ``rescued`` [N], among the ``accepted`` [R] tokens of each request: [R]."""
    device = rescued.device
    numbers = torch.tensor(counts)
    request = torch.repeat_interleave(torch.arange(len(counts)), numbers)
    position = torch.arange(len(request)) - (numbers.cumsum(0) - numbers)[request]
    request, position = request.to(device), position.to(device)
    kept = rescued & (position < accepted.to(device)[request])
    return torch.zeros(len(counts), dtype=torch.long, device=device).index_add_(0, request, kept.long())
