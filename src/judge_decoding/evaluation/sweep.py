"""Compare many decoding methods on one task: what each setting of each rule costs and gains.

Every baseline gets its best setting: standard speculative decoding, top-k, typical acceptance, KL and the
distribution-matched baselines are always among the methods, and each uses its fastest draft length, measured on items
that are in no row of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from judge_decoding.core.results import MATCHED, TARGET, ItemResult, LoadRow, ResultRow, fastest_non_inferior
from judge_decoding.core.tracking import Logger, log_fields
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.evaluation.draft_lengths import at_length, best_draft_lengths, split, warm_up
from judge_decoding.evaluation.evaluate import label, method_row
from judge_decoding.evaluation.loads import lengths_by_load, steps
from judge_decoding.evaluation.matched import matched_sampling
from judge_decoding.evaluation.record import RecordedAnswer, ResultRecord
from judge_decoding.evaluation.trial import GREEDY, Method, OnAnswer, Outcome, compare
from judge_decoding.rules import Exact, Judge, KLJudge, TopK, Typical, VerificationRule
from judge_decoding.rules.spelling import as_rule
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat

LENGTHS = (2, 4, 8, 16, 24)
"""Draft lengths to choose from."""
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Thresholds of the judge to compare, besides the head's own."""


LOGGED = (
    "num_draft_tokens", "accuracy", "accuracy_low", "accuracy_high", "difference", "acceptance_rate",
    "accepted_per_round", "tokens_per_forward", "tokens_per_second", "speedup",
)  # fmt: skip
"""The figures of a row that are logged."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A decoding method whose draft length is to be chosen.

    Attributes:
        name: name of its row.
        method: the method, with any draft length.
        family: candidates of one family share a colour and shape in the plot.
        setting: distinguishes it from others of the family.
    """

    name: str
    method: Method
    family: str
    setting: str = ""

    def row(self, outcome: Outcome, target: Outcome | None, margin: float, num_draft_tokens: int) -> ResultRow:
        """Return the table row of this candidate; a matched baseline is lossless for the truncated target."""
        method = replace(self.method, num_draft_tokens=num_draft_tokens)
        return method_row(self.name, method, outcome, target, margin, (self.family, self.setting))


def default_rules(decoder: JudgeDecoder, thresholds: Sequence[float] = THRESHOLDS) -> list[VerificationRule]:
    """Return the rules always compared: exact, top-k, typical, KL if the draft has probabilities, and the judge."""
    found: list[VerificationRule] = [Exact(), TopK(2), TopK(4), Typical(), Typical(0.3, 0.55)]
    if decoder.draft_model is not None:
        found += [KLJudge(tau) for tau in (0.3, 1.0, 3.0)]  # the best value depends on the pair
    head = decoder.judge
    if head is not None:
        found += [Judge(head, value) for value in sorted({*thresholds, head.config.threshold})]
    return found


def candidates(decoder: JudgeDecoder, rules: Sequence[VerificationRule], sampling: SamplingParams) -> list[Candidate]:
    """Return the target alone, then each rule once, each truncating rule followed by its matched baseline."""
    found = {TARGET: Candidate(TARGET, Method(decoder, sampling=sampling).alone(), TARGET)}
    for rule in rules:
        family, setting = label(rule)
        found.setdefault(str(rule), Candidate(str(rule), Method(decoder, rule, 0, sampling), family, setting))
        matched = matched_sampling(rule, sampling)
        if matched is not None:
            name = f"{rule}{MATCHED}"
            found.setdefault(name, Candidate(name, Method(decoder, Exact(), 0, matched), f"{family}{MATCHED}", setting))
    return list(found.values())


OnResult = Callable[[str, ItemResult], None]
"""Called with each answer: the method's name and the item's result."""
SweepStep = Callable[[str, Sequence[str], Sequence[Item]], AbstractContextManager[OnResult]]
"""Context manager around a step in which methods answer items, from its title, the methods' names and the items."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The results of `sweep`.

    Attributes:
        candidates: the compared methods.
        items: the items of the table.
        rows: the table, one row per candidate; the target alone comes first.
        tuning: the rows that the draft lengths were chosen from; empty if every length has its own row.
        loads: the speed by batch size and draft length, if that was asked for.
    """

    candidates: list[Candidate]
    items: list[Item]
    rows: list[ResultRow]
    tuning: list[ResultRow]
    loads: list[LoadRow]


