"""Labels by likelihood: SelfJudge's score (arXiv 2510.02329), for any text, without a checker.

For an answer y and the draft's token z in place of y_i::

    s = log p(z | y_<i) - log p(y_i | y_<i)  +  log p(y_>i | y_<i, z) - log p(y_>i | y_<=i)

with p the target and y_>i the next ``suffix`` tokens: how much less likely the target finds the token, and the same
continuation after it. z is correct if s is above a threshold. The cost is one forward per answer and one per label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from judge_decoding.bounds import check_bounds
from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import split_ids
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.labelling.labels.swaps import check_draft_model, draft_choices, log_probs, prompt_ids, swap_case
from judge_decoding.rules.exact import Exact

SOURCE = "likelihood"


@dataclass(frozen=True, slots=True)
class LikelihoodConfig:
    """How to label by likelihood.

    Attributes:
        threshold: tokens with a score above it are correct. The paper uses the 10% quantile of the scores of tokens
            that labelling by equivalence rejects.
        suffix: how many tokens after the swap are read (the paper's 20).
    """

    threshold: float
    suffix: int = 20

    def __post_init__(self) -> None:
        check_bounds(self)


def label_by_likelihood(
    decoder: JudgeDecoder, question: str, answer: Sequence[int], config: LikelihoodConfig
) -> tuple[list[Case], int]:
    """Cases of the mismatches of an answer (token ids), one each, and their cost in target forwards.

    Raises:
        JudgeDecodingError: the decoder has no draft model, or the question is empty.
    """
    prompt, answer = prompt_ids(decoder, question), list(answer)
    if not answer:
        return [], 0
    choices = draft_choices(check_draft_model(decoder), [prompt], [answer])[0]
    places = [i for i, token in enumerate(choices) if token != answer[i]]
    if not places:
        return [], 0
    own = log_probs(decoder.target, [prompt], [answer])[0]
    # The same prefix with each token in its place, and the continuation.
    starts = [[*prompt, *answer[:i]] for i in places]
    swapped = [[choices[i], *answer[i + 1 : i + 1 + config.suffix]] for i in places]
    cases = []
    for i, found in zip(places, log_probs(decoder.target, starts, swapped), strict=True):
        score = float((found - own[i : i + len(found)]).sum())
        case = swap_case(
            decoder.tokenizer, question, prompt, [*answer[:i], choices[i]], [i],
            wrong=score <= config.threshold, source=SOURCE, score=score, ends=decoder.end_ids,
        )  # fmt: skip
        if case is not None:
            cases.append(case)
    return cases, 1 + len(places)


def label_questions(
    decoder: JudgeDecoder,
    questions: Sequence[str],
    config: LikelihoodConfig,
    given: Mapping[str, Sequence[Case]] | None,
    done: Callable[[str, list[Case], int], None],
    *,
    max_new_tokens: int = 256,
    batch_size: int = 8,
) -> None:
    """Label the target's own greedy answers to ``questions`` or, by question, those ``given``.

    ``done`` is called with each question, the cases of its answers, and their cost in target forwards.

    Raises:
        JudgeDecodingError: the decoder has no draft model, or a question is empty.
    """
    for first in range(0, len(questions), batch_size):
        part = questions[first : first + batch_size]
        if given is not None:
            answers, costs = [[_words(case, decoder) for case in given[question]] for question in part], [0] * len(part)
        else:
            made = decoder.generate_batch(part, max_new_tokens, batch_size=batch_size, rule=Exact(), temperature=0)
            answers, costs = [[list(one.token_ids)] for one in made], [1 + one.stats.rounds for one in made]
        for question, own, cost in zip(part, answers, costs, strict=True):
            labelled = [label_by_likelihood(decoder, question, answer, config) for answer in own]
            done(
                question, [case for cases, _ in labelled for case in cases], cost + sum(spent for _, spent in labelled)
            )


def _words(case: Case, decoder: JudgeDecoder) -> list[int]:
    """An answer without its end token, which is no text of its writer's."""
    ids = split_ids(case, decoder.tokenizer)[1]
    ends = {*decoder.end_ids, decoder.tokenizer.eos_token_id}
    return ids[:-1] if case.ended and ids[-1:] and ids[-1] in ends else ids
