"""The options of a task, for ``evaluate`` and ``sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TaskName = Annotated[str, typer.Option(help="Such as gsm8k or 'arithmetic(family=comparison)'; see the docs.")]
Target = Annotated[str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded pair.")]
Judge = Annotated[str | None, typer.Option(help="Judge head: folder or Hub repository.")]
Data = Annotated[Path | None, typer.Option(help="A local file instead of the Hub's data.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many items at most, drawn at random.")]
Chat = Annotated[
    bool | None, typer.Option("--chat/--no-chat", help="Through the chat template; by default if there is one.")
]
System = Annotated[str, typer.Option(help="System message.")]
Budget = Annotated[int | None, typer.Option(min=1, help="Token budget; else the task's own.")]
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
    bool, typer.Option("--allow-code-execution", help="What the models write may be run; see the docs.")
]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
