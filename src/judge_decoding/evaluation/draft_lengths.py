"""The choice of a draft length: the one that gives most tokens per second, on items that are in no table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from judge_decoding.core.results import ItemResult
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.trial import Method, Outcome, Tell, answers, compare
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat

WARM_UP = 32
"""Tokens of an uncounted answer: the first one of a process, or of a draft length, is slow."""


def at_length(name: str, length: int) -> str:
    """What a method with this draft length is called."""
    return f"{name}, {length} tokens"


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


def fastest(
    kinds: Mapping[str, Sequence[str]], measure: Callable[[Sequence[str], int], Mapping[str, float]], stages: int = 1
) -> dict[str, str]:
    """Of each kind the candidate with most tokens per second; of equally fast ones the first.

    In several stages, the slower half of each kind is not measured again, and medians are compared.

    Args:
        kinds: names of the candidates of each kind, the shortest draft first.
        measure: from the candidates that are left and the number of the stage to the tokens per second of each.
        stages: how often the best are measured.
    """
    left = {kind: list(some) for kind, some in kinds.items() if some}
    speeds: dict[str, list[float]] = {name: [] for some in left.values() for name in some}
    for stage in range(stages if left else 0):
        for name, speed in measure([name for some in left.values() for name in some], stage).items():
            speeds[name].append(speed)
        for kind, some in left.items():
            some.sort(key=lambda name: -median(speeds[name]))
            left[kind] = some[: -(-len(some) // 2)]
    return {kind: some[0] for kind, some in left.items()}


def best_draft_lengths(
    methods: Mapping[str, Method],
    lengths: Mapping[str, Sequence[int]],
    asking: PromptFormat,
    items: Sequence[Item],
    tell: Tell = lambda *_: None,
    *,
    known: Mapping[tuple[str, str], ItemResult] | None = None,
) -> tuple[dict[str, Method], dict[str, Outcome]]:
    """Each method with its fastest draft length, and what all that were tried did.

    Args:
        methods: by name.
        lengths: draft lengths to try, by the same names; of equally fast ones the shortest is taken.
        asking: how the items are put.
        items: to measure on; none of them should be in the table.
        tell: told of each answer, by the name that `at_length` gives.
        known: answers that are there already, by that name and item.
    """
    names = {name: [at_length(name, length) for length in sorted({*lengths[name]})] for name in methods}
    tried = {
        at_length(name, length): replace(method, num_draft_tokens=length)
        for name, method in methods.items()
        for length in sorted({*lengths[name]})
    }
    warm_up(tried, asking, items, known)
    outcomes = compare(tried, asking, items, tell, known=known)
    best = fastest(names, lambda some, _: {name: outcomes[name].tokens_per_second for name in some})
    return {name: tried[chosen] for name, chosen in best.items()}, outcomes


def warm_up(
    methods: Mapping[str, Method],
    asking: PromptFormat,
    items: Sequence[Item],
    known: Mapping[tuple[str, str], ItemResult] | None = None,
) -> None:
    """Answer the first item briefly and uncounted with each method that has something left to answer."""
    short = replace(asking, max_new_tokens=min(WARM_UP, asking.budget))
    for name, method in methods.items():
        if any((name, item.key) not in (known or {}) for item in items):
            answers(method, short, items[:1])
