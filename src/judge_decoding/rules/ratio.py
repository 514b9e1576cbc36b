"""Rules that run the random test of standard verification with a factor in the draft's favour.

Above temperature 0 a token is kept if ``u * factor * q(x) < p(x)``. At temperature 0 there is no u and no q; the
factor is the share of the target's best probability that a token must exceed (Leviathan et al. 2023, appendix A.5).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence, normalized_excess

_BISECTIONS = 40


def _accept_by_ratio(evidence: Evidence, factor: Tensor) -> Tensor:
    """Return the verdicts [B, M] of the random test with ``factor`` [] or [B, M]."""
    if evidence.greedy:
        return evidence.agreed | (evidence.gaps > factor.log())
    return evidence.coins * factor * evidence.token_draft_probs < evidence.token_probs


class Lenience(VerificationRule):
    """Keeps a token with probability ``min(1, p(x) / (factor * q(x)))`` (Leviathan et al. 2023, appendix A.5).

    No draft token is kept more often than p(x)/factor; the token after a rejection is sampled from ``norm((p-q)+)``, as
    usual. At temperature 0 a token is kept if ``p(x) > factor * max p``. Do not use it for an overconfident draft: the
    factor lets its overshoot through. Strict at factor = 1.
    """

    name = "lenience"
    STRICT: ClassVar = {"factor": 1.0}

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor
        self.require("factor", 0 < factor <= 1, "above 0 and at most 1")

    def accept(self, evidence: Evidence) -> Tensor:
        """Run the test with the factor."""
        return _accept_by_ratio(evidence, torch.tensor(self.factor, device=evidence.draft_ids.device))


class MentoredSimple(VerificationRule):
    """Mentored decoding with beta = 1 (Tran-Thien 2023): lenience with the factor ``1 - alpha``.

    Keeps a token with probability ``min(1, p(x) / ((1 - alpha) * q(x)))``; the token after a rejection is sampled from
    ``norm((p-q)+)``. Its divergence from the target is unbounded; `Mentored` bounds it. Strict at alpha = 0.
    """

    name = "mentored_simple"
    STRICT: ClassVar = {"alpha": 0.0}

    def __init__(self, alpha: float = 0.2) -> None:
        self.alpha = alpha
        self.require("alpha", 0 <= alpha < 1, "0 or more and below 1")

    def accept(self, evidence: Evidence) -> Tensor:
        """Run the test with the factor 1 - alpha."""
        return _accept_by_ratio(evidence, torch.tensor(1 - self.alpha, device=evidence.draft_ids.device))


class Mentored(VerificationRule):
    """Mentored decoding: the fewest rejections at which ``KL(p || output) <= kl`` (Tran-Thien 2023).

    The output distribution is q where ``p/b <= q <= p/a``, else ``p/a`` (q too large) or ``p/b`` (q too small). A token
    is kept with probability ``min(1, p(x) / (a * q(x)))``; the token after a rejection comes from ``norm((p/b - q)+)``.
    The bound is per token and adds up over a text. The paper does not cover temperature 0; here ``a`` is then found
    from the softmax of draft and target, and a token is kept if ``p(x) > a * max p``. Do not use it for cheap targets:
    the search sorts the vocabulary for every draft token. Strict at kl = 0.
    """

    name = "mentored"
    STRICT: ClassVar = {"kl": 0.0}
    needs_draft_probs = True

    def __init__(self, kl: float = 0.1) -> None:
        self.kl = kl
        self.require("kl", 0 <= kl < torch.inf, "0 or more")

    def accept(self, evidence: Evidence) -> Tensor:
        """Run the test with each position's own factor a."""
        draft = evidence.draft_distributions(self) if evidence.greedy else evidence.drawn_from
        return _accept_by_ratio(evidence, factors(evidence.target_probs[:, :-1], draft, self.kl)[0])

    def replacement(self, evidence: Evidence, position: int | Tensor) -> Tensor:
        """Return ``norm((p/b - q)+)``."""
        target, draft = evidence.target_at(position), evidence.draft_at(position)
        return normalized_excess(target * factors(target, draft, self.kl)[1][..., None], draft, target)


def factors(target: Tensor, draft: Tensor, kl: float) -> tuple[Tensor, Tensor]:
    """Return mentored decoding's ``a <= 1`` and ``1/b <= 1`` for distributions [..., V]: [...] each.

    With tokens sorted by q/p, everything is a difference of cumulative sums: a is found by bisection, and each a
    determines exactly the b that redistributes the rejected probability.
    """
    p, q = target.double(), draft.double()
    if not kl:
        one = torch.ones_like(target[..., 0])
        return one, one
    ratios, order = torch.where(p > 0, q / p, torch.inf).sort(-1)
    p, q = p.gather(-1, order), q.gather(-1, order)
    # Tokens with q = 0 are always among the raised ones, so their contributions here cancel.
    logs = torch.where(ratios > 0, -torch.special.xlogy(p, ratios), 0)
    p, q, logs = (torch.nn.functional.pad(values.cumsum(-1), (1, 0)) for values in (p, q, logs))
    # How much probability fits below each token if it is the next one to be raised.
    places = torch.where(ratios < torch.inf, ratios * p[..., :-1], torch.inf) - q[..., :-1]
    low, high = torch.zeros_like(p[..., :1]), torch.ones_like(p[..., :1])
    inverse = high
    for step in range(_BISECTIONS + 1):
        a = (low + high) / 2 if step < _BISECTIONS else high
        cut = torch.searchsorted(ratios, 1 / a, right=True).clamp(min=1)
        rejected = (q[..., -1:] - q.gather(-1, cut) - (p[..., -1:] - p.gather(-1, cut)) / a).clamp(min=0)
        raised = torch.searchsorted(places, rejected, right=True).minimum(cut)
        inverse = ((rejected + q.gather(-1, raised)) / p.gather(-1, raised)).clamp(max=1)
        distance = (
            a.log() * (p[..., -1:] - p.gather(-1, cut))
            + logs.gather(-1, cut) - logs.gather(-1, raised)
            - inverse.log() * p.gather(-1, raised)
        )  # fmt: skip
        low, high = torch.where(distance <= kl, low, a), torch.where(distance <= kl, a, high)
    return high[..., 0].to(target), inverse[..., 0].to(target)
