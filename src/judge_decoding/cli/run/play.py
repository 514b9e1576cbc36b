"""Implementation of ``judge-decoding play``, called with checked options."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.play import Named
from judge_decoding.cli.run.models import compiled
from judge_decoding.cli.terminal import say
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.loading.models import usual_device
from judge_decoding.names import REFERENCE
from judge_decoding.playground.pairs import Pair
from judge_decoding.playground.play import play


def run(
    named: Sequence[Named], cases: Path, annotator: str, dtype: str, device: str | None, backend: str, port: int,
    *, browser: bool,
) -> None:  # fmt: skip
    """Load the models and serve the page."""
    if all(each.target == REFERENCE for each in named):
        torch.set_num_threads(1)  # with such small matrices, several threads only wait for each other
    notes, pairs = Terminal(err=True), dict[str, Pair]()
    for each in named:
        with notes.status(f"loading {each.name}" if len(named) > 1 else "loading the models"):
            decoder = JudgeDecoder.from_pretrained(
                each.target, each.draft, each.judge,
                backend=cast(Any, backend), dtype=dtype, device=device or usual_device(),
            )  # fmt: skip
        compiled(decoder, notes)
        pairs[each.name] = Pair(each.name, decoder, target=each.target, draft=each.draft, judge=each.judge or "")

    def started(address: str) -> None:
        say(f"Play at {address}\nAnswers that you mark go to {cases}; stop with Ctrl-C.")

    added = play(pairs, cases=cases, annotator=annotator, port=port, browser=browser, started=started)
    gc.freeze()  # the interpreter would look through millions of objects, which takes a second or more
    say(f"\nStopped; {added} cases added to {cases}." if added else "\nStopped.")
