"""Measures of a judge against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from judge_decoding import JudgeDecodingError
from judge_decoding.judge.calibration import auc, expected_calibration_error, threshold_for_recall

# Few values, so that ties are common.
SCORED = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=1, max_size=30)


def tensors(scored: list[tuple[float, bool]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([score for score, _ in scored]), torch.tensor([correct for _, correct in scored])


@given(SCORED)
def test_auc_is_the_share_of_pairs_in_order(scored: list[tuple[float, bool]]) -> None:
    right = [score for score, correct in scored if correct]
    wrong = [score for score, correct in scored if not correct]
    assume(right)
    assume(wrong)
    pairs = [(r > w) + 0.5 * (r == w) for r in right for w in wrong]
    assert auc(*tensors(scored)) == pytest.approx(sum(pairs) / len(pairs))


@pytest.mark.parametrize("correct", [[True, True], [False, False], []])
def test_auc_needs_both_verdicts(correct: list[bool]) -> None:
    with pytest.raises(JudgeDecodingError, match="both verdicts"):
        auc(torch.zeros(len(correct)), torch.tensor(correct, dtype=torch.bool))


def test_auc_takes_labels_as_numbers() -> None:
    assert auc(torch.tensor([0.1, 0.9, 0.4]), torch.tensor([0, 1, 0])) == 1.0


@given(SCORED, st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.7, 0.9, 0.95, 1.0]))
def test_the_threshold_is_the_lowest_with_the_recall(scored: list[tuple[float, bool]], recall: float) -> None:
    scores, correct = tensors(scored)
    wrong = scores[~correct]
    assume(len(wrong))
    threshold = threshold_for_recall(scores, correct, recall)

    def rejected(at: float) -> float:
        return float((wrong.double() <= at).double().mean())

    assert rejected(threshold) >= recall - 1e-9
    lower = [float(w) for w in wrong if w < threshold]
    assert not lower or rejected(max(lower)) < recall - 1e-9


def test_the_threshold_of_ten_wrong_tokens() -> None:
    scores, correct = torch.arange(1, 11) / 100, torch.zeros(10, dtype=torch.bool)
    assert threshold_for_recall(scores, correct, 0.9) == pytest.approx(0.09)
    assert threshold_for_recall(scores, correct, 0.91) == pytest.approx(0.10)
    assert threshold_for_recall(scores, correct, 0.05) == pytest.approx(0.01)
    assert threshold_for_recall(scores, correct, 1.0) == pytest.approx(0.10)


def test_the_threshold_needs_wrong_tokens() -> None:
    with pytest.raises(JudgeDecodingError, match="needs wrong tokens"):
        threshold_for_recall(torch.tensor([0.5]), torch.tensor([True]))


def test_calibration_error_by_hand() -> None:
    """Two bins hold tokens: 0.2 with none of two correct, 0.9 with three of four."""
    scores = torch.tensor([0.2, 0.2, 0.9, 0.9, 0.9, 0.9])
    correct = torch.tensor([False, False, True, True, True, False])
    expected = 2 / 6 * 0.2 + 4 / 6 * 0.15
    assert expected_calibration_error(scores, correct) == pytest.approx(expected)
    assert expected_calibration_error(torch.tensor([0.0, 1.0]), torch.tensor([False, True])) == 0.0
    assert expected_calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([False, True])) == 1.0
