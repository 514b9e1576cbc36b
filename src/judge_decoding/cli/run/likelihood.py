"""Implementation of ``judge-decoding court label likelihood``, called with checked options."""

from __future__ import annotations

from collections.abc import Callable

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.court_swaps import label_all
from judge_decoding.cli.run.pair import load_decoder
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import split_ids
from judge_decoding.labelling.labels.likelihood import LikelihoodConfig, label_by_likelihood
from judge_decoding.labelling.labels.progress import LabellingProgress
from judge_decoding.rules.exact import Exact


def run(
    target: str, threshold: float, draft: str | None, suffix: int, max_new_tokens: int, batch_size: int, dtype: str,
    device: str | None, progress: LabellingProgress, cases: list[Case], *, given: bool, yes: bool,
) -> None:  # fmt: skip
    """Label the tokens, and write them."""
    config = LikelihoodConfig(threshold, suffix)
    with Terminal(err=True).status("loading the models"):
        decoder = load_decoder(target, draft, dtype, device)
    ends = {*decoder.end_ids, decoder.tokenizer.eos_token_id}
    texts: dict[str, list[Case]] = {}
    for case in cases:
        texts.setdefault(case.question, []).append(case)

    def words(case: Case) -> list[int]:
        """An answer without its end token, which is no text of its writer's."""
        ids = split_ids(case, decoder.tokenizer)[1]
        return ids[:-1] if case.ended and ids[-1:] and ids[-1] in ends else ids

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        for first in range(0, len(todo), batch_size):
            part = todo[first : first + batch_size]
            if given:
                answers = [[words(case) for case in texts[question]] for question in part]
                costs = [0] * len(part)
            else:
                made = decoder.generate_batch(part, max_new_tokens, batch_size=batch_size, rule=Exact(), temperature=0)
                answers, costs = [[list(one.token_ids)] for one in made], [1 + one.stats.rounds for one in made]
            for question, own, cost in zip(part, answers, costs, strict=True):
                found: list[Case] = []
                spent = cost
                for answer in own:
                    labelled, forwards = label_by_likelihood(decoder, question, answer, config)
                    found += labelled
                    spent += forwards
                done(question, found, spent)

    made, told = label_all(list(texts), label, progress, yes=yes)
    say(told)
    scores = sorted(case.score for case in made if case.score is not None)
    quantiles = ", ".join(f"{share}% {scores[len(scores) * share // 100]:.2f}" for share in (10, 25, 50, 75, 90))
    say(f"Scores: {quantiles}.")
