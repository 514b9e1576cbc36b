"""The word problems of the embedded pair, generated here, so that they need no data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from judge_decoding.bounds import check_bound
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.questions import Rows
from judge_decoding.reference import problems
from judge_decoding.tasks.base import Item, Task, TextMessage
from judge_decoding.tasks.checkers import number


class Arithmetic(Task):
    """Problems of the split ``test``, which neither the models nor the head have seen.

    Args:
        family: ``collection``, which the head was trained on, or ``comparison``, which it has never seen.
        split: ``calibration`` to choose settings, ``test`` to report results.
        count: the number of problems.
        seed: another seed draws other problems.
    """

    name = "arithmetic"
    max_new_tokens = problems.MAX_NEW_TOKENS
    stop = ()

    def __init__(self, family: str = "collection", split: str = "test", count: int = 200, seed: int = 0) -> None:
        for what, value, known in (("family", family, problems.ProblemFamily), ("split", split, problems.ProblemSplit)):
            if value not in get_args(known):
                raise JudgeDecodingError(f"arithmetic's {what} is {value}; it must be {' or '.join(get_args(known))}.")
        for name, given in (("count", count), ("seed", seed)):
            check_bound(name, given, f"arithmetic's {name}")
        self.family, self.split, self.count, self.seed = family, split, count, seed

    def rows(self, data: Path | None, on_bad: Callable[[str], None]) -> Rows:
        """Generate the problems."""
        if data is not None:
            raise JudgeDecodingError("The task arithmetic generates its own problems; leave --data out.")
        drawn = problems.draw_many(self.seed, self.split, self.count, self.family)  # type: ignore[arg-type]  # checked
        return ((str(location), problem) for location, problem in enumerate(drawn))

    def item(self, row: Any, location: str) -> Item:  # noqa: ANN401  (any JSON value)
        """Make an item of a problem, with its number as the reference."""
        return Item(location, (row.question.strip(),), str(row.answer), self.family)

    def plain(self, messages: Sequence[TextMessage]) -> str:
        """Return the prompt in the form on which the pair was trained."""
        *before, last = messages
        return "".join(f"{one['content']}\n" for one in before) + f"Q: {last['content']}\nA:"

    def check(self, item: Item, answer: str) -> bool | None:
        """Check the final number, that of the closing sentence."""
        return number(item.turns[-1], answer, item.reference)
