"""Options of the commands that open a local web page, one definition for all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from judge_decoding.cli.panels import OTHER, TRAINING

Annotator = Annotated[
    str | None, typer.Option(help="Name of the annotator; by default your login name.", rich_help_panel=TRAINING)
]
Port = Annotated[int, typer.Option(help="Local port; 0 is any free one.", rich_help_panel=OTHER)]
Browser = Annotated[bool, typer.Option(help="Open the page in a browser.", rich_help_panel=OTHER)]
