"""``judge-decoding info``: what a head is and which target it fits."""

from __future__ import annotations

from typing import Annotated

import typer


def info(
    head: Annotated[str, typer.Argument(help="Judge head: folder or Hub repository; 'reference' is the embedded one.")],
    target: Annotated[str | None, typer.Option(help="Check that the head fits this target.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell what a judge head is, how well it was calibrated, and whether it fits a target."""
    from judge_decoding.cli.run.info import run  # noqa: PLC0415  (loads torch)

    run(head, target, json=json)
