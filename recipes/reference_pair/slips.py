"""Slips and their corrections: what teaches a small model to notice a mistake.

People write "12 + 8 = 21 no, 20", and large models have read a great deal of it. `with_slips` puts such
slips into a right answer: a wrong number taken back at once, or a wrong sentence (wrong operation, wrong
quantity, wrong result, the answer told too early) taken back some tokens later and written again.
"""

from __future__ import annotations

import random
from dataclasses import replace

from checker import Checker
from grammar import (
    STYLES,
    Clause,
    Step,
    Taste,
    clause_templates,
    closing,
    write,
)
from judge_decoding.reference.problems import LARGEST, Problem

TAKE_BACK = (" no", ",")
"""The tokens that take a slip back."""


def wrong_number(right: int, problem: Problem | None, step: Step | None, rng: random.Random) -> int:
    """A number that somebody might write instead of ``right``: near it, from the problem, or any."""
    while True:
        kind = rng.random()
        if kind < 0.4:
            number = right + rng.choice((-10, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 10))
        elif kind < 0.7 and problem is not None:
            term = rng.choice(problem.terms)
            number = rng.choice((term.value, *(term.derivation or ())[1:]))
        elif kind < 0.85 and step is not None:
            number = compute(rng.choice("+-*"), step.x, step.y)
        else:
            number = rng.randint(0, LARGEST)
        if number != right and 0 <= number <= LARGEST:
            return number


def compute(op: str, x: int, y: int) -> int:
    """The result of one computation."""
    return {"+": x + y, "-": x - y, "*": x * y}[op]


def with_slips(clauses: list[Clause], problem: Problem, taste: Taste, count: int, rng: random.Random) -> list[str]:
    """The tokens of ``clauses`` with up to ``count`` of its sentences slipped and corrected."""
    slipped = set(rng.sample(range(1, len(clauses)), min(count, len(clauses) - 1)))
    tokens: list[str] = []
    checker = Checker(problem)
    for index, clause in enumerate(clauses):
        if index in slipped:
            if rng.random() < 0.65:
                tokens += _number_slip(clause, problem, rng)
            else:
                tokens += _sentence_slip(clause, index == len(clauses) - 1, checker, problem, taste, rng)
        else:
            tokens += clause.tokens
        for token in clause.tokens:
            checker.feed(token)
    return tokens


def _number_slip(clause: Clause, problem: Problem, rng: random.Random) -> list[str]:
    """One number of the sentence wrong and taken back at once."""
    tokens = list(clause.tokens)
    at = rng.choice([i for i, token in enumerate(tokens) if token.strip().isdigit()])
    wrong = f" {wrong_number(int(tokens[at]), problem, clause.step, rng)}"
    return [*tokens[:at], wrong, *TAKE_BACK, *tokens[at:]]


def _sentence_slip(
    clause: Clause, last: bool, checker: Checker, problem: Problem, taste: Taste, rng: random.Random
) -> list[str]:
    """A wrong sentence, broken off some tokens after its first wrong one, then the right sentence."""
    step, style = clause.step, rng.choice(STYLES)
    assert step is not None
    kind = rng.random()
    if kind < 0.25 and not last:
        row, wrong = closing(problem, style), step
    else:
        if kind < 0.5:
            op = rng.choice("+-*")
            wrong = replace(step, op=op, z=compute(op, step.x, step.y))
        elif kind < 0.75:
            x = wrong_number(step.x, problem, None, rng)
            wrong = replace(step, x=x, z=compute(step.op, x, step.y))
        else:
            wrong = replace(step, z=wrong_number(step.z, problem, step, rng))
        if not 0 <= wrong.z <= LARGEST:
            wrong = replace(wrong, z=rng.randint(0, LARGEST))
        rows = (closing(problem, style),) if last else clause_templates(problem.item, problem.holder, wrong.op, style)
        row = rows[taste.choose(rng, len(rows))]
    words = write(row, wrong, taste, rng)
    right = _right_prefix(checker, words)
    if right == len(words):
        return list(clause.tokens)
    stop = right + 1 + min(int(rng.expovariate(0.25)), len(words))
    return [*words[:stop], *TAKE_BACK, *clause.tokens]


def _right_prefix(checker: Checker, words: list[str]) -> int:
    """How many of ``words`` a right answer may have next."""
    trial = checker.copy()
    for index, word in enumerate(words):
        if not trial.feed(word):
            return index
    return len(words)
