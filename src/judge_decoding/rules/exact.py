"""Standard verification: the target's distribution is kept exactly."""

from __future__ import annotations

from torch import Tensor

from judge_decoding.rules.base import Evidence, VerificationRule


class Exact(VerificationRule):
    """Greedy match at temperature 0, lossless rejection sampling above (Leviathan et al. 2023)."""

    name = "exact"
    lossless = True

    def accept(self, evidence: Evidence) -> Tensor:
        """See `Evidence.agreed`."""
        return evidence.agreed
