"""``judge-decoding plan``: whether a recipe fits its GPUs, and how fast it could be."""

from __future__ import annotations

import math
import shlex
from dataclasses import asdict
from json import dumps
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from judge_decoding.cli import options
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.options import DECODING, option
from judge_decoding.cli.terminal import say_json
from judge_decoding.report.tables import text_table
from judge_decoding.serving.plan import ALLOWANCE, LAUNCH, SHARES, BestLength, Comparison, Estimate, estimate
from judge_decoding.serving.recipe import Recipe, load

BAR = 60
"""Width of the bar of a round, in characters, where the terminal is wide enough."""


def plan(
    recipe: options.RecipeName,
    accepted: Annotated[
        float | None, option(DECODING, "Accepted draft tokens per round, expected or measured.", min=0)
    ] = None,
    num_draft_tokens: options.DraftLengthOption = None,
    json: options.Json = False,
) -> None:
    """Estimate a recipe's memory per GPU and tokens per second. Exit code 1 if it does not fit."""
    one = load(recipe)
    if num_draft_tokens is not None:
        one = one.model_copy(update={"num_draft_tokens": num_draft_tokens})
    found = estimate(one, accepted)
    if json:
        _print_json(one, found)
    else:
        _print(one, found, own=accepted is not None)
    if not found.memory.fits:
        raise typer.Exit(1)


def _print_json(recipe: Recipe, found: Estimate) -> None:
    memory = found.memory
    figures: dict[str, Any] = {
        "memory": {**asdict(memory), "spare": memory.spare, "fits": memory.fits, "remedies": found.remedies},
        "rounds": [
            {
                "sequences": sequences,
                "share": one.share,
                "seconds": one.cost.seconds,
                "parts": one.cost.parts(),
                "break_even": one.cost.break_even,
                "tokens_per_second": one.tokens_per_second,
            }
            for sequences, speeds in found.speeds.items()
            for one in speeds
        ],
        "best_draft_lengths": [asdict(each) for each in found.best],
        "published": [asdict(each) for each in found.compared],
        "assumed": {"allowance": ALLOWANCE, "launch": LAUNCH, "all_reduce": recipe.gpus.all_reduce_latency},
    }
    say_json(dumps(figures, indent=2))


def _print(recipe: Recipe, found: Estimate, *, own: bool) -> None:
    memory = found.memory
    console = Terminal(highlight=False)
    gpus, standard = recipe.gpus, recipe.accepted.standard if recipe.accepted else None

    def say(text: str) -> None:
        console.print(Text(text))

    def gap() -> None:
        console.print()

    say(recipe.about)
    gap()
    rows = [
        (f"target, {recipe.target.parameters / 1e9:.2f}B, {recipe.target.weights}", memory.target),
        (f"draft, {recipe.draft.parameters / 1e9:.2f}B, {recipe.draft.weights}", memory.draft),
        (f"cache in {recipe.kv_cache}, {recipe.sequences} x {recipe.context} tokens", memory.cache),
        ("activations and graphs (assumed)", memory.allowance),
        (f"usable, {recipe.memory_share:.0%} of the memory", memory.usable),
    ]
    console.print(
        text_table([f"on each {gpus.name}, {gpus.count} in all", "GB"], [[n, f"{b / 1e9:.1f}"] for n, b in rows])
    )
    if memory.fits:
        say(f"It fits; {memory.spare / 1e9:.1f} GB are left on each.")
    else:
        remedy = f"Possible remedies: {', or '.join(found.remedies)}." if found.remedies else "Choose a smaller pair."
        say(f"It does not fit: {-memory.spare / 1e9:.1f} GB are missing on each. {remedy}")
    gap()
    names = {
        "judge": f"judge, draft length {recipe.num_draft_tokens}",
        "standard": "standard" + (f", draft length {math.ceil(standard)}" if standard else ""),
        "plain": "plain, without a draft",
    }
    for sequences, speeds in found.speeds.items():
        which = "one sequence" if sequences == 1 else f"{sequences} sequences in all"
        header = [f"tokens per second, {which}", *(f"at {one.share:.0%} of peak" for one in speeds)]
        methods = [[label, *(_figure(one.tokens_per_second[name]) for one in speeds)] for name, label in names.items()]
        methods.append(["accepted a round to break even", *(f"{one.cost.break_even:.1f}" for one in speeds)])
        console.print(text_table(header, methods))
        gap()
    console.print(_best_lengths(found.best, recipe))
    gap()
    if own:
        say("Accepted draft tokens: as given.")
    elif recipe.accepted:
        say(f"Accepted draft tokens: judge {recipe.accepted.judge:g}, standard {_figure(standard)}.")
        say(f"Source: {recipe.accepted.source}.")
    else:
        say("The number of accepted draft tokens is unknown here; measure it, then give --accepted.")
    gap()
    for one in found.speeds[1]:
        say(f"A round of one sequence at {one.share:.0%}, {one.cost.seconds * 1e3:.1f} ms")
        console.print(Text(_bar(one.cost.parts(), min(BAR, console.width - 2))))
    gap()
    if found.compared and recipe.published:
        _published(console, recipe, found.compared)
        gap()
    shared = (
        f"both models divided over {gpus.count} GPUs; two all-reduces a layer, "
        f"{gpus.all_reduce_latency * 1e6:.0f} us each; "
        if gpus.count > 1
        else ""
    )
    say(
        f"Assumed: {shared}{LAUNCH * 1e6:.0f} us to start a forward; contexts half full; "
        "sequences that run together draft and verify together, and each accepts as many. "
        "These are estimates, at 100% upper bounds."
    )
    say(f"Head: {recipe.head}, from {recipe.data}:")
    console.print(Text(f"  {shlex.join(recipe.fit_command())}"), soft_wrap=True)


