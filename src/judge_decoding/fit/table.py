"""The table that `fit_head` ends with: the target alone, standard verification and the judge, side by side.

Accuracy and accepted tokens are measured on all its prompts. The first of them are answered one by one, the three
methods in turn, to measure speed. Draft lengths are timed before that, on other prompts if there are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from judge_decoding.core.progress import StageProgress
from judge_decoding.core.results import ItemResult
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.evaluation.draft_lengths import at_length, best_draft_lengths, split, warm_up
from judge_decoding.evaluation.record import KeptRecord, RecordedAnswer
from judge_decoding.evaluation.trial import Method, OnAnswer, Outcome, compare
from judge_decoding.fit.config import FitConfig
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules import Exact, Judge
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.training.training import ticks

TARGET, STANDARD, JUDGE = "target", "exact", "judge"

APART = 2
"""Draft lengths get prompts of their own if at least this many times as many are left for the table."""


@dataclass(frozen=True, slots=True)
class Figures:
    """A row of the table.

    Attributes:
        num_draft_tokens: draft length; 0 without a draft.
        accuracy: share of answers that have the reference's result.
        accepted_per_round: accepted draft tokens per round.
        tokens_per_forward: tokens per target forward.
        tokens_per_second: tokens per second on the timed prompts.
        speedup: tokens per second divided by that of the target alone.
    """

    num_draft_tokens: int
    accuracy: float
    accepted_per_round: float
    tokens_per_forward: float
    tokens_per_second: float
    speedup: float


@dataclass(frozen=True, slots=True)
class Table:
    """The table, and how many prompts its figures are measured on.

    Attributes:
        methods: rows by name: "target", "exact" (standard verification) and "judge".
        prompts: number of prompts for accuracy, accepted tokens and tokens per forward.
        timed_prompts: number of prompts for the speeds.
        length_prompts: number of prompts that chose the draft lengths.
        apart: whether those are not among the table's prompts.
    """

    methods: dict[str, Figures]
    prompts: int
    timed_prompts: int
    length_prompts: int
    apart: bool

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return asdict(self)


def measure_table(
    decoder: JudgeDecoder,
    head: JudgeHead,
    prompt_format: PromptFormat,
    items: Sequence[Item],
    config: FitConfig,
    kept: KeptRecord,
    progress: StageProgress,
) -> Table:
    """Choose the draft lengths and measure the three methods, on the items that chose the threshold.

    ``kept`` has the answers so far; new ones are added. ``progress`` is called after each.
    """
    tuned = min(config.length_prompts, len(items))
    apart = len(items) >= tuned * (1 + APART)
    rules = {STANDARD: Method(decoder, Exact()), JUDGE: Method(decoder, Judge(head))}
    lengths = {STANDARD: config.exact_lengths, JUDGE: config.judge_lengths}

    def adding(what: str, names: Iterable[str], chosen: Sequence[Item]) -> OnAnswer:
        keys = [(name, item.key) for name in names for item in chosen]
        count = ticks(progress, what, len(keys), sum(key in kept.done for key in keys))

        def add(name: str, item: Item, answered: ItemResult, generations: Sequence[Generation]) -> None:
            extra = {"prompt": item.turns[0], "text": generations[0].text}
            kept.add((name, item.key), RecordedAnswer(answered, extra))
            count()

        return add

    def run(what: str, chosen: Sequence[Item], batch_size: int = 1) -> dict[str, Outcome]:
        add = adding(what, methods, chosen)
        if batch_size == 1:
            warm_up(methods, prompt_format, chosen, kept.done)
        return compare(methods, prompt_format, chosen, add, batch_size=batch_size, known=kept.done)

    tuning, shown = split(items, tuned) if apart else (items[:tuned], items)
    tried = [at_length(name, length) for name in rules for length in lengths[name]]
    add = adding("timing draft lengths", tried, tuning)
    best, _ = best_draft_lengths(rules, lengths, prompt_format, tuning, add, known=kept.done)
    methods = {TARGET: Method(decoder).alone(), **best}
    timed = min(config.timed_prompts, len(shown))
    one_by_one = run("measuring speed", shown[:timed])
    together = run("measuring accuracy", shown[timed:], config.batch_size)
    base = one_by_one[TARGET].tokens_per_second
    return Table(
        {name: _figures(method, one_by_one[name], together[name], base) for name, method in methods.items()},
        len(shown), timed, tuned, apart,
    )  # fmt: skip


def _figures(method: Method, timed: Outcome, others: Outcome, base: float) -> Figures:
    every = [*timed.answers, *others.answers]
    rounds = sum(one.rounds for one in every)
    return Figures(
        num_draft_tokens=method.num_draft_tokens,
        accuracy=sum(bool(one.correct) for one in every) / len(every),
        accepted_per_round=sum(one.accepted for one in every) / rounds,
        tokens_per_forward=sum(one.tokens for one in every) / rounds,
        tokens_per_second=timed.tokens_per_second,
        speedup=timed.tokens_per_second / base,
    )
