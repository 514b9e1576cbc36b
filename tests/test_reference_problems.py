"""The problems of the embedded pair: splits that share nothing, answers the checker agrees with."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checker import Checker, first_wrong_token
from grammar import Taste, render, split_tokens
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.reference import problems
from judge_decoding.reference.problems import LARGEST, Problem, ProblemSplit, draw_from, draw_many
from judge_decoding.tasks.results import last_number
from slips import TAKE_BACK, with_slips

TASTES = {
    "equation": Taste(story=0, mixed=0),
    "story": Taste(story=1, mixed=0),
    "mixed": Taste(story=0, mixed=1),
    "contrary": Taste(story=0.85, mixed=0.05, contrary=True),
}
SPLITS: tuple[ProblemSplit, ...] = ("pretrain", "head", "calibration", "test")


def written(problem: Problem, taste: Taste, rng: random.Random) -> list[str]:
    return [token for clause in render(problem, taste, rng) for token in clause.tokens]


def test_no_calculation_is_in_two_splits():
    keys = {split: {p.key for p in draw_many(0, split, 300)} for split in SPLITS}
    assert all(len(found) == 300 for found in keys.values())
    for a in SPLITS:
        for b in SPLITS:
            assert a == b or not keys[a] & keys[b]


def test_a_split_is_decided_by_the_numbers_and_not_by_the_words():
    # The same calculation told with other names, things and verbs must stay on the same side.
    rng = random.Random(0)
    told: dict[str, set[str]] = {}
    questions: dict[str, set[str]] = {}
    for _ in range(1000):
        problem = draw_from(rng, "test")
        told.setdefault(problem.key, set()).add(problem.split)
        questions.setdefault(problem.key, set()).add(problem.question)
    assert max(map(len, questions.values())) > 1
    assert all(splits == {"test"} for splits in told.values())


def test_problems_are_the_same_for_the_same_seed_and_others_for_another():
    assert draw_many(3, "test", 20) == draw_many(3, "test", 20)
    assert draw_many(3, "test", 20) != draw_many(4, "test", 20)


def test_asking_for_more_problems_than_there_are_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "_ENOUGH_REPEATS", 20)
    with pytest.raises(JudgeDecodingError, match=r"has about \d+ different comparison problems, not 3000; ask"):
        draw_many(0, "test", 3000, "comparison")


@pytest.mark.parametrize("family", ["collection", "comparison"])
@pytest.mark.parametrize("taste", TASTES.values(), ids=TASTES)
def test_every_written_answer_passes_the_checker(family, taste):
    rng = random.Random(1)
    for problem in draw_many(1, "pretrain", 100, family):
        tokens = written(problem, taste, rng)
        assert split_tokens("".join(tokens)) == tokens
        assert first_wrong_token(problem, tokens) is None
        assert last_number("".join(tokens)) == str(problem.answer)
        assert all(int(t) <= LARGEST for t in tokens if t.strip().isdigit())


def test_the_two_styles_have_answers_of_like_length():
    # Else tokens per second would flatter whoever writes longer answers.
    rng = random.Random(2)
    problems = draw_many(2, "pretrain", 300)
    mean = {n: sum(len(written(p, t, rng)) for p in problems) / len(problems) for n, t in TASTES.items()}
    assert max(mean.values()) / min(mean.values()) < 1.35


def test_an_answer_cut_short_is_wrong_at_its_end():
    problem = draw_many(0, "pretrain", 1)[0]
    tokens = written(problem, TASTES["story"], random.Random(0))
    assert first_wrong_token(problem, tokens[:-1]) == len(tokens) - 1
    assert first_wrong_token(problem, tokens[:-1], ended=False) is None
    assert first_wrong_token(problem, []) == 0


def test_nothing_may_follow_a_whole_answer():
    problem = draw_many(0, "pretrain", 1)[0]
    tokens = written(problem, TASTES["story"], random.Random(0))
    assert first_wrong_token(problem, [*tokens, " Then"]) == len(tokens)


def test_the_first_wrong_token_by_hand():
    problem = next(
        p for p in draw_many(0, "pretrain", 200) if len(p.terms) == 3 and all(t.derivation is None for t in p.terms)
        and p.terms[1].sign > 0 > p.terms[2].sign
    )  # fmt: skip
    a, b, c = (t.value for t in problem.terms)
    item = problem.item
    start = f" Solution in numbers: Then {a} + {b} = {a + b}, so there are {a + b} {item}."
    right = f"{start} Then {a + b} - {c} = {a + b - c}, so there are {a + b - c} {item}. The answer is {a + b - c}."
    assert first_wrong_token(problem, split_tokens(right)) is None
    for wrong, at in (
        (f" Solution in numbers: Then {a} + {b} = {a + b + 1}, so", 9),  # a wrong result
        (f" Solution in numbers: Then {a} * {b} = {a * b}, so", 6),  # a wrong operation
        (f"{start} The answer is {a + b}.", 17),  # the answer told too early
        (f"{start} Then {a + b} - {c} = {a + b - c}, so there are {a + b - c - 1} {item}.", 27),  # copied wrongly
    ):
        assert first_wrong_token(problem, split_tokens(wrong), ended=False) == at, wrong


def test_a_copied_checker_goes_on_by_itself():
    problem = draw_many(0, "pretrain", 1)[0]
    tokens = written(problem, TASTES["equation"], random.Random(0))
    checker = Checker(problem)
    assert checker.feed(tokens[0])
    other = checker.copy()
    assert all(other.feed(token) for token in tokens[1:])
    assert other.complete
    assert not checker.complete
    assert checker.feed(tokens[1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 2))
def test_taking_the_slips_out_gives_a_right_answer_again(seed, count):
    rng = random.Random(seed)
    problem = draw_from(rng, "pretrain")
    clauses = render(problem, TASTES["mixed"], rng)
    tokens = with_slips(clauses, problem, TASTES["mixed"], count, rng)
    plain = [token for clause in clauses for token in clause.tokens]
    assert last_number("".join(tokens)) == str(problem.answer)
    if tokens == plain:  # a slip that happened to be right is not written
        return
    wrong = first_wrong_token(problem, tokens)
    assert wrong is not None
    back = tokens.index(TAKE_BACK[0])
    assert wrong < back
    assert tuple(tokens[back : back + 2]) == TAKE_BACK
