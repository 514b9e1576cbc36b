"""The judge: keeps a token that a linear head on its hidden states scores as correct."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules.base import Fused, VerificationRule
from judge_decoding.rules.evidence import Evidence


def check_threshold(threshold: float) -> None:
    """Check that a judge's threshold is a probability."""
    if not 0 <= threshold <= 1:
        raise JudgeDecodingError(
            f"The judge's threshold is {threshold}; it must be between 0 (keep every draft token) and 1 "
            "(keep only what standard verification keeps)."
        )


class Judge(VerificationRule):
    """Standard verification OR ``sigmoid(w·h + b) > threshold`` (Judge Decoding, section 4).

    h is the target's hidden state at the token or, for a head trained with a draft model, the draft's and the
    target's, as in AutoJudge (arXiv 2504.20039). At threshold 0 every token is kept, at 1 only what standard
    verification keeps. The judge is deterministic and the same at every temperature, and the token after a
    rejection is sampled from ``norm((p-q)+)``. It guarantees what its calibration measured, on text like its
    training text. Do not use it for other text or other models. Strict at threshold = 1.

    Raises:
        JudgeDecodingError: the threshold is not between 0 and 1.
    """

    name = "judge"
    deterministic = True
    STRICT: ClassVar = {"threshold": 1.0}

    def __init__(self, head: JudgeHead, threshold: float | None = None) -> None:
        self.head = head
        self.threshold = head.config.threshold if threshold is None else threshold
        check_threshold(self.threshold)
        self.norm, self.layer = head.config.norm, head.config.layer
        self.needs_draft_hidden = head.config.draft is not None
        # Scores are float32, so a score on the host must be compared with a threshold rounded to float32.
        in_float32 = float(torch.tensor(self.threshold))
        self._fused = Fused(self.source, head.linear.weight, head.linear.bias, in_float32)

    def accept(self, evidence: Evidence) -> Tensor:
        """Keep agreed tokens, and tokens scored above the threshold."""
        scores = evidence.scores_of(self)
        return evidence.agreed if scores is None else evidence.agreed | self._fused.keeps(scores)

    def fused(self) -> Fused | None:
        """Return the head's weights and threshold; None if the head also reads the draft model's hidden states."""
        return None if self.needs_draft_hidden else self._fused

    def scores(self, evidence: Evidence) -> Tensor | None:
        """Return the head's probability that each draft token is correct [B, M]; None for an empty draft.

        Raises:
            JudgeDecodingError: the evidence has no hidden states.
        """
        if not evidence.draft_ids.shape[1]:
            return None
        if evidence.hidden is None:
            raise JudgeDecodingError(
                f"The rule {self} reads the target's hidden states at the draft tokens, and there are none; "
                "use a rule that needs none, or a decoder that provides them."
            )
        return self.head.probability(evidence.hidden, evidence.draft_hidden)

    def distance(self, hidden: Tensor) -> Tensor | None:
        """Return the distance to the head's training questions; see `Familiarity`."""
        return None if self.head.familiarity is None else self.head.familiarity(hidden)