def sweep(
    decoder: JudgeDecoder,
    prompt_format: PromptFormat,
    items: Sequence[Item],
    rules: Sequence[VerificationRule | str] | None = None,
    *,
    sampling: SamplingParams = GREEDY,
    lengths: Sequence[int] = LENGTHS,
    tuning_items: int = 10,
    batch_sizes: Sequence[int] = (),
    margin: float = 0.02,
    record: ResultRecord | None = None,
    running: SweepStep = lambda *_: nullcontext(lambda *_: None),
    logger: Logger | None = None,
) -> Sweep:
    """Compare rules and settings on a task, each at its best draft length, with the target alone.

    Args:
        decoder: target, draft, and optionally a judge.
        prompt_format: the prompt format of the items.
        items: the items to answer.
        rules: rules or their spellings to compare; `default_rules` by default. Matched baselines are added.
        sampling: how tokens are chosen.
        lengths: draft lengths to choose from.
        tuning_items: number of items used to choose each method's draft length; they are in no row of the table. 0
            gives every length its own row.
        batch_sizes: at these numbers of answers decoded together, also measure all draft lengths of standard
            verification, the head's own threshold and the fastest row shown to be non-inferior, on the items on which
            lengths are chosen, or else on all; see `lengths_by_load`.
        margin: share of right answers that may be lost for a method to count as non-inferior.
        record: stores finished answers, and contains those of an earlier run.
        running: context manager around each step; it yields the function called with each answer.
        logger: receives the figures of each row under ``ROW/FIGURE``; see `log_to`.

    Raises:
        JudgeDecodingError: no item would be left for the table, or the task cannot check an answer.
    """
    compared = default_rules(decoder) if rules is None else [as_rule(rule, decoder.judge) for rule in rules]
    wanted = candidates(decoder, compared, sampling)
    rows: list[ResultRow] = []
    if not tuning_items:
        shown = tuning = list(items)
        wanted, chosen = every_length(wanted, lengths)
    else:
        tuning, shown = split(items, tuning_items)
        names = [at_length(one.name, length) for one in wanted[1:] for length in lengths]
        with running("choosing draft lengths", names, tuning) as progress:
            chosen, rows = tune(wanted, lengths, prompt_format, tuning, record, progress)
    with running("answering", [one.name for one in wanted], shown) as progress:
        table = measure(wanted, chosen, prompt_format, shown, record, progress, margin=margin)
    for one in table:
        log_fields(logger, one.name, {name: getattr(one, name) for name in LOGGED})
    loads: list[LoadRow] = []
    if batch_sizes:
        served = _served(decoder, wanted, table, sampling)
        batches = [str(number) for number in range(steps(served, lengths, batch_sizes, tuning))]
        with running("draft lengths by load", batches, tuning[:1]) as progress:
            loads = lengths_by_load(
                served, lengths, batch_sizes, prompt_format, tuning, record=record, progress=progress
            )
    return Sweep(wanted, shown, table, rows, loads)


def _served(
    decoder: JudgeDecoder, wanted: Sequence[Candidate], table: Sequence[ResultRow], sampling: SamplingParams
) -> dict[str, Method]:
    """Return the methods that one might serve: exact, the head's own threshold, and the best of the table."""
    rules: list[VerificationRule] = [Exact()]
    if decoder.judge is not None:
        rules.append(Judge(decoder.judge))
    best = fastest_non_inferior(table)
    rules += [one.method.rule for one in wanted if best and one.name == best.name and one.method.rule is not None]
    return {str(rule): Method(decoder, rule, 0, sampling) for rule in rules}


def tune(
    wanted: Sequence[Candidate],
    lengths: Sequence[int],
    prompt_format: PromptFormat,
    items: Sequence[Item],
    record: ResultRecord | None,
    progress: OnResult,
) -> tuple[dict[str, int], list[ResultRow]]:
    """Return the fastest draft length of each candidate on ``items``, and the rows it was chosen from."""
    drafted = {one.name: one for one in wanted if one.name != TARGET}
    best, outcomes = best_draft_lengths(
        {name: one.method for name, one in drafted.items()}, dict.fromkeys(drafted, lengths), prompt_format, items,
        _keep(prompt_format, record, progress), known=record.done if record is not None else None,
    )  # fmt: skip
    rows = [
        one.row(outcomes[at_length(name, length)], None, 0.0, length)
        for name, one in drafted.items()
        for length in lengths
    ]
    return {name: method.num_draft_tokens for name, method in best.items()}, rows


def measure(
    wanted: Sequence[Candidate],
    lengths: dict[str, int],
    prompt_format: PromptFormat,
    items: Sequence[Item],
    record: ResultRecord | None,
    progress: OnResult,
    *,
    margin: float,
) -> list[ResultRow]:
    """Return a row for each candidate, at its draft length, on ``items``; the target alone comes first."""
    methods = {one.name: replace(one.method, num_draft_tokens=lengths.get(one.name, 0)) for one in wanted}
    known = record.done if record is not None else None
    warm_up(methods, prompt_format, items, known)
    outcomes = compare(methods, prompt_format, items, _keep(prompt_format, record, progress), known=known)
    target = outcomes[TARGET]
    return [
        one.row(outcomes[one.name], None if one.name == TARGET else target, margin, methods[one.name].num_draft_tokens)
        for one in wanted
    ]


def every_length(wanted: Sequence[Candidate], lengths: Sequence[int]) -> tuple[list[Candidate], dict[str, int]]:
    """Return each candidate once per draft length, instead of choosing a length."""
    found, chosen = [], {}
    for one in wanted:
        if one.name == TARGET:
            found.append(one)
            continue
        for length in lengths:
            setting = f"{one.setting}, {length}" if one.setting else str(length)
            name = at_length(one.name, length)
            found.append(replace(one, name=name, setting=setting))
            chosen[name] = length
    return found, chosen


def distances(wanted: Sequence[Candidate], items: Sequence[Item], record: ResultRecord) -> tuple[float, ...]:
    """Return how far the items are from the judge's training questions, where a method reported it."""
    found = ([record.done[one.name, item.key].extra["distance"] for one in wanted] for item in items)
    known = ([distance for distance in each if distance is not None] for each in found)
    return tuple(each[0] for each in known if each)


def _keep(prompt_format: PromptFormat, record: ResultRecord | None, progress: OnResult) -> OnAnswer:
    def keep(name: str, item: Item, one: ItemResult, generations: Sequence[Generation]) -> None:
        if record is not None:
            texts = [prompt_format.bare(answer.text) for answer in generations]
            lossy = any(answer.lossy for answer in generations)
            extra = {"texts": texts, "distance": generations[0].distance, "lossy": lossy}
            record.add((name, item.key), RecordedAnswer(one, extra))
        progress(name, one)

    return keep
