"""Implementation of ``judge-decoding court label equivalence``, called with checked options."""

from __future__ import annotations

from collections.abc import Callable

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.court_swaps import label_all
from judge_decoding.cli.run.pair import draft_with_tokenizer_of, load_decoder
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import Case
from judge_decoding.io.endpoint import PREFIX, Endpoint
from judge_decoding.labelling.labels.equivalence import label_by_equivalence
from judge_decoding.labelling.labels.progress import LabellingProgress
from judge_decoding.labelling.labels.rollouts import endpoint_rollouts
from judge_decoding.tasks.results import ResultFunction


def run(
    target: str, draft: str | None, endpoint: str | None, max_new_tokens: int, batch_size: int, dtype: str,
    device: str | None, texts: list[str], function: ResultFunction, progress: LabellingProgress, *, yes: bool,
) -> None:  # fmt: skip
    """Label the tokens, and write them."""
    rollouts = None
    if endpoint is None:
        with Terminal(err=True).status("loading the models"):
            decoder = load_decoder(target, draft, dtype, device)
    else:
        rollouts = endpoint_rollouts(Endpoint(endpoint.removeprefix(PREFIX), concurrency=batch_size))
        decoder = draft_with_tokenizer_of(target, draft, dtype, device)

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        label_by_equivalence(
            decoder, todo, function, max_new_tokens=max_new_tokens, batch_size=batch_size, done=done, rollouts=rollouts
        )

    unit = "target forwards" if endpoint is None else "tokens of the endpoint"
    say(label_all(texts, label, progress, yes=yes, unit=unit)[1])
