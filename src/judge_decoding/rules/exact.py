"""The lossless rules, which preserve the target's distribution exactly."""

from __future__ import annotations

import torch
from torch import Tensor

from judge_decoding.rules.base import Fused, VerificationRule
from judge_decoding.rules.evidence import Evidence, normalized_excess


class Exact(VerificationRule):
    """Greedy match at temperature 0, lossless rejection sampling above (Leviathan et al. 2023)."""

    name = "exact"
    deterministic = True
    lossless = True

    def accept(self, evidence: Evidence) -> Tensor:
        """Return the verdict of standard verification; see `Evidence.agreed`."""
        return evidence.agreed

    def fused(self) -> Fused:
        """Return standard verification alone."""
        return Fused()


class Block(VerificationRule):
    """Block verification: lossless too, and it keeps a few tokens more (Sun et al. 2024, arXiv 2403.10444).

    ``w_0 = 1, w_i = min(w_{i-1} p(x_i)/q(x_i), 1)`` and, with p and q after x_i, ``Z_i = sum (w_i p - q)+``,
    ``h_i = Z_i / (Z_i + 1 - w_i)``, but ``h_M = w_M``. The first i tokens are kept for the largest i with
    ``u_i < h_i``; the next token is sampled from ``norm((w_i p - q)+)``. At temperature 0 it equals exact verification.

    It has no advantage for drafts that are not sampled (prompt lookup).
    """

    name = "block"
    lossless = True
    joinable = False

    def accept(self, evidence: Evidence) -> Tensor:
        """Keep all tokens up to the last one whose random number is below its ``h``."""
        if evidence.greedy:
            return evidence.agreed
        count = evidence.draft_ids.shape[1]
        positions = torch.arange(count, device=evidence.draft_ids.device)
        last = (count if evidence.lengths is None else evidence.lengths[:, None]) - 1
        weights = self._weights(evidence)[:, 1:]
        gains = torch.zeros_like(weights)
        following = weights[:, :-1, None] * evidence.target_probs[:, 1:count] - evidence.drawn_from[:, 1:]
        gains[:, :-1] = following.clamp(min=0).sum(-1)
        share = gains / (gains + 1 - weights).clamp(min=torch.finfo(gains.dtype).tiny)
        kept = (evidence.coins < torch.where(positions == last, weights, share)) & evidence.drafted
        return kept.flip(-1).cummax(-1).values.flip(-1)

    def replacement(self, evidence: Evidence, position: int | Tensor) -> Tensor:
        """Return ``norm((w p - q)+)`` with the weight of the kept prefix."""
        target = evidence.target_at(position)
        rows = torch.arange(len(target), device=target.device)
        weight = self._weights(evidence)[rows, position][:, None]
        return normalized_excess(weight * target, evidence.draft_at(position), target)

    @staticmethod
    def _weights(evidence: Evidence) -> Tensor:
        """Return ``w`` of the prefixes of 0 to M tokens [B, M+1]."""
        ratios = evidence.token_probs / evidence.token_draft_probs.clamp(min=torch.finfo(torch.float32).tiny)
        weights = [ratios.new_ones(len(ratios))]
        for ratio in ratios.unbind(1):
            weights.append((weights[-1] * ratio).clamp(max=1))
        return torch.stack(weights, 1)
