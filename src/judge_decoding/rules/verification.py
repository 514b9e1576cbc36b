"""Verification: the only place that decides which draft tokens are kept, in decoding, scoring and serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence

MAX_BYTES = 2**28
"""Rows are verified in groups whose float32 copy of the logits fits into this many bytes."""

RowT = TypeVar("RowT")


def in_parts(rows: Sequence[RowT], num_draft_tokens: int, vocab_size: int) -> Iterator[Sequence[RowT]]:
    """Split ``rows`` into groups whose float32 logits [M+1, V] fit into `MAX_BYTES`, at least one row each."""
    size = max(MAX_BYTES // (4 * (num_draft_tokens + 1) * vocab_size), 1)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A rule's decision about the drafts of B rows, on the device.

    Attributes:
        agreed: which tokens standard verification, or a lossless part of the rule, keeps: bool [B, M].
        passing: which tokens the rule accepts, each by itself: bool [B, M].
        permitted: which tokens of ``passing`` nothing forbids: bool [B, M].
        part: index of the part of the rule that accepts each token, the first if several do [B, M].
        accepted: the number of accepted draft tokens, that is, the length of the longest kept prefix [B].
        scores: the rule's score of each token [B, M]; None for a rule without scores.
    """

    agreed: Tensor
    passing: Tensor
    permitted: Tensor
    part: Tensor
    accepted: Tensor
    scores: Tensor | None


def decide(
    rule: VerificationRule,
    evidence: Evidence,
    allowed: Tensor | None = None,
    permit: Callable[[Tensor], Tensor] | None = None,
) -> Verdicts:
    """Apply ``rule`` to the drafts of all rows, without synchronising with the device.

    ``allowed`` [B, M] are the tokens that no constraint forbids. ``permit`` returns which of the wanted rescues [B, M]
    are permitted. Without them nothing is forbidden.
    """
    verdicts = torch.stack([part.accept(evidence) for part in rule.parts])
    if allowed is not None:
        verdicts &= allowed
    if evidence.lengths is not None:
        verdicts &= evidence.drafted
    agreed, lossless = evidence.agreed, [part.lossless for part in rule.parts]
    if any(lossless):
        agreed = agreed | verdicts[lossless].any(0)
    passing = permitted = verdicts.any(0)
    if permit is not None:
        permitted = (passing & agreed) | permit(passing & ~agreed)
    return Verdicts(
        agreed=agreed,
        passing=passing,
        permitted=permitted,
        part=verdicts.long().argmax(0),
        accepted=permitted.long().cumprod(-1).sum(-1),
        scores=evidence.scores_of(rule),
    )


def replacements(rule: VerificationRule, evidence: Evidence, verdicts: Verdicts) -> Tensor:
    """Return the distributions [B, V] of the target's own token after the kept prefix, above temperature 0."""
    found = rule.replacement(evidence, verdicts.accepted)
    if verdicts.permitted is verdicts.passing:
        return found
    # Where a guard overruled the rule, the token is sampled as in standard verification.
    nothing = torch.zeros_like(verdicts.passing[:, :1])
    refused = torch.cat((verdicts.passing, nothing), 1).gather(1, verdicts.accepted[:, None])
    return torch.where(refused, evidence.residual(verdicts.accepted), found)
