"""Options of tasks, prompts and answers, one definition for all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.panels import TASK, TRAINING
from judge_decoding.errors import JudgeDecodingError

TaskName = Annotated[
    str,
    typer.Option("--task", help="Task, such as gsm8k or 'arithmetic(family=comparison)'.", rich_help_panel=TASK),
]
Data = Annotated[
    Path | None, typer.Option(help="Local file with the task's data, instead of the Hub's.", rich_help_panel=TASK)
]
PromptsOption = Annotated[
    Path,
    typer.Option(help="Prompts: JSONL (question, optionally reference), or text, one per line.", rich_help_panel=TASK),
]
PromptField = Annotated[
    str | None, typer.Option(help="Field of the prompt; by default question or prompt.", rich_help_panel=TASK)
]
ReferenceField = Annotated[
    str | None, typer.Option(help="Field of the reference answer; by default reference.", rich_help_panel=TASK)
]
Template = Annotated[
    str | None,
    typer.Option(help=r"Prompt template with fields in braces, such as 'Q: {question}\nA:'.", rich_help_panel=TASK),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Use at most this many, the first ones.", rich_help_panel=TASK)]
_DRAWN = "Use at most this many, drawn at random with --seed."
Drawn = Annotated[int | None, typer.Option("--limit", min=1, help=_DRAWN, rich_help_panel=TASK)]
DrawnOf = Annotated[int, typer.Option("--limit", min=1, max=2000, help=_DRAWN, rich_help_panel=TASK)]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--no-chat",
        help="Apply the chat template. By default if there is one, unless the prompt is rendered already or has a "
        "--template.",
        rich_help_panel=TASK,
    ),
]
System = Annotated[str, typer.Option(help="System message, for chats.", rich_help_panel=TASK)]
_CHECKER = "What makes an answer correct: number, choice, exact, regex:PATTERN{more}."
CheckerOption = Annotated[
    str,
    typer.Option(help=_CHECKER.format(more=" or module:function"), rich_help_panel=TASK),
]
"""Compares two answers by their results: `judge_decoding.tasks.results.result_function`."""
AnyChecker = Annotated[
    str | None,
    typer.Option("--checker", help=_CHECKER.format(more=", tests, or that of a package"), rich_help_panel=TASK),
]
"""Checks an answer against a reference: `judge_decoding.tasks.checkers.checker_of`."""
Margin = Annotated[
    float, typer.Option(min=0, max=100, help="Allowed loss of accuracy, in percentage points.", rich_help_panel=TASK)
]
Grader = Annotated[
    str | None,
    typer.Option(
        help="Model that grades the answers of mt_bench, at the endpoint OPENAI_BASE_URL.", rich_help_panel=TASK
    ),
]
TrainedOn = Annotated[
    list[Path] | None,
    typer.Option(
        help="TokenCourt file that the head was trained on; its questions may not be asked. Repeatable.",
        rich_help_panel=TASK,
    ),
]
CalibrateOn = Annotated[
    str | None,
    typer.Option(
        help="Task that chooses the threshold: a name such as gsm8k, or a JSONL file with question (the whole prompt) "
        "and reference.",
        rich_help_panel=TRAINING,
    ),
]
CalibrateData = Annotated[
    Path | None,
    typer.Option(help="Local file with the data of --calibrate-on, instead of the Hub's.", rich_help_panel=TRAINING),
]
CalibrateLimit = Annotated[
    int | None,
    typer.Option(min=1, help="Use at most this many of --calibrate-on, drawn at random.", rich_help_panel=TRAINING),
]
LabelThreshold = Annotated[
    float, typer.Option(help="Tokens whose label score is above it count as correct.", rich_help_panel=TRAINING)
]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code-execution", help="Allow running code written by models.", rich_help_panel=TASK),
]
SandboxName = Annotated[
    str | None,
    typer.Option(
        "--sandbox",
        help="Where code runs: bwrap (bubblewrap, the default), docker:IMAGE or podman:IMAGE.",
        rich_help_panel=TASK,
    ),
]
NoSandbox = Annotated[
    bool,
    typer.Option(
        "--no-sandbox", help="Run code without a sandbox, with all of your permissions.", rich_help_panel=TASK
    ),
]
CODE_OPTIONS = ("--allow-code-execution", "--sandbox", "--no-sandbox")
"""Options that apply only to tasks that run code."""


def sandbox_spelling(name: str | None, *, none: bool) -> str:
    """What ``--sandbox`` and ``--no-sandbox`` ask for, as `sandbox_of` spells it.

    Raises:
        JudgeDecodingError: they contradict each other.
    """
    if none and name is not None:
        raise JudgeDecodingError("--sandbox and --no-sandbox contradict each other; leave one of them out.")
    return "none" if none else name or "bwrap"
