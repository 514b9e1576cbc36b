"""A task: questions for a model, and how its answers are checked."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from judge_decoding.errors import JudgeDecodingError, RowError
from judge_decoding.io.questions import Rows, dataset_rows, file_rows
from judge_decoding.io.sandbox import Sandbox
from judge_decoding.spelling import spell
from judge_decoding.visible import one_line

TextMessage = Mapping[str, str]
"""``{"role": ..., "content": ...}``."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question or conversation of a task.

    Attributes:
        key: its name in the task, such as its number in the data set.
        turns: the user's messages; each turn is answered before the next is sent.
        reference: a right answer, or the unit tests for it; empty if there is none.
        category: the kind of question, if the task has several.

    Raises:
        RowError: the key or the question is missing, or a value is not text.
    """

    key: str
    turns: tuple[str, ...]
    reference: str = ""
    category: str = ""

    def __post_init__(self) -> None:
        for text in (self.key, *self.turns, self.reference, self.category):
            try:
                text.encode()
            except UnicodeEncodeError as error:  # valid JSON, but no tokenizer accepts it
                raise RowError("has half a surrogate pair, which is not valid text") from error
        if not (self.key and self.turns and all(turn.strip() for turn in self.turns)):
            raise RowError("has no key, or nothing to ask")


@dataclass(frozen=True, slots=True)
class HubDataset:
    """The location of a task's data on the Hub."""

    dataset: str
    config: str | None = None
    split: str = "test"

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.dataset, self.config, self.split)))


class Task(ABC):
    """Questions, the form in which they are put to a model, and the check of the answers.

    A subclass is a small file: the location of the data, the conversion of a row to an `Item`, and `check`. The
    parameters of its constructor are its settings, spelled as in ``mmlu(subject=anatomy)``.
    """

    name: ClassVar[str]
    source: ClassVar[HubDataset | None] = None
    """Data on the Hub; None if there is none."""
    scoring: Literal["check", "grade", "none"] = "check"
    """Answers are right or wrong, are graded by a model, or count for speed only."""
    runs_code: bool = False
    """Whether checking runs code that the model wrote."""
    sandbox: Sandbox | None = None
    """Where this code runs; None is bubblewrap."""
    max_new_tokens: ClassVar[int] = 512
    """Token budget of an answer."""
    stop: ClassVar[tuple[str, ...]] = ("\nQuestion:",)
    """Strings that end an answer if there is no chat template; they are not part of the answer."""

    @abstractmethod
    def item(self, row: Any, location: str) -> Item | None:  # noqa: ANN401  (any JSON value)
        """The item of a row of the data; None if the row belongs to another task or setting.

        Args:
            row: a row of the data set.
            location: its location, such as "row 3", used as the key of a row without its own.

        Raises:
            RowError: the row is not a valid row of this task.
        """

    def check(self, item: Item, answer: str) -> bool | None:
        """Whether an answer to the last turn is right; None if that cannot be decided."""
        return None

    def plain(self, messages: Sequence[TextMessage]) -> str:
        """The prompt if there is no chat template."""
        heads = {"user": "Question: ", "assistant": "Answer: ", "system": ""}
        return "".join(f"{heads[one['role']]}{one['content']}\n" for one in messages) + "Answer:"

    def rows(self, data: Path | None, on_bad: Callable[[str], None]) -> Rows:
        """The rows of the local file ``data``, or of the Hub if it is None.

        Raises:
            JudgeDecodingError: the rows cannot be loaded.
        """
        if data is not None:
            return file_rows(data, on_bad)
        if self.source is None:
            raise JudgeDecodingError(f"The task {self.name} has no data of its own; give a file with --data.")
        return dataset_rows(self.source.dataset, self.source.config, self.source.split)

    def __str__(self) -> str:
        return spell(self, self.name)


def read_items(
    task: Task,
    data: Path | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    on_bad: Callable[[str], None] = lambda _: None,
) -> list[Item]:
    """Read the items of a task, each key once, in the order of the data.

    Args:
        task: the task.
        data: a local file instead of the Hub's data.
        limit: the most items to return, drawn at random, because the first ones are often all of one kind.
        seed: another seed draws other items.
        on_bad: called with a sentence about each invalid row, which names the row.

    Raises:
        JudgeDecodingError: the data cannot be loaded, or contains no item.
    """
    source = str(data or task.source or task)
    items: dict[str, Item] = {}
    with guarded(task, "its data"):
        rows = list(task.rows(data, on_bad))
    for location, row in rows:
        with guarded(task, location):
            try:
                item = task.item(row, location)
            except RowError as error:
                on_bad(f"{source}, {location} {error}.")
                continue
            if not isinstance(item, Item | None):
                raise TypeError(f"item gives {type(item).__name__}, not Item or None")
        if item is None:
            continue
        if item.key in items:
            on_bad(f"{source}, {location} has the key {item.key} of another row.")
        items.setdefault(item.key, item)
    if not items:
        raise JudgeDecodingError(f"{source} has no questions for the task {task}; check the file, or its settings.")
    found = list(items.values())
    if limit is not None and limit < len(found):
        found = [found[i] for i in sorted(random.Random(seed).sample(range(len(found)), limit))]
    return found


@contextmanager
def guarded(task: Task, location: str) -> Iterator[None]:
    """Wrap calls of a task's code, which may belong to another package."""
    try:
        yield
    except JudgeDecodingError:
        raise
    except Exception as error:
        raise JudgeDecodingError(
            f"The task {task.name} fails at {one_line(location)} ({type(error).__name__}: {one_line(str(error))}); "
            "repair the task, or the data."
        ) from error


def text_of(row: Any, field: str) -> str:  # noqa: ANN401  (any JSON value)
    """Return the text in a field of a row; raises RowError if there is none."""
    value = row.get(field) if isinstance(row, Mapping) else None
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"has no text in a field {field}")
    return value
