"""``judge-decoding rules``: the verification rules, which decide which draft tokens are kept."""

from __future__ import annotations

from typing import Annotated

import typer


def rules(json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False) -> None:
    """List the verification rules, those of installed packages too, as ``generate --rule`` takes them."""
    from judge_decoding.cli.run.rules import run  # noqa: PLC0415  (loads torch)

    run(json=json)
