"""The fastest draft length by load: how many answers are decoded together.

One sequence leaves most of a GPU's arithmetic idle, and verification uses it at no cost. A large batch does not, and
there long drafts cost more than they save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice, pairwise

from judge_decoding.core.results import TARGET, ItemResult, LoadRow
from judge_decoding.core.rounds import Stats
from judge_decoding.evaluation.draft_lengths import WARM_UP, at_length
from judge_decoding.evaluation.record import RecordedAnswer, ResultRecord
from judge_decoding.evaluation.trial import Method, answers
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat

OnBatch = Callable[[str, ItemResult], None]
"""Called with each batch: the method's name and the counts of the batch."""


def lengths_by_load(
    methods: Mapping[str, Method],
    lengths: Sequence[int],
    batch_sizes: Sequence[int],
    prompt_format: PromptFormat,
    items: Sequence[Item],
    *,
    record: ResultRecord | None = None,
    progress: OnBatch = lambda *_: None,
) -> list[LoadRow]:
    """Measure each method at each draft length and batch size, and the target alone, in turns.

    Every batch is full: items are repeated to fill the last one. Answers that end early leave the batch, so that its
    load falls towards its end. ``record`` stores finished batches; ``progress`` is called with each, finished now or
    before.

    Returns:
        A row per method, batch size and draft length; draft length 0 is the target alone, of which each method has the
            same rows.
    """
    tried = {at_length(name, length): (name, length) for name in methods for length in sorted({*lengths})}
    found: list[LoadRow] = []
    for size in sorted({*batch_sizes}):
        ways = {TARGET: next(iter(methods.values())).alone()}
        ways |= {title: replace(methods[name], num_draft_tokens=length) for title, (name, length) in tried.items()}
        speeds = _speeds(ways, size, prompt_format, items, record, progress)
        for name in methods:
            found.append(LoadRow(name=name, batch_size=size, num_draft_tokens=0, tokens_per_second=speeds[TARGET]))
            found += [
                LoadRow(name=name, batch_size=size, num_draft_tokens=length, tokens_per_second=speeds[title])
                for title, (own, length) in tried.items()
                if own == name
            ]
    return found


def steps(
    methods: Mapping[str, Method], lengths: Sequence[int], batch_sizes: Sequence[int], items: Sequence[Item]
) -> int:
    """Return how many batches `lengths_by_load` decodes."""
    return (1 + len(methods) * len({*lengths})) * sum(-(-len(items) // size) for size in {*batch_sizes})


def best_by_load(rows: Sequence[LoadRow]) -> dict[str, dict[int, int]]:
    """Return the fastest draft length by method and batch size; 0 where no draft is as fast, the shortest on a tie."""
    best: dict[tuple[str, int], LoadRow] = {}
    for row in rows:
        key = row.name, row.batch_size
        if key not in best or row.tokens_per_second > best[key].tokens_per_second:
            best[key] = row
    found: dict[str, dict[int, int]] = {}
    for (name, size), row in sorted(best.items(), key=lambda one: one[0][1]):
        found.setdefault(name, {})[size] = row.num_draft_tokens
    return found


def schedule(best: Mapping[int, int]) -> list[tuple[int, int, int]]:
    """Return vLLM's ``num_speculative_tokens_per_batch_size`` for the best draft lengths by batch size.

    Each entry is a first and a last batch size and the draft length for them. A measured length holds up to the next
    measured batch size; vLLM carries the last one on to any larger batch.

    Source: ``vllm/v1/spec_decode/dynamic/utils.py`` of vLLM 0.32 and 0.33.
    """
    sizes = sorted(best)
    ends = [following - 1 for _, following in pairwise(sizes)] + sizes[-1:]
    found: list[tuple[int, int, int]] = []
    for size, end in zip(sizes, ends, strict=True):
        if found and found[-1][2] == best[size]:
            found[-1] = (found[-1][0], end, best[size])
        else:
            found.append((size if found else 1, end, best[size]))
    return found


def vllm_option(best: Mapping[int, int]) -> dict[str, object]:
    """Return the keys of vLLM's ``--speculative-config`` that give these draft lengths by batch size.

    Empty where no draft is worth while at any load.
    """
    longest = max(best.values())
    if not longest:
        return {}
    if len({*best.values()}) == 1:
        return {"num_speculative_tokens": longest}
    return {"num_speculative_tokens": longest, "num_speculative_tokens_per_batch_size": schedule(best)}


def _speeds(
    ways: Mapping[str, Method],
    size: int,
    prompt_format: PromptFormat,
    items: Sequence[Item],
    record: ResultRecord | None,
    progress: OnBatch,
) -> dict[str, float]:
    """Return the tokens per second of each way, over all batches of this size."""
    known = {} if record is None else record.done
    numbers, titles = range(-(-len(items) // size)), list(ways)
    filled = list(islice(cycle(items), len(numbers) * size))
    results: dict[str, list[ItemResult]] = {title: [] for title in titles}
    left = [title for title in titles if any(_key(title, size, number) not in known for number in numbers)]
    short = replace(prompt_format, max_new_tokens=min(WARM_UP, prompt_format.budget))
    for title in left:
        answers(ways[title], short, filled[:size])
    for number in numbers:
        turn = number % len(titles)
        for title in titles[turn:] + titles[:turn]:
            key = _key(title, size, number)
            if key in known:
                one = known[key].result
            else:
                one = _answer(ways[title], key[1], prompt_format, filled[number * size : (number + 1) * size])
                if record is not None:
                    record.add(key, RecordedAnswer(one))
            progress(key[0], one)
            results[title].append(one)
    return {
        title: sum(one.tokens for one in own) / max(sum(one.seconds or 0.0 for one in own), 1e-9)
        for title, own in results.items()
    }


def _key(title: str, size: int, number: int) -> tuple[str, str]:
    return f"{title}, {size} together", f"batch {number}"


def _answer(way: Method, key: str, prompt_format: PromptFormat, items: Sequence[Item]) -> ItemResult:
    """Answer ``items`` as one batch; return its counts and time."""
    stats, generations = Stats(), answers(way, prompt_format, items)
    for own in generations:
        for one in own:
            stats.merge(one.stats)
    # The answers to a turn are decoded together, and each has the time of all.
    seconds = sum(one.seconds for one in max(generations, key=len))
    return ItemResult(key, None, stats.rounds, stats.tokens, stats.accepted, seconds, drafted=stats.drafted)
