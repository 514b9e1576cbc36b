"""What the two models thought of each draft token: for people who look at an answer, not for rules."""

from __future__ import annotations

import torch
from torch import Tensor

from judge_decoding.decoding.drafting import Draft
from judge_decoding.decoding.rounds import TokenDetails
from judge_decoding.rules.base import Evidence

TOP = 5
"""How many of the target's most probable tokens are told at each place."""


def details_of(evidence: Evidence, agreed: Tensor, draft: Draft) -> tuple[TokenDetails, ...]:
    """The details of the M tokens of ``draft``, the only row of ``evidence``, by one transfer from the device.

    ``agreed`` is standard verification's verdict on each of them [M].
    """
    if not evidence.draft_ids.shape[1]:
        return ()
    size = evidence.target_logits.shape[-1]
    best = evidence.target_probs[0, :-1].topk(min(TOP, size))
    columns = [
        agreed[:, None],
        evidence.token_probs.mT,
        evidence.entropy.mT,
        evidence.token_ranks.clamp(max=size).mT,
        best.values,
        best.indices,
    ]
    told = draft.distribution if draft.probs is None else draft.probs
    if told is not None:
        columns.append(evidence.of_tokens(told[None]).mT)
    # float32 holds every integer below 2 ** 24, and no vocabulary is as large.
    table: list[list[float]] = torch.cat([column.float() for column in columns], 1).tolist()
    details = []
    for own, prob, entropy, rank, *rest in table:
        count = best.indices.shape[1]
        alternatives = zip(map(int, rest[count : 2 * count]), rest[:count], strict=True)
        details.append(
            TokenDetails(
                agreed=bool(own),
                target_prob=prob,
                draft_prob=rest[-1] if told is not None else None,
                rank=int(rank) if rank < size else None,
                entropy=entropy,
                alternatives=tuple(alternatives),
            )
        )
    return tuple(details)
