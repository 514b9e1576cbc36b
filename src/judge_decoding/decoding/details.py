"""How both models rate each draft token: for people who inspect an answer, not for rules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from judge_decoding.core.rounds import TokenDetails
from judge_decoding.rules.evidence import Evidence

TOP = 5
"""How many of the target's most probable tokens are listed at each position."""


def detail_columns(evidence: Evidence, agreed: Tensor, drawn: Tensor | None) -> Tensor:
    """Return the details of each draft token as numbers [B, M, D], which `details_of` reads.

    ``agreed`` [B, M] is standard verification's verdict, ``drawn`` [B, M, V] are the draft's distributions, if it has
    any.
    """
    size = evidence.target_logits.shape[-1]
    best = evidence.target_probs[:, :-1].topk(min(TOP, size))
    own = [agreed, evidence.token_probs, evidence.entropy, evidence.token_ranks.clamp(max=size)]
    if drawn is not None:
        own.append(evidence.of_tokens(drawn))
    return torch.cat((torch.stack([each.float() for each in own], -1), best.values, best.indices), -1)


def details_of(table: Sequence[Sequence[float]], vocab_size: int) -> tuple[TokenDetails, ...]:
    """Return the details of a row's tokens, from its `detail_columns` on the host [M, D]."""
    top = min(TOP, vocab_size)
    details = []
    for own, prob, entropy, rank, *rest in table:
        drawn = rest[: -2 * top]
        alternatives = zip(map(int, rest[-top:]), rest[-2 * top : -top], strict=True)
        details.append(
            TokenDetails(
                agreed=bool(own),
                target_prob=prob,
                draft_prob=drawn[0] if drawn else None,
                rank=int(rank) if rank < vocab_size else None,
                entropy=entropy,
                alternatives=tuple(alternatives),
            )
        )
    return tuple(details)
