"""Grade-school word problems: drawing them, wording them as questions, and assigning them to splits.

A problem is a list of terms whose signed sum is the answer. A term is given directly, as a product
("3 bags with 4 apples each") or relative to another person's count ("5 more than Ann").
Every quantity, in any order of solving, stays within ``0..LARGEST``, so that each number is one token.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Literal, get_args

from judge_decoding.errors import JudgeDecodingError

LARGEST = 30
"""Largest number in a question or in a right answer."""

MAX_NEW_TOKENS = 140
"""Token budget of one answer; the longest right answers have about 100 tokens."""

ProblemFamily = Literal["collection", "comparison"]
ProblemSplit = Literal["pretrain", "head", "calibration", "test"]

STEPS = (2, 2, 3)
"""Numbers of gains and losses in a collection: two in two thirds of the problems, three in the others."""

_ENOUGH_REPEATS = 2000
"""Number of consecutive draws without a new calculation after which a split counts as exhausted."""

NAMES = ("Tom", "Ann", "Ben", "Eva", "Sam", "Mia", "Leo", "Zoe", "Max", "Ida", "Jon", "Amy")
ITEMS = ("apples", "pens", "coins", "books", "cards", "shells", "stamps", "cookies", "marbles", "stones")
HOLDERS = ("bags", "boxes", "baskets", "jars")

GAINS = ("finds", "buys", "wins", "gets", "collects")
LOSSES = ("loses", "sells", "drops", "breaks", "spends")


@dataclass(frozen=True, slots=True)
class Term:
    """One quantity of a problem.

    ``derivation`` is None for a number that the question states, else ``(op, left, right)`` with op
    ``"*"``, ``"+"`` or ``"-"``. For a relative term ``left`` is the value of the term at ``base``.
    """

    value: int
    sign: int = 1
    derivation: tuple[str, int, int] | None = None
    base: int | None = None
    who: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem with its terms; ``question`` is its text, ``answer`` the number."""

    family: ProblemFamily
    terms: tuple[Term, ...]
    who: str
    item: str
    holder: str
    question: str

    @property
    def answer(self) -> int:
        """The right final number."""
        return sum(term.sign * term.value for term in self.terms)

    @property
    def key(self) -> str:
        """Hash of the numbers and operations; different wordings of one calculation share it."""
        shape = sorted((t.sign, t.value, t.derivation or ()) for t in self.terms)
        return hashlib.sha256(repr((self.family, shape)).encode()).hexdigest()

    @property
    def split(self) -> ProblemSplit:
        """The split of this problem, decided by ``key`` alone, so that no calculation is in two splits."""
        bucket = int(self.key[:8], 16) % 100
        if bucket < 80:
            return "pretrain"
        if bucket < 88:
            return "head"
        return "calibration" if bucket < 94 else "test"


def draw(rng: random.Random, family: ProblemFamily, steps: tuple[int, ...] = STEPS) -> Problem:
    """Draw one problem of ``family`` from any split; ``steps`` are the possible numbers of gains and losses."""
    while True:
        problem = _draw_collection(rng, rng.choice(steps)) if family == "collection" else _draw_comparison(rng)
        positive = sum(t.value for t in problem.terms if t.sign > 0)
        if positive <= LARGEST and problem.answer >= 0:
            return problem


def draw_from(
    rng: random.Random, split: ProblemSplit, family: ProblemFamily | None = None, steps: tuple[int, ...] = STEPS
) -> Problem:
    """Draw one problem of ``split``; without ``family``, seven of eight are collections."""
    if split not in get_args(ProblemSplit):
        raise JudgeDecodingError(f"There is no split {split!r}; the splits are {', '.join(get_args(ProblemSplit))}.")
    while True:
        problem = draw(rng, family or ("collection" if rng.random() < 0.88 else "comparison"), steps)
        if problem.split == split:
            return problem


def draw_many(seed: int, split: ProblemSplit, count: int, family: ProblemFamily = "collection") -> list[Problem]:
    """Draw ``count`` different calculations of ``split`` and ``family``, the same for the same ``seed``."""
    rng = random.Random(f"{split}-{family}-{seed}")
    found: dict[str, Problem] = {}
    repeats = 0
    while len(found) < count:
        problem = draw_from(rng, split, family)
        repeats = repeats + 1 if problem.key in found else 0
        if repeats > _ENOUGH_REPEATS:
            raise JudgeDecodingError(
                f"The {split} split has about {len(found)} different {family} problems, not {count}; ask for fewer."
            )
        found.setdefault(problem.key, problem)
    return list(found.values())


def _draw_collection(rng: random.Random, steps: int) -> Problem:
    """Draw a problem in which a person has some items, then gains and loses some, possibly once by the bag."""
    who, other = rng.sample(NAMES, 2)
    item, holder = rng.choice(ITEMS), rng.choice(HOLDERS)
    terms = [Term(rng.randint(2, 20))]
    sentences = [f" {who} has {terms[0].value} {item}."]
    by_the_bag = rng.randrange(6)
    for step in range(steps):
        sign = rng.choice((1, -1))
        if step == by_the_bag:
            count, each = rng.randint(2, 5), rng.randint(2, 6)
            terms.append(Term(count * each, sign, ("*", count, each)))
            verb = rng.choice(GAINS if sign > 0 else LOSSES)
            sentences.append(f" {who} {verb} {count} {holder} with {each} {item} each.")
            continue
        terms.append(Term(rng.randint(1, 15), sign))
        amount = f"{terms[-1].value} {item}"
        if rng.random() < 0.3:
            sentences.append(f" {other} gives {who} {amount}." if sign > 0 else f" {who} gives {other} {amount}.")
        else:
            sentences.append(f" {who} {rng.choice(GAINS if sign > 0 else LOSSES)} {amount}.")
    question = "".join(sentences) + f" How many {item} does {who} have now?"
    return Problem("collection", tuple(terms), who, item, holder, question)


def _draw_comparison(rng: random.Random) -> Problem:
    """Draw a problem about the sum of two or three people's items, each given relative to an earlier person's."""
    people = rng.sample(NAMES, rng.choice((2, 3)))
    item = rng.choice(ITEMS)
    terms = [Term(rng.randint(2, 15), who=people[0])]
    sentences = [f" {people[0]} has {terms[0].value} {item}."]
    for index, person in enumerate(people[1:], start=1):
        base = rng.randrange(index)
        value, name = terms[base].value, people[base]
        op = rng.choice("+-*")
        amount = rng.randint(2, 3) if op == "*" else rng.randint(1, min(10, max(1, value - 1)))
        result = {"+": value + amount, "-": value - amount, "*": value * amount}[op]
        terms.append(Term(result, 1, (op, value, amount), base, person))
        words = {
            "+": f"{amount} more {item} than",
            "-": f"{amount} fewer {item} than",
            "*": f"{amount} times as many {item} as",
        }
        sentences.append(f" {person} has {words[op]} {name}.")
    question = "".join(sentences) + f" How many {item} do they have together?"
    return Problem("comparison", tuple(terms), people[0], item, HOLDERS[0], question)
