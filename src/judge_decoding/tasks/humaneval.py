"""HumanEval: functions to be written from their docstring (Chen et al., arXiv 2107.03374)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from judge_decoding.tasks.base import Item, Message, Source, Task, text_of
from judge_decoding.tasks.checkers import unit_tests

_BEFORE = "Complete this Python function. Give all of it in one code block.\n\n```python\n"
_AFTER = "\n```"


class HumanEval(Task):
    """The program must pass the unit tests.

    With a chat template a person asks for the function; without one the answer goes on with the program.
    """

    name = "humaneval"
    source = Source("openai/openai_humaneval")
    runs_code = True
    # Those of the paper, where the function is over; and the end of a code block that a chat model believes to be in.
    stop = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```")

    def item(self, row: Any, place: str) -> Item:  # noqa: ANN401  (any JSON value)
        """A row has ``task_id``, ``prompt``, ``test`` and ``entry_point``."""
        key, program, test, function = (text_of(row, f) for f in ("task_id", "prompt", "test", "entry_point"))
        return Item(key, (f"{_BEFORE}{program}{_AFTER}",), f"{test}\ncheck({function})")

    def plain(self, messages: Sequence[Message]) -> str:
        """The beginning of the program, nothing behind it: even a space would be another program."""
        *before, last = messages
        return "".join(f"{one['content']}\n" for one in before) + _program(last["content"])

    def check(self, item: Item, answer: str) -> bool | None:
        """By running it with the tests."""
        program = _program(item.turns[-1])
        return unit_tests(program, _indented(program, answer), item.reference, sandbox=self.sandbox)


def _program(turn: str) -> str:
    return turn.removeprefix(_BEFORE).removesuffix(_AFTER)


def _indented(program: str, answer: str) -> str:
    """An answer that goes on with ``program``, with the space before it that some tokenizers drop.

    SentencePiece's decoders take the first space of a text for a mark of theirs, so that the first line of the answer
    stands one space left of where the model put it, which is no Python.
    """
    last = program.rstrip().rpartition("\n")[2]
    return f" {answer}" if _indent(answer) == _indent(last) - 1 else answer


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
