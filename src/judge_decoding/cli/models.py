"""Options that name models and the machine they run on, one definition for all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from judge_decoding.cli.panels import MODELS, RUN
from judge_decoding.errors import JudgeDecodingError

_TARGET = "Target model: Hub name or folder; 'reference' is the embedded pair."
_DRAFT_MODEL = "Draft model: Hub name or folder, with the target's vocabulary."
_FIRST_LAYERS = "Number of the target's first layers that form the draft model."

Target = Annotated[str, typer.Option(help=_TARGET, rich_help_panel=MODELS)]
DraftOption = Annotated[
    str | None,
    typer.Option(
        help="Draft model: Hub name or folder, or 'prompt-lookup'. Without one the target decodes alone.",
        rich_help_panel=MODELS,
    ),
]
DraftModelOption = Annotated[str | None, typer.Option(help=_DRAFT_MODEL, rich_help_panel=MODELS)]
Translate = Annotated[
    bool,
    typer.Option(
        "--translate",
        help="Let a draft model with another tokenizer propose text instead of token ids.",
        rich_help_panel=MODELS,
    ),
]
FirstLayers = Annotated[int | None, typer.Option("--draft-layers", min=1, help=_FIRST_LAYERS, rich_help_panel=MODELS)]
NumLayers = Annotated[int, typer.Option("--draft-layers", min=1, help=_FIRST_LAYERS, rich_help_panel=MODELS)]
_JUDGE = "Judge head: folder or Hub repository; 'reference' is the embedded one."
JudgeOption = Annotated[str | None, typer.Option(help=_JUDGE, rich_help_panel=MODELS)]
Head = Annotated[str, typer.Option("--judge", help=_JUDGE, rich_help_panel=MODELS)]
Tokenizer = Annotated[str | None, typer.Option(help="Tokenizer: Hub name or folder.", rich_help_panel=MODELS)]

Device = Annotated[
    str | None,
    typer.Option(
        help="Device, such as cpu or cuda; 'auto' divides the target over all GPUs. By default a GPU if there is one.",
        rich_help_panel=RUN,
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="eager, or static: compiled once for this machine, then faster with the same tokens.", rich_help_panel=RUN
    ),
]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=RUN)]
BatchSize = Annotated[int, typer.Option(min=1, help="Answers decoded together in one batch.", rich_help_panel=RUN)]
BatchSizes = Annotated[
    list[int] | None,
    typer.Option("--batch-size", min=1, help="Answers decoded together in one batch.", rich_help_panel=RUN),
]
Loads = Annotated[
    list[int] | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Also find the fastest draft length where so many answers are decoded together. Repeatable.",
        rich_help_panel=RUN,
    ),
]
Concurrency = Annotated[int, typer.Option(min=1, help="Concurrent requests to the endpoint.", rich_help_panel=RUN)]
Retries = Annotated[int, typer.Option(min=0, help="Retries of a failed request.", rich_help_panel=RUN)]

COMPILING = 5.0
"""Above this many seconds, models were compiled and not only loaded."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_dtype(dtype: str) -> None:
    """Check the name of a dtype.

    Raises:
        JudgeDecodingError: it is not one of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise JudgeDecodingError(f"dtype is {dtype}; it must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")
