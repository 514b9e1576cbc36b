"""Checkers: compare an answer's result with a reference, or run its code with unit tests.

Your own package adds a checker under the entry-point group ``judge_decoding.checkers``: a name, and a function
``check(question, answer, reference)`` that returns True, False, or None if it cannot decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.sandbox import Sandbox, SandboxLimits, run_program, sandbox_of
from judge_decoding.plugins import description_of, imported, installed
from judge_decoding.spelling import guess
from judge_decoding.tasks.final import final_number
from judge_decoding.tasks.number_text import foreign_numeral
from judge_decoding.tasks.results import last_choice, result_function, whole_text

GROUP = "judge_decoding.checkers"
"""The entry-point group of checkers."""

Checker = Callable[[str, str, str], bool | None]
"""From a question (without chat template), an answer and a reference to a verdict; None if it cannot decide."""

_FENCE = re.compile(
    r"```[ \t]*(?:python3?|py)?[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE
)


def number(_question: str, answer: str, reference: str) -> bool | None:
    """Whether the final numbers of answer and reference are equal; see `final_number` and `Number.same`.

    An answer without a number is wrong. It is undecided if its only numeral is of an unsupported kind, as ``Ⅻ``.
    """
    wanted, found = final_number(reference), final_number(answer)
    if wanted is None or (found is None and foreign_numeral(answer) and not re.search(r"\d", answer)):
        return None
    return found is not None and found.same(wanted)


def choice(_question: str, answer: str, reference: str) -> bool | None:
    """Whether the answer names the reference's letter A to J: the one at its start, or else the one that it names."""
    start = re.match(r"\W*([A-J])(?![A-Za-z'])", reference)
    wanted = start[1] if start else last_choice(reference)
    return None if wanted is None else last_choice(answer) == wanted


def exact(_question: str, answer: str, reference: str) -> bool | None:
    """Whether answer and reference are the same text, ignoring whitespace."""
    return whole_text(answer) == whole_text(reference)


def unit_tests(
    question: str, answer: str, reference: str, limits: SandboxLimits | None = None, sandbox: Sandbox | None = None
) -> bool | None:
    """Whether the answer's code passes the tests in the reference; see `run_program` for what it may do.

    The code is that of the answer's first fenced block, or the whole answer. It is run after the question, for tasks
    such as HumanEval in which the question begins the program; if that fails, it is run by itself. Tests that are
    defined but not called let every answer pass.
    """
    if "__main__" in reference:
        raise JudgeDecodingError(
            "Unit tests guarded by a test of __name__ never run here, so every answer would pass; give statements "
            "that run on import, such as assertions or check(candidate)."
        )
    fenced = _FENCE.search(answer)
    code = fenced[1] if fenced else answer
    whole = question + code if not fenced else f"{question}\n{code}"
    return any(run_program(f"{program}\n\n{reference}\n", limits, sandbox).passed for program in (whole, code))


_BUILT_IN: dict[str, Checker] = {"number": number, "choice": choice, "exact": exact, "tests": unit_tests}


def checker_of(spelling: str, *, allow_code: bool = False, sandbox: str = "bwrap") -> Checker:
    """The checker for ``number``, ``choice``, ``exact``, ``regex:PATTERN``, ``tests``, or one of an installed package.

    A pattern's last match in the answer (its first group, if it has one) must equal that in the reference, or the whole
    reference if the pattern does not match there. ``sandbox`` says where the answers' code runs, if ``allow_code``.
    """
    if spelling == "tests" and not allow_code:
        raise JudgeDecodingError(
            "The checker tests runs the code of the answers; allow it with --allow-code-execution."
        )
    if spelling == "tests":
        return partial(unit_tests, sandbox=sandbox_of(sandbox))
    if spelling in _BUILT_IN:
        return _BUILT_IN[spelling]
    if spelling.startswith("regex:"):
        return _same_result(result_function(spelling))
    foreign = installed(GROUP, _BUILT_IN)
    if spelling in foreign:
        return _load(foreign[spelling])
    names = [*_BUILT_IN, "regex:PATTERN", *foreign]
    raise JudgeDecodingError(
        f"There is no checker {spelling[:40]}{guess(spelling, names)}; the checkers are {', '.join(names)}."
    )


def _same_result(result: Callable[[str], str | None]) -> Checker:
    def check(_question: str, answer: str, reference: str) -> bool | None:
        wanted = result(reference)
        found = result(answer)
        return found is not None and whole_text(found) == whole_text(reference if wanted is None else wanted)

    return check


def _load(entry: EntryPoint) -> Checker:
    who, function = description_of(entry, "checker"), imported(entry, "checker")
    if not callable(function):
        raise JudgeDecodingError(f"{who} is not a function; repair or remove that package.")

    def check(question: str, answer: str, reference: str) -> bool | None:
        try:
            verdict = function(question, answer, reference)
        except Exception as error:  # another package's code
            raise JudgeDecodingError(
                f"{who} fails ({type(error).__name__}: {error}) for the answer {answer[:60]!r}; repair it."
            ) from error
        if verdict is not None and not isinstance(verdict, bool):
            raise JudgeDecodingError(
                f"{who} gives {type(verdict).__name__} for the answer {answer[:60]!r}; it must give True, False or "
                "None."
            )
        return verdict

    return check
