"""The options of a task, for ``evaluate`` and ``sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.errors import JudgeDecodingError

TaskName = Annotated[str, typer.Option(help="Such as gsm8k or 'arithmetic(family=comparison)'; see the docs.")]
Target = Annotated[str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded pair.")]
JudgeOption = Annotated[str | None, typer.Option(help="Judge head: folder or Hub repository.")]
Data = Annotated[Path | None, typer.Option(help="A local file instead of the Hub's data.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many items at most, drawn at random.")]
Chat = Annotated[
    bool | None, typer.Option("--chat/--no-chat", help="Through the chat template; by default if there is one.")
]
System = Annotated[str, typer.Option(help="System message.")]
BudgetOption = Annotated[int | None, typer.Option(min=1, help="Token budget; else the task's own.")]
Seed = Annotated[int, typer.Option(help="Draws the items of --limit, and sampled answers.")]
Margin = Annotated[float, typer.Option(min=0, max=100, help="Points that non-inferiority allows.")]
Grader = Annotated[
    str | None,
    typer.Option(help="Who grades the answers of mt_bench: a model of the endpoint at OPENAI_BASE_URL."),
]
TrainedOn = Annotated[
    list[Path] | None, typer.Option(help="TokenCourt file the head was trained on: no question may be in it.")
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code-execution", help="Code that the models write may be run; see the docs.")
]
SandboxName = Annotated[
    str | None,
    typer.Option("--sandbox", help="Where code runs: bwrap (bubblewrap, the default), docker:IMAGE or podman:IMAGE."),
]
NoSandbox = Annotated[
    bool, typer.Option("--no-sandbox", help="Code runs without a boundary: it may do all that you may.")
]
CODE_OPTIONS = ("--allow-code-execution", "--sandbox", "--no-sandbox")
"""Options that apply only to tasks that run code."""
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def sandbox_spelling(name: str | None, *, none: bool) -> str:
    """What ``--sandbox`` and ``--no-sandbox`` ask for, as `sandbox_of` spells it.

    Raises:
        JudgeDecodingError: they contradict each other.
    """
    if none and name is not None:
        raise JudgeDecodingError("--sandbox and --no-sandbox contradict each other; leave one of them out.")
    return "none" if none else name or "bwrap"
