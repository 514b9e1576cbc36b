"""Implementation of ``judge-decoding demo``, called with checked options."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from json import dumps
from pathlib import Path

import torch
from rich.text import Text

from judge_decoding.cli.console import Terminal, progress
from judge_decoding.cli.demo import DemoOptions
from judge_decoding.cli.terminal import say_json
from judge_decoding.core.results import row
from judge_decoding.core.rounds import Round
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.draft_lengths import best_draft_lengths
from judge_decoding.evaluation.trial import Method, answers, compare
from judge_decoding.intervals import fewest_digits
from judge_decoding.io import files
from judge_decoding.models.provenance import machine
from judge_decoding.reference.language_pair import CALIBRATION, ITEMS, load_language_pair
from judge_decoding.reference.pair import load_pair
from judge_decoding.report.page import comparison_page
from judge_decoding.report.results import COMPARISON, cells, plain_table
from judge_decoding.report.terminal import legend, worked_example
from judge_decoding.report.verdicts import shown
from judge_decoding.rules import Exact, Judge
from judge_decoding.rules.judge import check_threshold
from judge_decoding.tasks import Item, read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.e2e import E2E
from judge_decoding.tasks.prompt_format import PromptFormat

NAMES = {
    "target": "target alone",
    "draft": "draft alone",
    "exact": "standard",
    "judge": "judge decoding",
}

EXACT_LENGTHS = (2, 3, 4, 6, 8)
JUDGE_LENGTHS = (8, 12, 16, 24)


@dataclass(frozen=True, slots=True)
class _Demo:
    """What a pair is shown with.

    ``load`` loads the decoders: the pair with its judge, and the draft alone. ``test`` draws items by number and seed,
    ``others`` other items, of which at most ``tuning_items`` choose the draft lengths. With matrices so small that
    several threads only wait for each other, ``one_thread`` is used.
    """

    load: Callable[[], tuple[JudgeDecoder, JudgeDecoder]]
    prompt_format: PromptFormat
    title: str
    test: Callable[[int, int], list[Item]]
    others: Callable[[int, int], list[Item]]
    exact_lengths: Sequence[int]
    judge_lengths: Sequence[int]
    items: int
    tuning_items: int
    one_thread: bool = False


def _descriptions(path: Path, count: int, seed: int) -> list[Item]:
    """Draw restaurants of a file of the SmolLM2 pair."""
    items = read_items(E2E(), path)
    if count > len(items):
        raise JudgeDecodingError(f"The SmolLM2 pair comes with {len(items)} restaurants, not {count}; ask for fewer.")
    return random.Random(seed).sample(items, count)


_DEMOS = {
    "reference": _Demo(
        load_pair, PromptFormat(Arithmetic()), "arithmetic word problems",
        lambda count, seed: read_items(Arithmetic(count=count, seed=seed)),
        lambda count, seed: read_items(Arithmetic("collection", "calibration", count, seed)),
        EXACT_LENGTHS, JUDGE_LENGTHS, 100, 12, one_thread=True,
    ),
    "smollm2": _Demo(
        load_language_pair, PromptFormat(E2E(), chat=True), "restaurants to describe", partial(_descriptions, ITEMS),
        partial(_descriptions, CALIBRATION), (2, 4, 6), (4, 8), 10, 4,
    ),
}  # fmt: skip


def run(options: DemoOptions) -> None:
    """Answer the items, and show what came out."""
    if options.threshold is not None:
        check_threshold(options.threshold)
    demo = _DEMOS[options.pair]
    limit, seed, length = options.limit or demo.items, options.seed, options.num_draft_tokens
    test, prompt_format = demo.test(limit, seed), demo.prompt_format
    if demo.one_thread:
        torch.set_num_threads(1)
    pair, draft = demo.load()
    assert pair.judge is not None
    judge = Judge(pair.judge, options.threshold)
    methods: dict[str, Method] = {
        "target": Method(pair.alone()),
        "draft": Method(draft),
        "exact": Method(pair, Exact(), length or 1),
        "judge": Method(pair, judge, length or 1),
    }
    tuning = [] if length else demo.others(min(demo.tuning_items, max(limit, 3)), seed)
    work = len(tuning) * (len(demo.exact_lengths) + len(demo.judge_lengths)) + len(methods) * (limit + 1)
    with progress() as bar:
        task = bar.add_task("finding the best draft lengths" if tuning else "decoding", total=work)
        advance = partial(bar.advance, task)
        if tuning:
            lengths = {"exact": demo.exact_lengths, "judge": demo.judge_lengths}
            drafted = {name: methods[name] for name in lengths}
            methods |= best_draft_lengths(drafted, lengths, prompt_format, tuning, lambda *_: advance())[0]
        bar.update(task, description="decoding side by side")
        compare(methods, prompt_format, demo.others(1, seed + 1), lambda *_: advance())  # a warm-up, not counted
        outcomes = compare(methods, prompt_format, test, lambda *_: advance())

    target = outcomes["target"].answers
    rows = {
        name: row(outcome.answers, target, name=NAMES[name], rule=name, num_draft_tokens=outcome.num_draft_tokens)
        for name, outcome in outcomes.items()
    }
    item, rounds = _telling_example(methods["judge"], prompt_format, test)
    example = shown(rounds, pair.tokenizer)
    figures = {
        "pair": options.pair, "problems": limit, "seed": seed, "threshold": judge.threshold, "machine": machine(),
        "methods": {name: row.model_dump() for name, row in rows.items()},
    }  # fmt: skip
    threshold = fewest_digits(judge.threshold)
    chosen = f"{rows['exact'].num_draft_tokens} standard, {rows['judge'].num_draft_tokens} judge"
    if options.out is not None:
        files.write_json(options.out, figures)
    if options.html is not None:
        facts = {
            "problems": f"{limit} held-out ones, seed {seed}", "judge's threshold": threshold, "draft length": chosen,
            "machine": machine(),
        }  # fmt: skip
        files.write_text(options.html, comparison_page(list(rows.values()), facts, item.turns[0], example))
    if options.json:
        say_json(dumps(figures, indent=2))
        return

    console = Terminal()
    console.print(Text.assemble("\n", (f"{limit} held-out {demo.title}", "bold"), f", {machine()}\n"))
    console.print(plain_table(*cells(list(rows.values()), COMPARISON)))
    how = f"chosen on {len(tuning)} other problems" if tuning else "as given"
    console.print(
        "\nStandard: speculative decoding that keeps only tokens the target would have generated itself.\n"
        f"Draft length: {chosen} ({how}). Judge's threshold: {threshold}.\n"
        "The mean acceptance length includes the correction or bonus token; accepted draft tokens do not.\n",
        style="dim",
        highlight=False,
    )
    console.print("One answer, one line per round", style="bold", highlight=False)
    console.print(item.turns[0] + "\n", highlight=False)
    console.print(worked_example(example))
    console.print()
    console.print(legend(rejected=True))
    console.print()
    for title, path in (("Figures", options.out), ("Web page", options.html)):
        if path is not None:
            console.print(f"{title}: {path}", highlight=False, soft_wrap=True)


def _telling_example(judge: Method, prompt_format: PromptFormat, items: list[Item]) -> tuple[Item, tuple[Round, ...]]:
    """Return the first problem whose answer shows all four causes, or else the first problem."""
    first = None
    for item in items[:40]:
        rounds = answers(judge, prompt_format, [item])[0][0].rounds
        first = first or (item, rounds)
        if len({cause for event in rounds for cause in event.causes}) == 4:
            return item, rounds
    assert first is not None
    return first
