"""Many ways of decoding over one task: what each setting of each rule costs and gives.

What a lossy rule is held against gets its best setting: standard speculative decoding, top-k, typical acceptance, KL
and the distribution-matched baselines are always among the methods, and each has the draft length that is its fastest
on items that are in no row of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from judge_decoding.core.results import MATCHED, TARGET, ItemResult, Row, row
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.evaluation.draft_lengths import at_length, best_draft_lengths
from judge_decoding.evaluation.evaluate import label
from judge_decoding.evaluation.matched import matched_sampling
from judge_decoding.evaluation.record import Record
from judge_decoding.evaluation.trial import Method, Outcome, Tell, compare
from judge_decoding.rules import Exact, Judge, KLJudge, TopK, Typical, VerificationRule
from judge_decoding.tasks.asking import Asking
from judge_decoding.tasks.base import Item

LENGTHS = (2, 4, 8, 16, 24)
"""Draft lengths to choose from."""
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Of the judge, beside the head's own."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way of decoding whose draft length is to be chosen.

    Attributes:
        name: what its row is called.
        method: with any draft length.
        family: drawn in one colour and shape.
        setting: what tells it from others of the family.
    """

    name: str
    method: Method
    family: str
    setting: str = ""

    @property
    def lossless(self) -> bool:
        """Verified without loss; of a matched baseline, the distribution of the truncated target is kept."""
        return self.method.rule is None or self.method.rule.is_lossless

    def row(self, outcome: Outcome, target: Outcome | None, margin: float, num_draft_tokens: int) -> Row:
        """Its row in the table."""
        return row(
            outcome.answers, None if target is None else target.answers, margin=margin, name=self.name,
            rule=self.family, setting=self.setting, num_draft_tokens=num_draft_tokens,
            temperature=self.method.sampling.temperature, lossless=self.lossless,
        )  # fmt: skip


def usual_rules(decoder: JudgeDecoder, thresholds: Sequence[float] = THRESHOLDS) -> list[VerificationRule]:
    """The rules that are always compared: exact, top-k, typical, KL with a draft that has probabilities, the judge."""
    found: list[VerificationRule] = [Exact(), TopK(2), TopK(4), Typical(), Typical(0.3, 0.55)]
    if isinstance(decoder.draft, PreTrainedModel):
        found += [KLJudge(tau) for tau in (0.3, 1.0, 3.0)]  # what suits depends on the pair
    head = decoder.judge
    if head is not None:
        found += [Judge(head, value) for value in sorted({*thresholds, head.config.threshold})]
    return found


def candidates(decoder: JudgeDecoder, rules: Sequence[VerificationRule], sampling: SamplingParams) -> list[Candidate]:
    """The rules, each once, the target alone before them, and behind each truncating rule its matched baseline."""
    found = {TARGET: Candidate(TARGET, Method(decoder, sampling=sampling).alone(), TARGET)}
    for rule in rules:
        family, setting = label(rule)
        found.setdefault(str(rule), Candidate(str(rule), Method(decoder, rule, 0, sampling), family, setting))
        matched = matched_sampling(rule, sampling)
        if matched is not None:
            name = f"{rule}{MATCHED}"
            found.setdefault(name, Candidate(name, Method(decoder, Exact(), 0, matched), f"{family}{MATCHED}", setting))
    return list(found.values())


Progress = Callable[[str, ItemResult], None]
"""Told of each answer: the method's name, and what became of it."""


def tune(
    wanted: Sequence[Candidate],
    lengths: Sequence[int],
    asking: Asking,
    items: Sequence[Item],
    record: Record,
    progress: Progress,
) -> tuple[dict[str, int], list[Row]]:
    """The draft length of each candidate that gives most tokens per second on ``items``, and the rows it is from."""
    drafted = {one.name: one for one in wanted if one.name != TARGET}
    best, outcomes = best_draft_lengths(
        {name: one.method for name, one in drafted.items()}, dict.fromkeys(drafted, lengths), asking, items,
        _keep(asking, record, progress), known=record.known,
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
    asking: Asking,
    items: Sequence[Item],
    record: Record,
    progress: Progress,
    *,
    margin: float,
) -> list[Row]:
    """A row for each candidate, at its draft length, on ``items``; the target alone is the first."""
    methods = {one.name: replace(one.method, num_draft_tokens=lengths.get(one.name, 0)) for one in wanted}
    outcomes = compare(methods, asking, items, _keep(asking, record, progress), known=record.known)
    target = outcomes[TARGET]
    return [
        one.row(outcomes[one.name], None if one.name == TARGET else target, margin, methods[one.name].num_draft_tokens)
        for one in wanted
    ]


def every_length(wanted: Sequence[Candidate], lengths: Sequence[int]) -> tuple[list[Candidate], dict[str, int]]:
    """Each candidate once a draft length, in place of a choice among them."""
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


def distances(wanted: Sequence[Candidate], items: Sequence[Item], record: Record) -> tuple[float, ...]:
    """How unlike the judge's training questions the items are, where a method has told."""
    told = ([record.told[one.name, item.key]["distance"] for one in wanted] for item in items)
    known = ([distance for distance in each if distance is not None] for each in told)
    return tuple(each[0] for each in known if each)


def _keep(asking: Asking, record: Record, progress: Progress) -> Tell:
    def keep(name: str, _item: Item, one: ItemResult, given: Sequence[Generation]) -> None:
        record.add(name, one, {"texts": [asking.bare(answer.text) for answer in given], "distance": given[0].distance})
        progress(name, one)

    return keep
