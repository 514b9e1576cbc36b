"""``judge-decoding push``: upload a head and its card to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.models import Head
from judge_decoding.cli.outputs import Json, Yes
from judge_decoding.cli.panels import OUTPUT
from judge_decoding.errors import JudgeDecodingError


def push(
    judge: Head,
    repo: Annotated[str, typer.Argument(help="Repository on the Hub, such as me/my-judge; created if needed.")],
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository.", rich_help_panel=OUTPUT)
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to upload to; by default the main one.", rich_help_panel=OUTPUT)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be uploaded and stop.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Upload a head's folder to the Hugging Face Hub: weights, configuration, card, pictures and results."""
    head = Path(judge)
    if not head.is_dir():
        raise JudgeDecodingError(f"{head} is not a folder; give the folder of a judge head.")

    from judge_decoding.cli.run.push import run  # noqa: PLC0415  (loads torch)

    run(head, repo, revision, private=private, dry_run=dry_run, yes=yes, json=json)
