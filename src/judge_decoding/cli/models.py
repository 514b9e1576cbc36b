"""What the commands that load models share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from judge_decoding.errors import JudgeDecodingError

if TYPE_CHECKING:
    from judge_decoding.judge.head import JudgeHead

Name = TypeVar("Name", str, str | None)

Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, ... ; auto divides the target over all GPUs; else a GPU is used if there is one."),
]

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_dtype(dtype: str) -> None:
    """Check the name of a dtype.

    Raises:
        JudgeDecodingError: it is none of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise JudgeDecodingError(f"dtype is {dtype}; it must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")


def embedded(name: Name, role: str) -> Name:
    """A model's name or folder; 'reference' is the embedded one of this role: target, draft or judge."""
    from judge_decoding.reference import pair

    folders = {"target": pair.TARGET, "draft": pair.DRAFT, "judge": pair.JUDGE}
    return str(folders[role]) if name == "reference" else name


@contextmanager
def kept_if_not_calibrated(head: JudgeHead, folder: Path) -> Iterator[None]:
    """Save the head to ``folder`` if what is done here finds no threshold for it, and say so."""
    try:
        yield
    except JudgeDecodingError:
        head.save_pretrained(folder)
        typer.echo(f"The head without a calibrated threshold is in {folder}.", err=True)
        raise
