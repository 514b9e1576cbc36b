"""Rules that look only at how probable the target finds the draft token: the trivial detectors of an error."""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.rules.base import Evidence, VerificationRule


class TopK(VerificationRule):
    """Keeps a token among the target's ``k`` most probable ones; at k = 1 and temperature 0 it is exact."""

    name = "top_k"
    STRICT = MappingProxyType({"k": 1})

    def __init__(self, k: int) -> None:
        if k < 1:
            raise JudgeDecodingError(f"top_k's k is {k}; it must be 1 or more.")
        self.k = k

    def accept(self, evidence: Evidence) -> Tensor:
        """Agreed, or of rank k or better at its own position."""
        return evidence.agreed | (evidence.token_ranks < self.k)


class MinProbability(VerificationRule):
    """Keeps a token to which the target gives a probability above ``p``; at p = 1 it is exact."""

    name = "min_probability"
    STRICT = MappingProxyType({"p": 1.0})

    def __init__(self, p: float) -> None:
        if not 0 <= p <= 1:
            raise JudgeDecodingError(f"min_probability's p is {p}; it must be between 0 and 1.")
        self.p = p

    def accept(self, evidence: Evidence) -> Tensor:
        """Agreed, or probable enough."""
        return evidence.agreed | (evidence.token_probs > self.p)
