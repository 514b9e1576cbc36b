"""Rules that verify against a distribution between the target's and the draft's, and reproduce it exactly."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence, normalized_excess


class Ensemble(VerificationRule):
    """Verifies against ``v = weight * p + (1 - weight) * q`` (DIVERSED's static ensemble, arXiv 2604.07622).

    A token is kept with probability ``min(1, 1 - weight + weight * p(x)/q(x))`` and otherwise replaced by a sample from
    ``norm((v-q)+)``, which equals ``norm((p-q)+)``: the output at a draft position is distributed exactly as v. At
    temperature 0 a token is kept if it is the most probable one under v or the target. (``assistant_ensemble_weight``
    of transformers replaces a rejected token by v's best token; here it is the target's.) Do not use it for drafts much
    weaker than the target: they make a share 1 - weight of every choice. Strict at weight = 1.
    """

    name = "ensemble"
    STRICT: ClassVar = {"weight": 1.0}
    needs_draft_probs = True

    def __init__(self, weight: float = 0.5) -> None:
        self.weight = weight
        self.require("weight", 0 <= weight <= 1, "between 0 and 1")

    def accept(self, evidence: Evidence) -> Tensor:
        """Apply standard verification with v in place of the target."""
        if not evidence.greedy:
            mixed = self.weight * evidence.token_probs + (1 - self.weight) * evidence.token_draft_probs
            return evidence.coins * evidence.token_draft_probs < mixed
        draft = evidence.draft_distributions(self)
        best = torch.lerp(draft, evidence.target_probs[:, :-1], self.weight).argmax(-1)
        # At weight 1 the probabilities of two tokens can round to the same number although their logits differ.
        return evidence.agreed | ((evidence.draft_ids == best) & (self.weight < 1))


class Cascade(VerificationRule):
    """Speculative cascades, token form (Narasimhan et al., ICLR 2025, arXiv 2405.19261).

    The draft decides within ``A = {v: p(v) >= (1 - alpha) * max p}``, the target elsewhere:
    ``pi = q on A, + eta * p everywhere, eta = 1 - q(A)``. Standard verification against pi reproduces pi exactly. At
    temperature 0 a token is kept if it is in A. Do not use it where the target's own distribution matters: within A
    the draft chooses. Strict at a negative alpha, which leaves A empty; alpha = 0 leaves the best token in A.
    """

    name = "cascade"
    STRICT: ClassVar = {"alpha": -1.0}

    def __init__(self, alpha: float = 0.1) -> None:
        self.alpha = alpha
        self.require("alpha", -1 <= alpha <= 1, "between 0 and 1, or -1 to turn it off")

    def accept(self, evidence: Evidence) -> Tensor:
        """Apply standard verification with pi in place of the target."""
        target = evidence.target_probs[:, :-1]
        if evidence.greedy:
            return evidence.agreed | evidence.of_tokens(self._good(target))
        wanted = evidence.of_tokens(self._wanted(target, evidence.drawn_from))
        return evidence.coins * evidence.token_draft_probs < wanted

    def replacement(self, evidence: Evidence, position: int | Tensor) -> Tensor:
        """Return ``norm((pi-q)+)``."""
        target, draft = evidence.target_at(position), evidence.draft_at(position)
        return normalized_excess(self._wanted(target, draft), draft, target)

    def _good(self, target: Tensor) -> Tensor:
        """Return A, bool [..., V]; it never contains a token to which the target gives probability 0."""
        return (target >= (1 - self.alpha) * target.amax(-1, keepdim=True)) & (target > 0)

    def _wanted(self, target: Tensor, draft: Tensor) -> Tensor:
        """Return ``pi`` for distributions [..., V]."""
        own = draft * self._good(target)
        return own + (1 - own.sum(-1, keepdim=True)).clamp(min=0) * target
