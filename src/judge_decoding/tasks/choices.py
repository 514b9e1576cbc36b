"""Multiple choice, answered in words.

The usual score compares the likelihood of each choice. That decodes nothing, so no verification rule, however bad,
would change the figure. Here the model reasons briefly and names a letter.
"""

from __future__ import annotations

from typing import Any

from judge_decoding.errors import RowError
from judge_decoding.tasks.base import Item, Task
from judge_decoding.tasks.results import last_choice

LETTERS = "ABCDEFGH"
"""The letters end before I, which is also a word."""

_ASK = "Reason briefly. Then end with a line that names the letter of the right choice, in this form: Answer: letter"


class MultipleChoice(Task):
    """The answer must name the right letter."""

    def check(self, item: Item, answer: str) -> bool | None:
        """Check the letter; see `last_choice`."""
        return last_choice(answer, LETTERS) == item.reference


def choice_item(key: str, question: str, choices: Any, right: int, category: str = "") -> Item:  # noqa: ANN401
    """The item of a question with 2 to 8 choices, the right one at index ``right``; raises RowError."""
    if not (isinstance(choices, list) and all(isinstance(one, str) for one in choices)):
        raise RowError("has no list of texts as its choices")
    if not 2 <= len(choices) <= len(LETTERS):
        raise RowError(f"has {len(choices)} choices; there must be 2 to {len(LETTERS)}")
    if not 0 <= right < len(choices):
        raise RowError(f"has {len(choices)} choices, and none of them is number {right + 1}, the right one")
    listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
    return Item(key, (f"{question.strip()}\n\n{listed}\n\n{_ASK}",), LETTERS[right], category)
