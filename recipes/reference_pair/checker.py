"""Where an answer goes wrong: the exact first wrong token, and whether its number is right.

An answer is read against every right answer of the grammar at once (all orders, all wordings, both
styles). The first token that no right answer can have there is the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass

from grammar import (
    STYLES,
    Slots,
    State,
    Step,
    clause_templates,
    closing,
    fill,
    next_steps,
    opening,
)
from judge_decoding.reference.problems import Problem


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read the tokens so far: inside ``row``, before token ``at`` of a filled alternative.

    ``then`` is the state the row leads to, None for the closing sentence.
    """

    row: Slots
    slot: int
    words: tuple[str, ...]
    at: int
    step: Step | None
    then: State | None


class Checker:
    """Reads an answer token by token; ``feed`` says whether a right answer can go on so."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        start = State.start(problem)
        self._readings = [r for s in STYLES for r in self._enter(opening(problem, s), None, start)]
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether the tokens so far are a whole right answer."""
        return self._ended

    def feed(self, token: str) -> bool:
        """Read ``token``; False if no right answer has it here (the reading then stays where it was)."""
        readings: list[_Reading] = []
        ended = False
        for r in self._readings:
            if r.words[r.at] != token:
                continue
            if r.at + 1 < len(r.words):
                readings.append(_Reading(r.row, r.slot, r.words, r.at + 1, r.step, r.then))
                continue
            readings.extend(self._enter(r.row, r.step, r.then, r.slot + 1))
            ended = ended or (r.then is None and _may_end(r.row, r.slot + 1))
        if not readings and not ended:
            return False
        self._readings, self._ended = readings, ended
        return True

    def copy(self) -> Checker:
        """A checker that stands where this one stands and goes on by itself."""
        other = copy(self)
        other._readings = list(self._readings)
        return other

    def _enter(self, row: Slots, step: Step | None, then: State | None, slot: int = 0) -> Iterator[_Reading]:
        """Every reading that stands before its first token, from ``slot`` of ``row`` on."""
        while slot < len(row):
            for alternative in row[slot]:
                if alternative:
                    yield _Reading(row, slot, fill(alternative, step), 0, step, then)
            if () not in row[slot]:
                return
            slot += 1
        if then is not None:
            yield from self._next_rows(step, then)

    def _next_rows(self, step: Step | None, state: State) -> Iterator[_Reading]:
        problem = self._problem
        if state.done:
            for style in STYLES:
                yield from self._enter(closing(problem, style), step, None)
            return
        for following in next_steps(problem, state):
            for style in STYLES:
                for row in clause_templates(problem.item, problem.holder, following.op, style):
                    yield from self._enter(row, following, following.after)


def _may_end(row: Slots, slot: int) -> bool:
    return all(() in alternatives for alternatives in row[slot:])


def first_wrong_token(problem: Problem, tokens: Iterable[str], ended: bool = True) -> int | None:
    """Index of the first token that no right answer to ``problem`` has there, None if there is none.

    ``ended`` says that the answer stops after ``tokens`` (it met EOS): if a right answer would have to go
    on, the end itself is wrong, and the index is ``len(tokens)``.
    """
    checker = Checker(problem)
    count = 0
    for index, token in enumerate(tokens):
        if not checker.feed(token):
            return index
        count = index + 1
    return count if ended and not checker.complete else None
