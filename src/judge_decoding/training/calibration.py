"""How well scores separate correct tokens from wrong ones, and where to put the threshold."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from judge_decoding.errors import JudgeDecodingError

_MOST_POINTS = 100


def auc(scores: Tensor, correct: Tensor) -> float:
    """Area under the ROC curve of ``scores`` [N] for ``correct`` (bool [N]); 0.5 is chance, and ties count half.

    Raises:
        JudgeDecodingError: only one class is present.
    """
    right, wrong = scores[correct.bool()], scores[~correct.bool()]
    if not len(right) or not len(wrong):
        raise JudgeDecodingError("Measuring a judge needs tokens of both verdicts; add cases with and without errors.")
    return float(mannwhitneyu(right.double().numpy(), wrong.double().numpy()).statistic / (len(right) * len(wrong)))


def expected_calibration_error(scores: Tensor, correct: Tensor, bins: int = 10) -> float:
    """Mean gap between the score and the share of correct tokens, over equal-width bins."""
    rows = reliability(scores, correct, bins)
    return float(sum(row["tokens"] * abs(row["score"] - row["correct"]) for row in rows) / len(scores))


def reliability(scores: Tensor, correct: Tensor, bins: int = 10) -> list[dict[str, Any]]:
    """The reliability diagram of ``scores`` [N] in 0..1 for ``correct`` (bool [N]), in bins of equal width.

    There is a row for each bin that holds tokens: its ends ``low`` and ``high``, the number of ``tokens``, their mean
    ``score`` and the share that is ``correct``.
    """
    index = (scores * bins).long().clamp(max=bins - 1)
    rows = []
    for b in range(bins):
        inside = index == b
        if inside.any():
            rows.append(
                {
                    "low": b / bins,
                    "high": (b + 1) / bins,
                    "tokens": int(inside.sum()),
                    "score": float(scores[inside].double().mean()),
                    "correct": float(correct[inside].double().mean()),
                }
            )
    return rows


def roc(scores: Tensor, correct: Tensor) -> dict[str, list[float]]:
    """The ROC curve of ``scores`` [N]: shares ``wrong_kept`` and ``correct_kept`` (above a threshold) over thresholds.

    It runs from nothing kept to everything kept, thinned evenly along the curve to at most 100 points.

    Raises:
        JudgeDecodingError: only one class is present.
    """
    correct = correct.bool()
    if correct.all() or not correct.any():
        raise JudgeDecodingError("Measuring a judge needs tokens of both verdicts; add cases with and without errors.")
    values, order = scores.sort(descending=True)
    kept = torch.stack([part[order].double().cumsum(0) / part.sum() for part in (~correct, correct)])
    last = torch.ones_like(values, dtype=torch.bool)  # last token of each score; equal scores share a verdict
    last[:-1] = values[1:] != values[:-1]
    kept = torch.cat((torch.zeros(2, 1, dtype=torch.double), kept[:, last]), 1)
    if kept.shape[1] > _MOST_POINTS:
        along = torch.linspace(0, 2, _MOST_POINTS, dtype=torch.double)
        kept = kept[:, torch.searchsorted(kept.sum(0), along - 1e-9).unique()]
    return {"wrong_kept": kept[0].tolist(), "correct_kept": kept[1].tolist()}


@dataclass(frozen=True, slots=True)
class Aim:
    """The criterion by which the threshold is chosen.

    Attributes:
        kind: "keep" a share of the correct tokens, "catch" (reject) a share of the wrong ones, or lose at most a number
            of percentage points of "accuracy" on a calibration task.
        value: the share, above 0 and at most 1, or the percentage points, 0 to 100.

    Raises:
        JudgeDecodingError: the value is out of range.
    """

    kind: Literal["keep", "catch", "accuracy"]
    value: float

    def __post_init__(self) -> None:
        if self.kind == "accuracy" and not 0 <= self.value <= 100:
            raise JudgeDecodingError(f"The aim's accuracy is {self.value:g}; it must be 0 to 100 points.")
        if self.kind != "accuracy" and not 0 < self.value <= 1:
            raise JudgeDecodingError(f"The aim's {self.kind} is {self.value:g}; it must be above 0 and at most 1.")

    @classmethod
    def parse(cls, spelling: str) -> Self:
        """Parse ``keep=0.95``, ``catch=0.9`` or ``accuracy=1``.

        Raises:
            JudgeDecodingError: the spelling is not an aim.
        """
        match = re.fullmatch(r"\s*(keep|catch|accuracy)\s*=\s*([0-9]*\.?[0-9]+)\s*", spelling)
        if match is None:
            raise JudgeDecodingError(
                f"The aim is {spelling[:40]!r}; it must be keep=SHARE (of the correct tokens) or catch=SHARE (of the "
                "wrong ones); by a task's accuracy, train chooses with --aim accuracy, and Python with calibrate."
            )
        return cls(match[1], float(match[2]))  # type: ignore[arg-type]  # the pattern has the three kinds

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    def threshold(self, scores: Tensor, correct: Tensor) -> float:
        """The threshold for ``scores`` [N] of tokens that are ``correct`` (bool [N]); see the functions below.

        Raises:
            JudgeDecodingError: there are no tokens of the relevant class, or the aim is about a task.
        """
        if self.kind == "accuracy":
            raise JudgeDecodingError(
                f"The aim {self} is about answers, not tokens; use judge_decoding.evaluation.thresholds "
                "(on the command line --calibrate-on)."
            )
        find = threshold_to_keep if self.kind == "keep" else threshold_to_catch
        return find(scores, correct, self.value)


def threshold_to_catch(scores: Tensor, correct: Tensor, share: float = 0.9) -> float:
    """The lowest threshold at which at least ``share`` of the wrong tokens are rejected (score <= threshold).

    Of all thresholds that give the same verdicts on ``scores`` [N], return the middle one, because the scores of a
    retrained head differ a little. Source: AutoJudge (arXiv 2504.20039) keeps 90% of the important tokens this way.

    Raises:
        JudgeDecodingError: there are no wrong tokens.
    """
    wrong = scores[~correct.bool()]
    if not len(wrong):
        raise JudgeDecodingError("Calibrating a judge needs wrong tokens; add cases with located errors.")
    highest = float(wrong.kthvalue(_count(share, len(wrong))).values)
    above = scores[scores > highest]
    return _between(highest, float(above.min())) if len(above) else highest


def threshold_to_keep(scores: Tensor, correct: Tensor, share: float = 0.95) -> float:
    """The highest threshold at which at least ``share`` of the correct tokens are kept (score > threshold).

    Of all thresholds that give the same verdicts on ``scores`` [N], return the middle one; see above.

    Raises:
        JudgeDecodingError: there are no correct tokens.
    """
    right = scores[correct.bool()]
    if not len(right):
        raise JudgeDecodingError("Calibrating a judge needs correct tokens; add cases without errors.")
    lowest = float(right.sort(descending=True).values[_count(share, len(right)) - 1])
    below = scores[scores < lowest]
    # If nothing is to be rejected, use half the lowest score, for probabilities; log-probabilities are negative.
    return _between(float(below.max()) if len(below) else min(0.0, 2 * lowest), lowest)


def _between(low: float, high: float) -> float:
    """A number of few digits near the middle; in single precision, as scores are, it separates both."""
    middle, quarter = (low + high) / 2, (high - low) / 4
    for digits in range(1, 10):
        found = float(f"{middle:.{digits}g}")
        if abs(found - middle) <= quarter and low <= float(torch.tensor(found)) < high:
            return found
    return low


def _count(share: float, tokens: int) -> int:
    # Rounding must not turn 70% of 10 into more than 7.
    return max(math.ceil(share * tokens - 1e-9), 1)


def outcome(scores: Tensor, correct: Tensor, threshold: float) -> dict[str, float]:
    """The effect of a threshold: the shares of correct tokens kept and of wrong tokens caught."""
    kept, correct = scores > threshold, correct.bool()
    return {
        "kept_correct": float(kept[correct].double().mean()),
        "caught_wrong": float((~kept[~correct]).double().mean()),
    }
