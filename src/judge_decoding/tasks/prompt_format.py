"""How the questions of a task are put to a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from judge_decoding.tasks.base import Item, Task, guarded


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How the questions of a task are put to a model.

    Attributes:
        task: the task of the questions.
        chat: use the model's chat template; otherwise the task's own plain form.
        system: the system message.
        max_new_tokens: token budget of an answer; None for the task's own.
        details: keep probabilities and alternatives of every draft token.
    """

    task: Task
    chat: bool = False
    system: str = ""
    max_new_tokens: int | None = None
    details: bool = False

    @property
    def budget(self) -> int:
        """The token budget of an answer."""
        return self.max_new_tokens or self.task.max_new_tokens

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end an answer."""
        return () if self.chat else self.task.stop

    def prompt(self, item: Item, answers: Sequence[str] = ()) -> str | list[dict[str, str]]:
        """The prompt of an item's next turn, after ``answers`` to the earlier turns."""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for turn, answer in zip(item.turns, [*answers, None], strict=False):
            messages.append({"role": "user", "content": turn})
            if answer is not None:
                messages.append({"role": "assistant", "content": answer})
        if self.chat:
            return messages
        with guarded(self.task, item.key):
            return self.task.plain(messages)

    def bare(self, answer: str) -> str:
        """An answer without the string that ended it, and without the rest of the token that completed the string."""
        ends = [location for stop in self.stop if (location := answer.find(stop)) >= 0]
        return answer[: min(ends)] if ends else answer
