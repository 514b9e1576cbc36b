"""Rules that measure how far apart target and draft are at a position, whichever token was drafted.

Both keep what standard verification keeps, and any draft token where the two distributions are close. They trust the
draft, so it must itself be a good language model: a draft that is sure and wrong in the same way as the target is
trusted, and multi-token-prediction heads make such rules loop. A rejected token is replaced by a sample from
``norm((p-q)+)``, so that the strict settings are lossless above temperature 0 too. Truncation (top-k, top-p) makes
divergences large, since a token that only one of the two models cuts off counts fully.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor
from torch.special import xlogy

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence

# A draft with a smaller vocabulary gives 0 to some of the target's tokens, which would make the divergence infinite.
_LEAST = 1e-10


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Return KL(p || q) in nats, 0 or more, of distributions [..., V]: [...]."""
    distance: Tensor = (xlogy(p, p) - xlogy(p, q.clamp(min=_LEAST))).sum(-1).clamp(min=0)
    return distance


def js(p: Tensor, q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence in nats, between 0 and log 2, of distributions [..., V]: [...]."""
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


def tv(p: Tensor, q: Tensor) -> Tensor:
    """Return the total variation distance, between 0 and 1, of distributions [..., V]: [...]."""
    distance: Tensor = (p - q).abs().sum(-1) / 2
    return distance


DIVERGENCES = {"kl": kl, "js": js, "tv": tv}


class Fuzzy(VerificationRule):
    """Keeps any token where ``divergence(p, q) < threshold``: Fuzzy Speculative Decoding (arXiv 2502.20704).

    ``divergence`` is kl, that is KL(p || q), js or tv. This is the paper's reduced form, with standard verification
    first; the plain form would reject everything at threshold 0. Do not use it for drafts that are not good language
    models by themselves. Strict at threshold = 0.
    """

    name = "fuzzy"
    deterministic = True
    STRICT: ClassVar = {"threshold": 0.0}
    needs_draft_probs = True

    def __init__(self, threshold: float = 0.1, divergence: str = "js") -> None:
        self.threshold, self.divergence = threshold, divergence
        self.require("threshold", 0 <= threshold < math.inf, "0 or more")
        self.require("divergence", divergence in DIVERGENCES, f"one of {', '.join(DIVERGENCES)}")

    def accept(self, evidence: Evidence) -> Tensor:
        """Keep agreed tokens, and tokens where the distributions are close."""
        distance = DIVERGENCES[self.divergence]
        return evidence.agreed | (
            distance(evidence.target_probs[:, :-1], evidence.draft_distributions(self)) < self.threshold
        )


class KLJudge(VerificationRule):
    """Keeps any token where ``max p <= confidence`` and ``KL(p || q) < tau``: JuDi (arXiv 2601.04766).

    A judge without training: where the target is sure, it must agree; elsewhere closeness is enough. Do not use it for
    drafts that are not good language models by themselves. Sweep tau, which depends on the pair. Strict at tau = 0.
    """

    name = "kl_judge"
    deterministic = True
    STRICT: ClassVar = {"tau": 0.0}
    needs_draft_probs = True

    def __init__(self, tau: float = 0.3, confidence: float = 0.9) -> None:
        self.tau, self.confidence = tau, confidence
        self.require("tau", 0 <= tau < math.inf, "0 or more")
        self.require("confidence", 0 <= confidence <= 1, "between 0 and 1")

    def accept(self, evidence: Evidence) -> Tensor:
        """Keep agreed tokens, and tokens where the target is unsure and the distributions are close."""
        target = evidence.target_probs[:, :-1]
        close = kl(target, evidence.draft_distributions(self)) < self.tau
        return evidence.agreed | ((target.amax(-1) <= self.confidence) & close)
