"""Benchmark one batch size, from the choice of draft lengths to the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from judge_decoding.evaluation.bench.contenders import Contender
from judge_decoding.evaluation.bench.measure import Measurement, measure
from judge_decoding.evaluation.bench.plan import BEST, DEFAULTS, EQUAL, POLICY, Models
from judge_decoding.evaluation.bench.results import BenchRow, Ratio, ratio, row
from judge_decoding.evaluation.draft_lengths import fastest

TUNING_STAGES = 3

Advance = Callable[[], None]
"""Called each time one more step is done."""


def alone(models: Models, prompts: Sequence[Tensor]) -> list[tuple[int, ...]]:
    """Return the plain greedy answer to each prompt, decoded alone: the reference for all methods."""
    plain = models.generate()
    return [plain.answer([prompt]).tokens[0] for prompt in prompts]


def choose(
    kinds: Mapping[str, Sequence[Contender]],
    prompts: Sequence[Tensor],
    batch_size: int,
    advance: Advance = lambda: None,
) -> dict[str, Contender]:
    """Return the fastest method of each kind on ``prompts``, which are not in the table.

    The choice uses successive halving: after each stage, the slower half of each kind is dropped.
    """
    contenders = {contender.label.name: contender for some in kinds.values() for contender in some}

    def speeds(names: Sequence[str], stage: int) -> dict[str, float]:
        found = measure(
            [contenders[name] for name in names], prompts, (), batch_size=batch_size, repetitions=1,
            warm_up=0 if stage else batch_size, progress=lambda repetition, _: advance() if repetition else None,
        )  # fmt: skip
        return {name: one.speed for name, one in found.items()}

    names = {kind: [contender.label.name for contender in some] for kind, some in kinds.items()}
    return {kind: contenders[name] for kind, name in fastest(names, speeds, TUNING_STAGES).items()}


def tuning_steps(kinds: Mapping[str, Sequence[Contender]]) -> int:
    """Return how often `choose` calls ``advance``."""
    return sum(-(-len(some) // 2**stage) for some in kinds.values() for stage in range(TUNING_STAGES))


def run(
    contenders: Sequence[Contender],
    prompts: Sequence[Tensor],
    expected: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
    repetitions: int,
    advance: Advance = lambda: None,
) -> tuple[list[BenchRow], list[Ratio]]:
    """Measure one batch size, and return its rows and the speed ratios of interest."""
    found = measure(
        contenders, prompts, expected, batch_size=batch_size, repetitions=repetitions, progress=lambda *_: advance()
    )
    rows = [
        row(contender.label, found[contender.label.name], batch_size, same_tokens=contender.same_tokens)
        for contender in contenders
    ]
    return compared(rows, found)


def compared(rows: Sequence[BenchRow], found: dict[str, Measurement]) -> tuple[list[BenchRow], list[Ratio]]:
    """Return the rows with their speed ratios filled in, and the ratios of interest."""

    def against(own: BenchRow, other: BenchRow | None) -> Ratio | None:
        if other is None or own.name == other.name:
            return None
        return ratio(own.name, other.name, own.batch_size, found[own.name].speeds, found[other.name].speeds)

    def first(family: str, note: str = "", backend: str = "") -> BenchRow | None:
        kept = (one for one in rows if one.family == family and note in one.note and backend in one.backend)
        return next(kept, None)

    generate, assisted, plain = first("generate"), first("assisted", BEST), first("plain")
    told = [
        one.model_copy(update={"over_generate": against(one, generate), "over_assisted": against(one, assisted)})
        for one in rows
    ]
    exact = first("exact", BEST)
    pairs = [(exact, assisted), (exact, first("assisted", backend="static")), (exact, first("assisted", DEFAULTS))]
    equal = {one.num_draft_tokens: one for one in rows if one.family == "assisted" and one.note == EQUAL}
    pairs += [
        (one, equal.get(one.num_draft_tokens)) for one in rows if one.family == "exact" and one.note in (BEST, EQUAL)
    ]
    pairs += [(first("judge", BEST), exact), (exact, plain), (first("exact", POLICY), plain), (plain, generate)]
    pairs += [(first(family, BEST), first(family, backend="eager")) for family in ("exact", "judge")]
    pairs += [(first(family, BEST), one) for one in rows if one.family == "vllm" for family in ("exact", "judge")]
    ratios = [against(own, other) for own, other in pairs if own is not None]
    return told, [one for one in ratios if one is not None]
