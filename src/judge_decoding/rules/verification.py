"""Verification: the one place that decides which draft tokens stay, in decoding, in scoring and in serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence

MAX_BYTES = 2**28
"""The rules' copy of the logits is made for as many rows at a time as fit into this."""

Row = TypeVar("Row")


def in_parts(rows: Sequence[Row], num_draft_tokens: int, vocab_size: int) -> Iterator[Sequence[Row]]:
    """``rows``, as many at a time as have logits [M+1, V] in float32 within `MAX_BYTES`, at least one."""
    size = max(MAX_BYTES // (4 * (num_draft_tokens + 1) * vocab_size), 1)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a rule decides about the drafts of B rows, on the device.

    Attributes:
        agreed: which tokens standard verification, or a lossless part of the rule, keeps: bool [B, M].
        wanted: which tokens the rule keeps, each by itself: bool [B, M].
        kept: those of ``wanted`` that nothing forbids: bool [B, M].
        keeper: which of the rule's parts keeps each token, the first one if several do [B, M].
        accepted: how many draft tokens stay, the longest kept prefix [B].
        scores: the rule's score of each token [B, M]; None for a rule without one.
    """

    agreed: Tensor
    wanted: Tensor
    kept: Tensor
    keeper: Tensor
    accepted: Tensor
    scores: Tensor | None


def decide(
    rule: VerificationRule,
    evidence: Evidence,
    allowed: Tensor | None = None,
    permit: Callable[[Tensor], Tensor] | None = None,
) -> Verdicts:
    """Apply ``rule`` to the drafts of all rows. Nothing here waits for the device.

    Args:
        rule: which draft tokens stay.
        evidence: what it decides by.
        allowed: tokens that no constraint forbids, bool [B, M]; None is all.
        permit: says which of the rescues [B, M] may be; None permits all.
    """
    verdicts = torch.stack([part.accept(evidence) for part in rule.parts])
    if allowed is not None:
        verdicts &= allowed
    if evidence.lengths is not None:
        verdicts &= evidence.drafted
    agreed, lossless = evidence.agreed, [part.lossless for part in rule.parts]
    if any(lossless):
        agreed = agreed | verdicts[lossless].any(0)
    wanted = kept = verdicts.any(0)
    if permit is not None:
        kept = (wanted & agreed) | permit(wanted & ~agreed)
    return Verdicts(
        agreed=agreed,
        wanted=wanted,
        kept=kept,
        keeper=verdicts.long().argmax(0),
        accepted=kept.long().cumprod(-1).sum(-1),
        scores=evidence.scores_of(rule),
    )


def replacements(rule: VerificationRule, evidence: Evidence, verdicts: Verdicts) -> Tensor:
    """The distributions [B, V] of the target's own token behind what stays, above temperature 0."""
    found = rule.replacement(evidence, verdicts.accepted)
    if verdicts.kept is verdicts.wanted:
        return found
    # Where a guard said no to the rule, the token is drawn as if verification were standard.
    nothing = torch.zeros_like(verdicts.wanted[:, :1])
    refused = torch.cat((verdicts.wanted, nothing), 1).gather(1, verdicts.accepted[:, None])
    return torch.where(refused, evidence.residual(verdicts.accepted), found)
