"""Rules that look only at how probable the target finds the draft token: the trivial detectors of an error."""

from __future__ import annotations

import torch
from torch import Tensor

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.rules.base import Evidence, VerificationRule


class TopK(VerificationRule):
    """Keeps a token among the target's ``k`` most probable ones; at k = 1 and temperature 0 it is exact."""

    STRICT = 1

    def __init__(self, k: int) -> None:
        if k < 1:
            raise JudgeDecodingError(f"top_k's k is {k}; it must be 1 or more.")
        self.k = k

    def accept(self, evidence: Evidence) -> Tensor:
        """Agreed, or of rank k or better at its own position."""
        logits = evidence.target_logits[:, :-1]
        ids = evidence.draft_ids[..., None]
        own = logits.gather(-1, ids)
        # 16-bit logits tie often. The first of equals ranks first, as for argmax, or k = 1 would not be exact.
        first = torch.arange(logits.shape[-1], device=logits.device) < ids
        rank = ((logits > own) | ((logits == own) & first)).sum(-1)
        return evidence.agreed | (rank < self.k)

    def __repr__(self) -> str:
        return f"top_k(k={self.k})"


class MinProbability(VerificationRule):
    """Keeps a token to which the target gives a probability above ``p``; at p = 1 it is exact."""

    STRICT = 1.0

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise JudgeDecodingError(f"min_probability's p is {p}; it must be between 0 and 1.")
        self.p = p

    def accept(self, evidence: Evidence) -> Tensor:
        """Agreed, or probable enough."""
        own = evidence.target_probs[:, :-1].gather(-1, evidence.draft_ids[..., None])[..., 0]
        return evidence.agreed | (own > self.p)

    def __repr__(self) -> str:
        return f"min_probability(p={self.p:g})"
