"""Load models for a command; what is loaded and compiled is shown on stderr."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.text import Text

from judge_decoding.cli.console import Terminal
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.loading.models import default_device

_COMPILING = 5.0
"""Above this many seconds, models were compiled and not only loaded."""


def load_models(
    target: str | Path,
    draft: str | None = None,
    judge: str | None = None,
    *,
    device: str | None,
    what: str = "the models",
    **more: Any,  # noqa: ANN401  (of `JudgeDecoder.from_pretrained`)
) -> JudgeDecoder:
    """Load a decoder, and make it ready for its back end; see `JudgeDecoder.from_pretrained`."""
    notes = Terminal(err=True)
    with notes.status(f"loading {what}"):
        decoder = JudgeDecoder.from_pretrained(target, draft, judge, device=device or default_device(), **more)
    with notes.status("loading what was compiled" if decoder.backend == "static" else "") as status:
        begin = time.perf_counter()
        for reason in decoder.compile(lambda text: status.update(Text(text))):
            notes.print(f"Not compiled: {reason}.", highlight=False, soft_wrap=True)
    if (seconds := time.perf_counter() - begin) > _COMPILING:
        notes.print(f"Compiled in {seconds:.0f} s; cached for the next run.", style="dim", highlight=False)
    return decoder
