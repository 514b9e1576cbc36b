"""Implementation of ``judge-decoding play``, called with checked options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.play import NamedPair
from judge_decoding.cli.run.models import compiled
from judge_decoding.cli.terminal import say
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.loading.models import default_device
from judge_decoding.names import REFERENCE
from judge_decoding.playground.marks import CaseFile
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.play import serve_pairs
from judge_decoding.web.serving import listen


def run(
    named: Sequence[NamedPair], cases: Path, annotator: str, dtype: str, device: str | None, backend: str, port: int,
    *, browser: bool,
) -> None:  # fmt: skip
    """Load the models and serve the page."""
    file = CaseFile(cases)
    # Fail on a file of other things and on a port in use before the models are loaded.
    with listen(port) as listener:
        if all(each.target == REFERENCE for each in named):
            torch.set_num_threads(1)  # with such small matrices, several threads only wait for each other
        pairs = {each.name: _loaded(each, dtype, device, backend) for each in named}

        def started(address: str) -> None:
            say(f"Play at {address}\nAnswers that you mark go to {cases}; stop with Ctrl-C.")

        serve_pairs(pairs, file, annotator, listener, browser=browser, started=started)
    say(f"\nStopped; {file.count} cases added to {cases}." if file.count else "\nStopped.")


def _loaded(named: NamedPair, dtype: str, device: str | None, backend: str) -> ModelPair:
    notes = Terminal(err=True)
    with notes.status(f"loading {named.name}"):
        decoder = JudgeDecoder.from_pretrained(
            named.target, named.draft, named.judge,
            backend=cast(Any, backend), dtype=dtype, device=device or default_device(),
        )  # fmt: skip
    compiled(decoder, notes)
    return ModelPair(named.name, decoder, target=named.target, draft=named.draft, judge=named.judge or "")
