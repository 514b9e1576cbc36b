"""Whole prompts with right answers: the task that `fit_head` and ``--calibrate-on FILE`` make from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from judge_decoding.errors import RowError
from judge_decoding.io.questions import Fields
from judge_decoding.tasks.base import Item, Task, TextMessage
from judge_decoding.tasks.results import ResultFunction, result_function, result_name, same_result


class Prompts(Task):
    """Prompts that go to the model unchanged; an answer is right if its result is that of the reference.

    Args:
        result: "number", "choice", "text", "regex:PATTERN", "module:function", or a function from an answer to its
            result (None if it has none).
    """

    name = "prompts"
    max_new_tokens = 256
    stop = ()

    def __init__(self, result: str | ResultFunction = "number") -> None:
        self.result = result_name(result)
        self._function = result_function(result) if isinstance(result, str) else result

    def item(self, row: Any, location: str) -> Item:  # noqa: ANN401  (any JSON value)
        """Read a row with ``question``, the whole prompt, and ``reference``; a TokenCourt case is valid too."""
        question, reference = Fields().read(row)
        if not reference:
            raise RowError("has no reference; give a right answer, or remove it")
        return Item(location, (question,), reference)

    def plain(self, messages: Sequence[TextMessage]) -> str:
        """The prompt, unchanged."""
        return messages[-1]["content"]

    def check(self, item: Item, answer: str) -> bool | None:
        """Compare the results; None if the reference has none."""
        wanted = self._function(item.reference)
        return None if wanted is None else same_result(self._function, self._function(answer), wanted)
