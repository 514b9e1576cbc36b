"""Helpers of the commands that load models."""

from __future__ import annotations

from typing import Annotated

import typer

from judge_decoding.errors import JudgeDecodingError

Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, ... ; auto divides the target over all GPUs; else a GPU is used if there is one."),
]

BackendOption = Annotated[
    str, typer.Option(help="eager, or static: compiled once for this machine, then the same tokens faster.")
]
DtypeOption = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
COMPILING = 5.0
"""Above this many seconds, models were compiled and not only loaded."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_dtype(dtype: str) -> None:
    """Check the name of a dtype.

    Raises:
        JudgeDecodingError: it is none of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise JudgeDecodingError(f"dtype is {dtype}; it must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")
