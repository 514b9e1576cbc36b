"""Measures of a judge against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from judge_decoding import JudgeDecodingError
from judge_decoding.training.calibration import (
    Aim,
    auc,
    expected_calibration_error,
    outcome,
    reliability,
    roc,
    threshold_to_catch,
    threshold_to_keep,
)

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


SHARES = st.sampled_from([0.05, 0.1, 0.25, 0.5, 0.7, 0.9, 0.95, 1.0])


@given(SCORED, SHARES)
def test_no_lower_threshold_catches_as_much(scored: list[tuple[float, bool]], share: float) -> None:
    scores, correct = tensors(scored)
    wrong = scores[~correct]
    assume(len(wrong))
    threshold = threshold_to_catch(scores, correct, share)

    def caught(at: float) -> float:
        return float((wrong <= at).double().mean())

    assert caught(threshold) >= share - 1e-9
    lower = [float(s) for s in scores if s <= threshold]
    assert caught(max(lower) - 0.01) < share - 1e-9
    assert not [s for s in scores.tolist() if max(lower) < s <= threshold]


@given(SCORED, SHARES)
def test_no_higher_threshold_keeps_as_much(scored: list[tuple[float, bool]], share: float) -> None:
    scores, correct = tensors(scored)
    right = scores[correct]
    assume(len(right))
    threshold = threshold_to_keep(scores, correct, share)

    def kept(at: float) -> float:
        return float((right > at).double().mean())

    assume(right.min() > 0)  # a score of 0 is above no threshold
    assert kept(threshold) >= share - 1e-9
    higher = [s for s in scores.tolist() if s > threshold]
    assert kept(min(higher)) < share - 1e-9


def test_thresholds_of_ten_tokens_by_hand() -> None:
    """Scores .01 to .10: what is caught is the lowest ones, what is kept the highest; the threshold lies between."""
    scores = torch.arange(1, 11) / 100
    wrong, right = torch.zeros(10, dtype=torch.bool), torch.ones(10, dtype=torch.bool)
    for share, expected in ((0.9, 0.095), (0.91, 0.10), (0.05, 0.015), (1.0, 0.10)):
        assert threshold_to_catch(scores, wrong, share) == pytest.approx(expected)
    for share, expected in ((0.9, 0.015), (0.95, 0.005), (0.7, 0.035), (0.05, 0.095), (1.0, 0.005)):
        assert threshold_to_keep(scores, right, share) == pytest.approx(expected)


def test_a_threshold_has_few_digits() -> None:
    scores = torch.tensor([0.8461234, 0.8472987])
    for find in (threshold_to_catch, threshold_to_keep):
        assert find(scores, torch.tensor([False, True]), 1.0) == 0.847  # and 0.8 and 0.85 do not lie between them


def test_thresholds_of_mixed_tokens_by_hand() -> None:
    scores = torch.tensor([0.1, 0.3, 0.4, 0.6, 0.8, 0.9])
    correct = torch.tensor([False, True, False, True, True, True])
    assert threshold_to_catch(scores, correct, 0.5) == pytest.approx(0.2)
    assert threshold_to_catch(scores, correct, 1.0) == pytest.approx(0.5)
    assert threshold_to_keep(scores, correct, 0.75) == pytest.approx(0.5)
    assert threshold_to_keep(scores, correct, 1.0) == pytest.approx(0.2)
    assert outcome(scores, correct, 0.5) == {"kept_correct": 0.75, "caught_wrong": 1.0}
    assert outcome(scores, correct, 0.3) == {"kept_correct": 0.75, "caught_wrong": 0.5}


def test_log_probabilities_have_thresholds_too() -> None:
    scores, correct = torch.tensor([-9.0, -3.0, -1.0]), torch.tensor([True, False, True])
    assert outcome(scores, correct, threshold_to_keep(scores, correct, 1.0))["kept_correct"] == 1.0
    assert threshold_to_catch(scores, correct, 1.0) == pytest.approx(-2.0)


def test_neighbours_in_single_precision_have_a_threshold_between_them() -> None:
    low = torch.tensor(0.5)
    scores = torch.stack((low, torch.nextafter(low, torch.tensor(1.0))))
    correct = torch.tensor([False, True])
    for find in (threshold_to_catch, threshold_to_keep):
        assert outcome(scores, correct, find(scores, correct, 1.0)) == {"kept_correct": 1.0, "caught_wrong": 1.0}


def test_a_threshold_needs_the_tokens_it_is_about() -> None:
    with pytest.raises(JudgeDecodingError, match="needs wrong tokens"):
        threshold_to_catch(torch.tensor([0.5]), torch.tensor([True]))
    with pytest.raises(JudgeDecodingError, match="needs correct tokens"):
        threshold_to_keep(torch.tensor([0.5]), torch.tensor([False]))


def test_aims_are_read() -> None:
    assert Aim.parse("keep=0.95") == Aim("keep", 0.95)
    assert Aim.parse(" catch = .9 ") == Aim("catch", 0.9)
    assert str(Aim.parse("accuracy=1")) == "accuracy=1"
    scores, correct = torch.tensor([0.1, 0.3, 0.6, 0.8]), torch.tensor([False, False, True, True])
    assert Aim("keep", 0.5).threshold(scores, correct) == pytest.approx(0.7)
    assert Aim("catch", 0.5).threshold(scores, correct) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("spelling", "phrase"),
    [
        ("", "must be keep=SHARE"), ("keep", "must be keep=SHARE"), ("keep=", "must be keep=SHARE"),
        ("recall=0.9", "must be keep=SHARE"), ("keep=-1", "must be keep=SHARE"), ("keep=nan", "must be keep=SHARE"),
        ("keep=95", "keep is 95; it must be above 0 and at most 1"), ("catch=0", "catch is 0"),
        ("accuracy=101", "accuracy is 101; it must be 0 to 100 points"),
    ],
)  # fmt: skip
def test_other_aims_are_refused(spelling: str, phrase: str) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase):
        Aim.parse(spelling)


def test_an_aim_about_answers_has_no_threshold_on_tokens() -> None:
    with pytest.raises(JudgeDecodingError, match="about answers, not tokens"):
        Aim("accuracy", 1).threshold(torch.tensor([0.5]), torch.tensor([True]))


def test_reliability_by_hand() -> None:
    scores = torch.tensor([0.05, 0.15, 0.19, 0.95, 1.0])
    rows = reliability(scores, torch.tensor([False, True, False, True, True]))
    assert [(row["low"], row["high"], row["tokens"], row["correct"]) for row in rows] == [
        (0.0, 0.1, 1, 0.0), (0.1, 0.2, 2, 0.5), (0.9, 1.0, 2, 1.0),
    ]  # fmt: skip
    assert [row["score"] for row in rows] == pytest.approx([0.05, 0.17, 0.975])


def test_roc_by_hand() -> None:
    """From the highest score on: correct, then a tie of both, then wrong."""
    points = roc(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([True, True, False, False]))
    assert points == {"wrong_kept": [0.0, 0.0, 0.5, 1.0], "correct_kept": [0.0, 0.5, 1.0, 1.0]}
    with pytest.raises(JudgeDecodingError, match="both verdicts"):
        roc(torch.tensor([0.5]), torch.tensor([True]))


@given(SCORED)
def test_the_area_under_the_roc_is_the_auc(scored: list[tuple[float, bool]]) -> None:
    scores, correct = tensors(scored)
    assume(0 < int(correct.sum()) < len(correct))
    points = roc(scores, correct)
    x, y = torch.tensor(points["wrong_kept"]), torch.tensor(points["correct_kept"])
    assert float(torch.trapezoid(y, x)) == pytest.approx(auc(scores, correct), abs=1e-5)


def test_a_long_roc_is_thinned_along_the_curve() -> None:
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(20_000, generator=generator) > 0.01
    scores = torch.rand(20_000, generator=generator) + 0.8 * correct
    points = roc(scores, correct)
    x, y = torch.tensor(points["wrong_kept"]), torch.tensor(points["correct_kept"])
    assert len(x) <= 100
    assert (float(x[0]), float(y[0]), float(x[-1]), float(y[-1])) == (0, 0, 1, 1)
    assert float((x.diff() + y.diff()).max()) < 0.05
    assert float(torch.trapezoid(y, x)) == pytest.approx(auc(scores, correct), abs=2e-3)


def test_calibration_error_by_hand() -> None:
    """Two bins hold tokens: 0.2 with none of two correct, 0.9 with three of four."""
    scores = torch.tensor([0.2, 0.2, 0.9, 0.9, 0.9, 0.9])
    correct = torch.tensor([False, False, True, True, True, False])
    expected = 2 / 6 * 0.2 + 4 / 6 * 0.15
    assert expected_calibration_error(scores, correct) == pytest.approx(expected)
    assert expected_calibration_error(torch.tensor([0.0, 1.0]), torch.tensor([False, True])) == 0.0
    assert expected_calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([False, True])) == 1.0
