"""Benchmark all decoding methods side by side, at several batch sizes: draft lengths are chosen, then rows measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import transformers
from torch import Tensor

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.choices import remaining_context
from judge_decoding.errors import reason
from judge_decoding.evaluation.bench import plan
from judge_decoding.evaluation.bench.contenders import Contender
from judge_decoding.evaluation.bench.measure import Measurement, measure
from judge_decoding.evaluation.bench.plan import BEST, DEFAULTS, EQUAL, POLICY, Models
from judge_decoding.evaluation.bench.results import BenchRow, Ratio, ratio, row
from judge_decoding.evaluation.draft_lengths import fastest, split
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat

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
    with_ratios = [
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
    return with_ratios, [one for one in ratios if one is not None]


BenchStep = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Context manager around a step, from its title and its number of advances; yields the function that advances it."""
Engines = Callable[[Models, Mapping[str, Contender], Sequence[Tensor], dict[str, str]], Sequence[Contender]]
"""Makes other engines to measure, from the models, the best way of each kind, the prompts, and the `left_out` dict."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The measurements of `bench`.

    Attributes:
        rows: one row per decoding method and batch size.
        comparisons: the speed ratios of interest.
        left_out: methods that could not be measured, with the reason.
        items: the measured items.
        tuned_on: number of other items on which draft lengths were chosen.
        max_new_tokens: token budget of each answer.
        models: the models as measured.
        best: the fastest method of each kind, at the last batch size.
        prompts: token ids of the items, the shortest first.
    """

    rows: list[BenchRow]
    comparisons: list[Ratio]
    left_out: dict[str, str]
    items: list[Item]
    tuned_on: int
    max_new_tokens: int
    models: Models
    best: dict[str, Contender]
    prompts: list[Tensor]


def bench(
    decoder: JudgeDecoder,
    prompt_format: PromptFormat,
    items: Sequence[Item],
    *,
    tuning_items: int = 6,
    batch_sizes: Sequence[int] = (1,),
    equal: Sequence[int] = (),
    repetitions: int = 5,
    compiled: bool = True,
    engines: Engines = lambda *_: (),
    note: Callable[[str], None] = lambda _: None,
    running: BenchStep = lambda *_: nullcontext(lambda: None),
) -> Bench:
    """Measure decoding methods in turns: transformers with and without a draft, and our own loop.

    Args:
        decoder: target, and optionally draft and judge.
        prompt_format: the prompt format of the items.
        items: the items to answer.
        tuning_items: number of items used to choose the best draft lengths; they are not measured.
        batch_sizes: numbers of prompts decoded together.
        equal: draft lengths at which our loop and assisted generation are also compared.
        repetitions: number of repetitions, not counting the warm-up.
        compiled: whether the static back end is measured, too.
        engines: makes other methods, once the best draft lengths of the first batch size are known.
        note: called with a description of the current work.
        running: context manager around each longer step.

    Raises:
        JudgeDecodingError: no item would be left to measure, or a prompt fills the context.
    """
    tuning, shown = split(items, tuning_items)
    ids = {item.key: decoder.encode(prompt_format.prompt(item))[0] for item in items}
    budget = min([prompt_format.budget, *(remaining_context(len(own), decoder.target) for own in ids.values())])
    # Batches of similar prompt lengths need little padding.
    measured, tuned = (sorted((ids[item.key] for item in some), key=len) for some in (shown, tuning))
    left_out: dict[str, str] = {}
    models = Models(decoder, budget)
    if compiled:
        models, why = Models.of(decoder, budget, note)
        if why:
            left_out["static"] = why
    expected = alone(models, measured)
    rows: list[BenchRow] = []
    ratios: list[Ratio] = []
    others: Sequence[Contender] | None = None
    best: dict[str, Contender] = {}
    for size in batch_sizes:
        kinds = plan.candidates(models, size)
        with running(f"choosing draft lengths, batch size {size}", tuning_steps(kinds)) as on:
            best = choose(kinds, tuned, size, advance=on)
        if others is None:
            others = engines(models, best, measured, left_out)
        static = static_assisted(models, best, measured, left_out) if compiled else None
        wanted = [*plan.contenders(models, best, equal, static), *others]
        with running(f"measuring, batch size {size}", len(wanted) * (repetitions + 1)) as on:
            some, more = run(wanted, measured, expected, batch_size=size, repetitions=repetitions, advance=on)
        rows += some
        ratios += more
        if size > 1 and models.draft is not None:
            left_out[f"assisted, batch size {size}"] = "transformers assists one prompt at a time"
    return Bench(rows, ratios, left_out, shown, len(tuning), budget, models, best, measured)


def static_assisted(
    models: Models, best: Mapping[str, Contender], prompts: Sequence[Tensor], left_out: dict[str, str]
) -> Contender | None:
    """Return assisted generation at its best with a static cache; None, and the reason, where it does not work."""
    if "assisted" not in best:
        return None
    static = models.static_assisted(best["assisted"])
    try:
        static.answer(prompts[-1:])
    except Exception as error:  # noqa: BLE001  (of transformers, of torch's compiler, or of the C++ compiler)
        left_out[static.label.name] = f"transformers {transformers.__version__}: {reason(error)}"
        return None
    return static
