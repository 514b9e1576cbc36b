"""What the commands that load models share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge_decoding.cli.terminal import say
from judge_decoding.errors import JudgeDecodingError

if TYPE_CHECKING:
    from judge_decoding.cli.console import Terminal
    from judge_decoding.decoder import JudgeDecoder
    from judge_decoding.judge.head import JudgeHead

Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, ... ; auto divides the target over all GPUs; else a GPU is used if there is one."),
]

Backend = Annotated[
    str, typer.Option(help="eager, or static: compiled once for this machine, then the same tokens faster.")
]
COMPILING = 5.0
"""Seconds above which something has been compiled, and not only loaded."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_dtype(dtype: str) -> None:
    """Check the name of a dtype.

    Raises:
        JudgeDecodingError: it is none of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise JudgeDecodingError(f"dtype is {dtype}; it must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")


def compiled(decoder: JudgeDecoder, notes: Terminal) -> None:
    """Make the models ready for their back end; ``notes`` shows what is compiled and tells why something is not."""
    from rich.text import Text

    with notes.status("loading what was compiled" if decoder.backend == "static" else "") as status:
        begin = time.perf_counter()
        for reason in decoder.compile(lambda text: status.update(Text(text))):
            notes.print(f"Not compiled: {reason}.", highlight=False, soft_wrap=True)
    if (seconds := time.perf_counter() - begin) > COMPILING:
        notes.print(f"Compiled in {seconds:.0f} s; the next time it is there.", style="dim", highlight=False)


@contextmanager
def kept_if_not_calibrated(head: JudgeHead, folder: Path) -> Iterator[None]:
    """Save the head to ``folder`` if what is done here finds no threshold for it, and say so."""
    from judge_decoding.report.card_files import save_head

    try:
        yield
    except JudgeDecodingError:
        save_head(head, folder)
        say(f"The head without a calibrated threshold is in {folder}.", err=True)
        raise