def _best_lengths(best: list[BestLength], recipe: Recipe) -> Table:
    header = ["one sequence, if this share\nof draft tokens is accepted", "best draft\nlength", "over\nplain"]
    rows = [[f"{one.rate:.0%}", str(one.length), f"{one.speedup:.2f}x"] for one in best]
    if recipe.target.experts is not None:
        header += [f"experts read\nof {recipe.target.experts.total}", "best if\ndense"]
        for row, one in zip(rows, best, strict=True):
            row += [f"{one.experts_read:.0f}", str(one.dense_length)]
    return text_table(header, rows)


def _published(console: Terminal, recipe: Recipe, compared: list[Comparison]) -> None:
    known = recipe.published
    assert known is not None
    by_way: dict[tuple[str, int], list[Comparison]] = {}
    for each in compared:
        by_way.setdefault((each.weights, each.draft_gpus), []).append(each)
    rows = []
    for (weights, on), shares in by_way.items():
        figures = [f"{c.tokens_per_second:.0f} ({c.deviation:+.0%})" if c.possible else "does not fit" for c in shares]
        alone = [
            f"{c.plain:.0f}" + (f" ({c.plain_deviation:+.0%})" if c.plain_deviation is not None else "")
            if c.possible
            else "-"
            for c in shares
        ]
        rows.append([f"{weights}, draft on {on}", *figures, *alone])
    heads = [f"{what}, {share:.0%}" for what in ("judge", "plain") for share in SHARES]
    plain = f", plain {known.plain:g}" if known.plain else ""
    console.print(f"Published: judge {known.judge:g}{plain} tokens per second ({known.source}).")
    console.print(text_table(["if the target was in", *heads], rows))
    console.print(
        f"Draft length {recipe.num_draft_tokens} in all. The published weights are unknown; nothing is fitted to them."
    )


def _bar(parts: dict[str, float], width: int) -> str:
    """Return a stacked bar of a round, and below it a legend of its parts."""
    whole, marks = sum(parts.values()), dict(zip(parts, "█▒░·", strict=True))
    bar = "".join(marks[name] * round(width * seconds / whole) for name, seconds in parts.items())
    return f"  {bar}\n  " + ", ".join(f"{marks[name]} {name} {s * 1e3:.1f}" for name, s in parts.items() if s)


def _figure(number: float | None) -> str:
    if number is None:
        return "not known"
    return f"{number:.1f}" if number < 10 else f"{number:.3g}" if number < 1000 else f"{number:,.0f}"
