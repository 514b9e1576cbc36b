"""How well scores tell correct tokens from wrong ones, and where to put the threshold."""

from __future__ import annotations

import math

from scipy.stats import mannwhitneyu
from torch import Tensor

from judge_decoding.errors import JudgeDecodingError


def auc(scores: Tensor, correct: Tensor) -> float:
    """Area under the ROC curve of ``scores`` [N] for ``correct`` (bool [N]); 0.5 is chance, ties count half.

    Raises:
        JudgeDecodingError: only one class is there.
    """
    right, wrong = scores[correct.bool()], scores[~correct.bool()]
    if not len(right) or not len(wrong):
        raise JudgeDecodingError("Measuring a judge needs tokens of both verdicts; add cases with and without errors.")
    return float(mannwhitneyu(right.double().numpy(), wrong.double().numpy()).statistic / (len(right) * len(wrong)))


def expected_calibration_error(scores: Tensor, correct: Tensor, bins: int = 10) -> float:
    """Mean distance between a score and the share of correct tokens at it, over equal-width bins."""
    index = (scores * bins).long().clamp(max=bins - 1)
    error = 0.0
    for b in range(bins):
        inside = index == b
        if inside.any():
            gap = scores[inside].mean() - correct[inside].float().mean()
            error += float(gap.abs() * inside.float().mean())
    return error


def threshold_for_recall(scores: Tensor, correct: Tensor, recall: float = 0.9) -> float:
    """The lowest threshold at which at least ``recall`` of the wrong tokens are rejected (score <= threshold).

    Source: AutoJudge (arXiv 2504.20039) keeps 90% of the important tokens so.
    """
    wrong = scores[~correct.bool()]
    if not len(wrong):
        raise JudgeDecodingError("Calibrating a judge needs wrong tokens; add cases with located errors.")
    # Rounding must not turn 0.7 of 10 into more than 7.
    rank = max(math.ceil(recall * len(wrong) - 1e-9), 1)
    return float(wrong.kthvalue(rank).values)
