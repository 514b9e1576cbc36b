"""``judge-decoding push``: upload a head and its card to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.options import option
from judge_decoding.cli.panels import OTHER, OUTPUT
from judge_decoding.errors import JudgeDecodingError


def push(
    judge: options.Head,
    repo: Annotated[str, typer.Argument(help="Repository on the Hub, such as me/my-judge; created if needed.")],
    private: Annotated[bool, option(OUTPUT, "Create a private repository.", "--private")] = False,
    revision: Annotated[str | None, option(OUTPUT, "Branch to upload to; by default the main one.")] = None,
    dry_run: Annotated[bool, option(OTHER, "List what would be uploaded and stop.", "--dry-run")] = False,
    yes: options.Yes = False,
    json: options.Json = False,
) -> None:
    """Upload a head's folder to the Hugging Face Hub: weights, configuration, card, pictures and results."""
    head = Path(judge)
    if not head.is_dir():
        raise JudgeDecodingError(f"{head} is not a folder; give the folder of a judge head.")

    from judge_decoding.cli.run.push import run  # noqa: PLC0415  (loads torch)

    run(head, repo, revision, private=private, dry_run=dry_run, yes=yes, json=json)
