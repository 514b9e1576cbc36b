"""Prepare models for their back end."""

from __future__ import annotations

import time

from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.models import COMPILING
from judge_decoding.decoder import JudgeDecoder


def compiled(decoder: JudgeDecoder, notes: Terminal) -> None:
    """Make the models ready for their back end; ``notes`` shows what is compiled and tells why something is not."""
    with notes.status("loading what was compiled" if decoder.backend == "static" else "") as status:
        begin = time.perf_counter()
        for reason in decoder.compile(lambda text: status.update(Text(text))):
            notes.print(f"Not compiled: {reason}.", highlight=False, soft_wrap=True)
    if (seconds := time.perf_counter() - begin) > COMPILING:
        notes.print(f"Compiled in {seconds:.0f} s; cached for the next run.", style="dim", highlight=False)
