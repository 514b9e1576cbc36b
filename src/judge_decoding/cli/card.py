"""``judge-decoding card`` and ``push``: a head's model card with measured results, and its folder on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.options import OTHER, OUTPUT, option
from judge_decoding.errors import JudgeDecodingError


def card(
    judge: options.Head,
    results: Annotated[
        list[Path] | None,
        option(OUTPUT, "Results of `evaluate` or `sweep`; by default those in the folder. Repeatable."),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Rewrite a head's model card with measured results; the head itself does not change."""
    head = _folder(judge)
    from judge_decoding.cli.run.card import write  # noqa: PLC0415  (loads torch)

    write(head, results, overwrite=overwrite)


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
    head = _folder(judge)
    from judge_decoding.cli.run.card import upload  # noqa: PLC0415  (loads torch)

    upload(head, repo, revision, private=private, dry_run=dry_run, yes=yes, json=json)


def _folder(judge: str) -> Path:
    head = Path(judge)
    if not head.is_dir():
        raise JudgeDecodingError(f"{head} is not a folder; give the folder of a judge head.")
    return head
