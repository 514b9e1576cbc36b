"""Choose the draft length with the most tokens per second, measured on items that are not in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.record import RecordedAnswer, ResultKey
from judge_decoding.evaluation.trial import Method, OnAnswer, Outcome, answers, compare
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat

WARM_UP = 32
"""Token budget of an uncounted warm-up answer: the first answer of a process or of a draft length is slow."""


def at_length(name: str, length: int) -> str:
    """Return the name of a method with this draft length."""
    return f"{name}, {length} tokens"


def split(items: Sequence[Item], tuning: int) -> tuple[list[Item], list[Item]]:
    """Split the items: evenly spread ones to choose draft lengths on, and the others for the table.

    Raises:
        JudgeDecodingError: no item would be left for the table.
    """
    if tuning >= len(items):
        raise JudgeDecodingError(
            f"{tuning} of {len(items)} items are reserved for choosing draft lengths, which leaves none for the "
            "table; use more items, or a smaller --tune."
        )
    chosen = {place * len(items) // tuning for place in range(tuning)}
    return [items[i] for i in sorted(chosen)], [item for i, item in enumerate(items) if i not in chosen]


def fastest(
    kinds: Mapping[str, Sequence[str]], measure: Callable[[Sequence[str], int], Mapping[str, float]], stages: int = 1
) -> dict[str, str]:
    """Return the candidate of each kind with the most tokens per second; the first one on a tie.

    ``measure`` maps the remaining candidates and the stage to the tokens per second of each. After each stage the
    slower half of each kind is dropped. Medians over the stages are compared.
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
    prompt_format: PromptFormat,
    items: Sequence[Item],
    on_answer: OnAnswer = lambda *_: None,
    *,
    known: Mapping[ResultKey, RecordedAnswer] | None = None,
) -> tuple[dict[str, Method], dict[str, Outcome]]:
    """Return each method with its fastest draft length, and the outcomes of all lengths tried.

    The shortest of a method's ``lengths`` wins a tie. ``items`` should not be in the table. ``on_answer`` gets each
    answer under the name that `at_length` returns, by which answers may also be ``known``.
    """
    names = {name: [at_length(name, length) for length in sorted({*lengths[name]})] for name in methods}
    tried = {
        at_length(name, length): replace(method, num_draft_tokens=length)
        for name, method in methods.items()
        for length in sorted({*lengths[name]})
    }
    warm_up(tried, prompt_format, items, known)
    outcomes = compare(tried, prompt_format, items, on_answer, known=known)
    best = fastest(names, lambda some, _: {name: outcomes[name].tokens_per_second for name in some})
    return {name: tried[chosen] for name, chosen in best.items()}, outcomes


def warm_up(
    methods: Mapping[str, Method],
    prompt_format: PromptFormat,
    items: Sequence[Item],
    known: Mapping[ResultKey, RecordedAnswer] | None = None,
) -> None:
    """Answer the first item briefly, without counting it, with each method that still has items to answer."""
    short = replace(prompt_format, max_new_tokens=min(WARM_UP, prompt_format.budget))
    for name, method in methods.items():
        if any((name, item.key) not in (known or {}) for item in items):
            answers(method, short, items[:1])
