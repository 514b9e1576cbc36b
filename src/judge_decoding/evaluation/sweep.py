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
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.evaluate import label
from judge_decoding.evaluation.matched import matched_sampling
from judge_decoding.evaluation.record import Record
from judge_decoding.evaluation.trial import Asking, Method, Outcome, compare
from judge_decoding.rules import Exact, Judge, KLJudge, TopK, Typical, VerificationRule
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


def at_length(one: Candidate, length: int) -> str:
    """What a candidate with this draft length is called."""
    return f"{one.name}, {length} tokens"


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
    ways = {at_length(one, length): (one, length) for one in wanted for length in lengths if one.name != TARGET}
    outcomes = _run({name: _with(one, length) for name, (one, length) in ways.items()}, asking, items, record, progress)
    best: dict[str, int] = {}
    fastest: dict[str, float] = {}
    for name, (one, length) in ways.items():
        speed = outcomes[name].tokens_per_second
        if speed > fastest.get(one.name, 0.0):
            best[one.name], fastest[one.name] = length, speed
    rows = [one.row(outcomes[name], None, 0.0, length) for name, (one, length) in ways.items()]
    return best, rows


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
    methods = {one.name: _with(one, lengths.get(one.name, 0)) for one in wanted}
    outcomes = _run(methods, asking, items, record, progress)
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
            name = at_length(one, length)
            found.append(replace(one, name=name, setting=setting))
            chosen[name] = length
    return found, chosen


def split(items: Sequence[Item], tuning: int) -> tuple[list[Item], list[Item]]:
    """Items to choose draft lengths on, spread over all, and the others, for the table.

    Raises:
        JudgeDecodingError: nothing would be left for the table.
    """
    if tuning >= len(items):
        raise JudgeDecodingError(
            f"{tuning} of {len(items)} items are to choose draft lengths on, which leaves none for the table; take "
            "more items, or a smaller --tune."
        )
    chosen = {place * len(items) // tuning for place in range(tuning)}
    return [items[i] for i in sorted(chosen)], [item for i, item in enumerate(items) if i not in chosen]


def distances(wanted: Sequence[Candidate], items: Sequence[Item], record: Record) -> tuple[float, ...]:
    """How unlike the judge's training questions the items are, where a method has told."""
    told = ([record.told[one.name, item.key]["distance"] for one in wanted] for item in items)
    known = ([distance for distance in each if distance is not None] for each in told)
    return tuple(each[0] for each in known if each)


def _with(one: Candidate, length: int) -> Method:
    return replace(one.method, num_draft_tokens=length)


def _run(
    methods: dict[str, Method], asking: Asking, items: Sequence[Item], record: Record, progress: Progress
) -> dict[str, Outcome]:
    def keep(name: str, _item: Item, one: ItemResult, given: Sequence[Generation]) -> None:
        record.add(name, one, {"texts": [asking.bare(answer.text) for answer in given], "distance": given[0].distance})
        progress(name, one)

    return compare(methods, asking, items, keep, known=record.known)
