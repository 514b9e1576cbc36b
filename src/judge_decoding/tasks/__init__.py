"""Tasks by name: ``gsm8k``, ``mmlu(subject=anatomy)``, and those of installed packages.

An installed package adds a task under the entry-point group ``judge_decoding.tasks``: a name, and a subclass of `Task`
with that ``name``.
"""

from __future__ import annotations

from judge_decoding.errors import JudgeDecodingError, RowError
from judge_decoding.io.sandbox import sandbox_of
from judge_decoding.plugins import Registry
from judge_decoding.spelling import construct, read
from judge_decoding.tasks.arc import ARC
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.base import HubDataset, Item, Task, read_items, text_of
from judge_decoding.tasks.e2e import E2E
from judge_decoding.tasks.gsm8k import GSM8K
from judge_decoding.tasks.humaneval import HumanEval
from judge_decoding.tasks.jsonl import JSONL
from judge_decoding.tasks.mmlu import MMLU
from judge_decoding.tasks.mt_bench import MTBench
from judge_decoding.tasks.spec_bench import SpecBench

__all__ = ["HubDataset", "Item", "RowError", "Task", "available_tasks", "parse_task", "read_items", "text_of"]

_BUILT_IN: dict[str, type[Task]] = {
    task.name: task for task in (Arithmetic, E2E, GSM8K, HumanEval, MMLU, ARC, MTBench, SpecBench, JSONL)
}
_TASKS = Registry("task", Task, _BUILT_IN)


def available_tasks() -> dict[str, type[Task]]:
    """All tasks by name: this package's, then those of installed packages.

    Raises:
        JudgeDecodingError: an installed package's task cannot be imported or is not a `Task`.
    """
    return _TASKS.all()


def parse_task(spelling: str, *, allow_code: bool = False, sandbox: str = "bwrap") -> Task:
    """Return the task for a spelling such as ``arithmetic(family=comparison)``.

    Args:
        spelling: a name, with its settings in parentheses; settings with a default can be left out.
        allow_code: whether code that the models write may be run.
        sandbox: where such code is run, in the spelling of `sandbox_of`.

    Raises:
        JudgeDecodingError: the spelling cannot be read, there is no such task, or its code may not or cannot be run.
    """
    (name, given), *more = read(spelling, "task", "arithmetic(family=comparison)")
    if more:
        raise JudgeDecodingError(f"{spelling[:80]!r} names several tasks; give one at a time.")
    task = construct(_TASKS.find(name), name, given, "task")
    if task.runs_code and not allow_code:
        raise JudgeDecodingError(
            f"The task {name} runs the code that the models write; allow it with --allow-code-execution."
        )
    if task.runs_code:
        task.sandbox = sandbox_of(sandbox)
    return task
