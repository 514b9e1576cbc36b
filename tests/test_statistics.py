"""Intervals and tests against published examples and by simulation."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from judge_decoding import JudgeDecodingError
from judge_decoding.core.results import ItemResult, ResultRow, row
from judge_decoding.statistics import (
    difference_interval,
    mcnemar,
    mean_interval,
    rate_ratio_interval,
    ratio_interval,
    wilson,
)


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two methods with so many problems that both, one or none of them got right."""
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_wilson_of_a_published_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(
    ("table", "interval"),
    [
        # Altman et al., Statistics with Confidence (2000), table 6.2.
        ((14, 5, 0, 22), (0.011, 0.226)),
        # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014) 2850, Newcombe's square-and-add interval.
        ((1, 1, 7, 12), (-0.507, -0.026)),
    ],
)
def test_newcombes_interval_of_published_examples(
    table: tuple[int, int, int, int], interval: tuple[float, float]
) -> None:
    assert difference_interval(*pairs(*table)) == pytest.approx(interval, abs=5e-4)


def test_newcombes_interval_turns_round_with_the_methods() -> None:
    a, b = pairs(60, 9, 4, 27)
    low, high = difference_interval(a, b)
    assert difference_interval(b, a) == pytest.approx((-high, -low))
    assert low < 0.05 < high


def test_two_methods_that_do_the_same_are_not_shown_to_be_equal_on_a_few_problems() -> None:
    few, many = difference_interval(*pairs(20, 0, 0, 0)), difference_interval(*pairs(2000, 0, 0, 0))
    assert few[0] < -0.1
    assert -0.003 < many[0] < 0 < many[1] < 0.003


def test_newcombes_interval_holds_the_truth_as_often_as_it_says() -> None:
    # Both right with 0.85, only a 0.03, only b 0.07: the truth is -0.04.
    rng, held = random.Random(1), 0
    for _ in range(400):
        drawn = rng.choices(range(4), (0.85, 0.03, 0.07, 0.05), k=200)
        low, high = difference_interval(*pairs(*(drawn.count(i) for i in range(4))))
        held += low <= -0.04 <= high
    assert 0.92 <= held / 400 <= 0.985


def test_mcnemar_by_hand() -> None:
    assert mcnemar(*pairs(5, 0, 0, 3)) == 1
    assert mcnemar(*pairs(40, 1, 5, 10)) == pytest.approx(2 * (1 + 6) / 2**6)  # of 6 that differ, 1 or fewer


def test_ratios_are_of_sums_and_drawn_in_pairs() -> None:
    # The ratio is 2 in every pair, so it is 2 in every draw of pairs; of columns drawn apart it would not be.
    assert ratio_interval([(2.0 * k, k) for k in (1, 5, 40)]) == pytest.approx((2, 2))
    assert rate_ratio_interval([(6.0 * k, 2 * k, 3.0 * k, 3 * k) for k in (1, 5, 40)]) == pytest.approx((3, 3))
    assert ratio_interval([(1, 2)]) is None
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0]) or (0, 0)
    assert 1 < low < 2.5 < high < 4


def answers(rights: Sequence[bool | None], *, tokens: int = 10, seconds: float | None = 1.0) -> list[ItemResult]:
    return [
        ItemResult(str(i), right, rounds=5, tokens=tokens, accepted=tokens - 5, seconds=seconds)
        for i, right in enumerate(rights)
    ]


def make(*args: object, **more: object) -> ResultRow:
    return row(*args, name="x", rule="x", num_draft_tokens=4, **more)  # type: ignore[arg-type]


def test_a_row_is_counted_by_hand() -> None:
    target = answers([True] * 8 + [False] * 2, tokens=5)
    found = make(answers([True] * 7 + [False] * 3, tokens=10, seconds=0.5), target, margin=0.02)
    assert (found.answers, found.checked, found.right, found.accuracy) == (10, 10, 7, 0.7)
    assert (found.rounds, found.tokens, found.accepted) == (50, 100, 50)
    assert (found.accepted_per_round, found.tokens_per_forward, found.tokens_per_answer) == (1, 2, 10)
    assert found.tokens_per_second == pytest.approx(20)
    assert found.speedup == pytest.approx(4)
    assert found.difference == pytest.approx(-0.1)
    assert found.non_inferior is False


def test_not_worse_by_more_than_the_margin_must_be_shown() -> None:
    same = [True] * 190 + [False] * 10
    for margin, shown in ((0.05, True), (0.005, False)):
        assert make(answers(same), answers(same), margin=margin).non_inferior is shown


def test_what_cannot_be_told_is_none() -> None:
    found = make(answers([None] * 3, seconds=None), answers([None] * 3, seconds=None))
    assert (found.accuracy, found.difference, found.mcnemar_p, found.non_inferior) == (None,) * 4
    assert (found.tokens_per_second, found.speedup) == (None, None)
    assert found.tokens_per_forward == 2
    half = make(answers([True, None, False]), answers([None, True, True]))
    assert (half.checked, half.right, half.difference) == (2, 1, -1.0)  # only the last one is told of both


def test_answers_to_other_items_are_not_compared() -> None:
    with pytest.raises(JudgeDecodingError, match="different items"):
        make(answers([True, True]), answers([True]))
