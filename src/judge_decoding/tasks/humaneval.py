"""HumanEval: write a function from its docstring (Chen et al., arXiv 2107.03374)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from judge_decoding.tasks.base import HubDataset, Item, Task, TextMessage, text_of
from judge_decoding.tasks.checkers import unit_tests

_BEFORE = "Complete this Python function. Give all of it in one code block.\n\n```python\n"
_AFTER = "\n```"


class HumanEval(Task):
    """The program must pass the unit tests.

    With a chat template, the user asks for the function; without one, the answer continues the program.
    """

    name = "humaneval"
    source = HubDataset("openai/openai_humaneval")
    runs_code = True
    # The paper's strings, which mark the end of the function, and the end of a chat model's code block.
    stop = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n```")

    def item(self, row: Any, location: str) -> Item:  # noqa: ANN401  (any JSON value)
        """Read a row with ``task_id``, ``prompt``, ``test`` and ``entry_point``."""
        key, program, test, function = (text_of(row, f) for f in ("task_id", "prompt", "test", "entry_point"))
        return Item(key, (f"{_BEFORE}{program}{_AFTER}",), f"{test}\ncheck({function})")

    def plain(self, messages: Sequence[TextMessage]) -> str:
        """The beginning of the program with nothing after it: even a space would make it another program."""
        *before, last = messages
        return "".join(f"{one['content']}\n" for one in before) + _program(last["content"])

    def check(self, item: Item, answer: str) -> bool | None:
        """Run the program with the tests."""
        program = _program(item.turns[-1])
        return unit_tests(program, _indented(program, answer), item.reference, sandbox=self.sandbox)


def _program(turn: str) -> str:
    return turn.removeprefix(_BEFORE).removesuffix(_AFTER)


def _indented(program: str, answer: str) -> str:
    """An answer that continues ``program``, with the leading space restored that some tokenizers drop.

    SentencePiece decoders treat the first space of a text as their own marker. The first line of the answer then has
    one space less than the model wrote, which is not valid Python.
    """
    last = program.rstrip().rpartition("\n")[2]
    return f" {answer}" if _indent(answer) == _indent(last) - 1 else answer


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
