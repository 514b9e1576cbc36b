"""Methods side by side on the same problems: the table of the demo and of the benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from judge_decoding.decoding.decoder import JudgeDecoder
from judge_decoding.decoding.rounds import Round, Stats
from judge_decoding.decoding.text import pieces
from judge_decoding.evaluation.statistics import mcnemar, wilson
from judge_decoding.reference.checker import final_number
from judge_decoding.reference.pair import MAX_NEW_TOKENS, prompt_of
from judge_decoding.reference.problems import Problem
from judge_decoding.rules.base import VerificationRule


@dataclass(frozen=True, slots=True)
class Method:
    """One way to decode: a decoder, a rule (None for the decoder's own) and a draft length (0 without a draft)."""

    decoder: JudgeDecoder
    rule: VerificationRule | None = None
    num_draft_tokens: int = 0


@dataclass(slots=True)
class Outcome:
    """What one method did on the problems so far; ``seconds`` is decoding alone, the prompt included."""

    right: list[bool] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    seconds: float = 0.0
    num_draft_tokens: int = 0

    @property
    def accuracy(self) -> float:
        """Share of the problems with the right final number."""
        return sum(self.right) / len(self.right)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of decoding."""
        return self.stats.tokens / self.seconds

    @property
    def tokens_per_answer(self) -> float:
        """Mean length of an answer, its end token included."""
        return self.stats.tokens / len(self.right)


def answer(method: Method, problem: Problem) -> tuple[list[Round], float]:
    """The rounds of one answer and the seconds they took."""
    ids = method.decoder.encode(prompt_of(problem))
    begin = time.perf_counter()
    rounds = list(
        method.decoder.rounds(ids, MAX_NEW_TOKENS, rule=method.rule, num_draft_tokens=method.num_draft_tokens or None)
    )
    return rounds, time.perf_counter() - begin


def is_right(decoder: JudgeDecoder, rounds: Sequence[Round], problem: Problem) -> bool:
    """Whether the last number of an answer is the problem's."""
    ids = [token for event in rounds for token in event.token_ids]
    return final_number(pieces(decoder.tokenizer, ids)) == problem.answer


def compare(
    methods: dict[str, Method], problems: Sequence[Problem], progress: Callable[[], None] = lambda: None
) -> dict[str, Outcome]:
    """Every method on every problem, problem by problem, so that all meet the same state of the machine.

    The order of the methods changes from problem to problem. ``progress`` is called after each answer.
    """
    outcomes = {name: Outcome(num_draft_tokens=m.num_draft_tokens) for name, m in methods.items()}
    names = list(methods)
    for index, problem in enumerate(problems):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            method, outcome = methods[name], outcomes[name]
            rounds, seconds = answer(method, problem)
            outcome.right.append(is_right(method.decoder, rounds, problem))
            outcome.stats.merge(Stats.of(rounds))
            outcome.seconds += seconds
            progress()
    return outcomes


def count(
    method: Method, problems: Sequence[Problem], *, batch_size: int = 32, progress: Callable[[], None] = lambda: None
) -> Outcome:
    """One method on every problem, many at a time: the answers are those of `compare`, the seconds tell nothing."""
    decoder, outcome = method.decoder, Outcome(num_draft_tokens=method.num_draft_tokens)
    answers = decoder.generate_batch(
        [prompt_of(problem) for problem in problems], MAX_NEW_TOKENS, batch_size=batch_size, progress=progress,
        rule=method.rule, num_draft_tokens=method.num_draft_tokens or None,
    )  # fmt: skip
    for given, problem in zip(answers, problems, strict=True):
        outcome.right.append(is_right(decoder, given.rounds, problem))
        outcome.stats.merge(given.stats)
    return outcome


def best_draft_length(
    method: Method, lengths: Sequence[int], problems: Sequence[Problem], progress: Callable[[], None] = lambda: None
) -> Method:
    """``method`` with the draft length that gives most tokens per second on ``problems`` (not the test ones)."""
    candidates = {str(n): replace(method, num_draft_tokens=n) for n in lengths}
    outcomes = compare(candidates, problems, progress)
    return candidates[max(candidates, key=lambda name: outcomes[name].tokens_per_second)]


def figures(outcome: Outcome, target: Outcome) -> dict[str, float | int]:
    """One row of the table, as plain numbers."""
    low, high = wilson(sum(outcome.right), len(outcome.right))
    return {
        "accuracy": outcome.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "mcnemar_p": mcnemar(outcome.right, target.right),
        "accepted_per_round": outcome.stats.accepted_per_round,
        "tokens_per_forward": outcome.stats.tokens_per_forward,
        "tokens_per_answer": outcome.tokens_per_answer,
        "tokens_per_second": outcome.tokens_per_second,
        "speedup": outcome.tokens_per_second / target.tokens_per_second,
        "num_draft_tokens": outcome.num_draft_tokens,
    }
