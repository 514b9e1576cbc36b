"""Implementation of ``judge-decoding play``, called with checked options."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from judge_decoding.cli.play import NamedPair, PlayOptions
from judge_decoding.cli.run.models import load_models
from judge_decoding.cli.shared import login
from judge_decoding.cli.terminal import say
from judge_decoding.names import REFERENCE
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.play import play


def run(options: PlayOptions, named: Sequence[NamedPair]) -> None:
    """Load the models and serve the page."""

    def loaded() -> dict[str, ModelPair]:
        if all(each.target == REFERENCE for each in named):
            torch.set_num_threads(1)  # with such small matrices, several threads only wait for each other
        return {each.name: _loaded(each, options) for each in named}

    def started(address: str) -> None:
        say(f"Play at {address}\nAnswers that you mark go to {options.cases}; stop with Ctrl-C.")

    added = play(
        loaded, cases=options.cases, annotator=options.annotator or login(), port=options.port,
        browser=options.browser, started=started,
    )  # fmt: skip
    say(f"\nStopped; {added} cases added to {options.cases}." if added else "\nStopped.")


def _loaded(named: NamedPair, options: PlayOptions) -> ModelPair:
    decoder = load_models(
        named.target, named.draft, named.judge, what=named.name, backend=options.backend, dtype=options.dtype,
        device=options.device,
    )  # fmt: skip
    return ModelPair(named.name, decoder, target=named.target, draft=named.draft, judge=named.judge or "")
