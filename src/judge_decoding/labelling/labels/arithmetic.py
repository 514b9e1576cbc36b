"""Labels by arithmetic: an answer goes wrong at its first false equation.

This needs no model and no person, and finds calculation slips only: an answer that calculates the wrong thing correctly
has no false equation. So an answer without one counts as right only if a checker found it right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from judge_decoding.data.cases import Case
from judge_decoding.labelling.labels.equations import equations

SOURCE = "arithmetic"
LONGEST = 2**20
"""The most characters of an answer that is read: a longer one would take many seconds, and no model writes it."""


@dataclass(slots=True)
class ArithmeticLabels:
    """The result of labelling by arithmetic.

    Attributes:
        located: answers with a false equation; the result of the first one is the error.
        right: answers that a checker found right and that have no false equation.
        accused: answers that a checker found right although they have a false equation, located as above; a person
            should check them.
        silent: answers without a false equation that nothing shows to be right, and answers that are too long.
    """

    located: list[Case] = field(default_factory=list)
    right: list[Case] = field(default_factory=list)
    accused: list[Case] = field(default_factory=list)
    silent: list[Case] = field(default_factory=list)

    @property
    def labelled(self) -> list[Case]:
        """The cases from which a judge can learn."""
        return self.located + self.right


def false_equation(answer: str, *, ended: bool = True) -> tuple[int, int] | None:
    """The character span of the result of the first false equation of ``answer``; None if there is none."""
    return next((found.span for found in equations(answer, ended=ended) if not found.true), None)


def label_by_arithmetic(cases: Iterable[Case]) -> ArithmeticLabels:
    """Sort answers by their arithmetic; spans that the cases already have are replaced."""
    result = ArithmeticLabels()
    for case in cases:
        if len(case.answer) > LONGEST:
            result.silent.append(case)
            continue
        span = false_equation(case.answer, ended=case.ended)
        labelled = case.model_copy(
            update={"errors": (span,) if span else (), "source": SOURCE, "judged": None, "annotator": ""}
        )
        if span:
            (result.accused if case.correct else result.located).append(labelled)
        elif case.correct:
            result.right.append(labelled)
        else:
            result.silent.append(case)
    return result
