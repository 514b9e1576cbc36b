"""Tables of results, in a terminal, on a page and in a model card, with an explanation of their figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from json import dumps

from rich.table import Table

from judge_decoding.core.results import MATCHED, TARGET, LoadRow, ResultRow, Results, fastest_non_inferior
from judge_decoding.evaluation.loads import best_by_load, vllm_option
from judge_decoding.intervals import UNKNOWN, number, p_value, points, share, short_numbers
from judge_decoding.report.tables import text_table

ResultColumns = Mapping[str, Callable[[ResultRow], str]]
"""Column titles, which may contain line breaks, with the function from a row to its cell."""


def _shown(row: ResultRow) -> str:
    if row.non_inferior is None:
        return UNKNOWN
    if row.lossless and not row.rule.endswith(MATCHED):
        return "lossless"
    if row.difference_high is not None and row.difference_high < 0:
        return "worse"
    return "shown" if row.non_inferior else "inconclusive"


def _by_position(row: ResultRow) -> str:
    """Acceptance at the first, the middle and the last position of a draft."""
    shares = row.acceptance_by_position
    chosen = sorted({0, len(shares) // 2, len(shares) - 1}) if shares else []
    return " / ".join(f"{shares[position]:.0%}" for position in chosen) or UNKNOWN


QUALITY: ResultColumns = {
    "accuracy [95%]": lambda row: share(row.accuracy, row.accuracy_low, row.accuracy_high),
    "difference from\ntarget (pp) [95%]": lambda row: points(row.difference, row.difference_low, row.difference_high),
    "McNemar\np": lambda row: p_value(row.mcnemar_p),
    "non-inferiority": _shown,
    "answers\ncut off": lambda row: f"{row.cut_off} of {row.answers}" if row.cut_off else UNKNOWN,
    "grade [95%]": lambda row: number(row.grade, row.grade_low, row.grade_high),
}
"""The columns of the quality table."""

SPEED: ResultColumns = {
    "draft\nlength": lambda row: str(row.num_draft_tokens or UNKNOWN),
    "accepted\ndraft tokens\nper round": lambda row: number(row.accepted_per_round if row.num_draft_tokens else None),
    "acceptance\nrate": lambda row: UNKNOWN if row.acceptance_rate is None else f"{row.acceptance_rate:.0%}",
    "at first /\nmiddle / last\nposition": _by_position,
    "mean\nacceptance\nlength": lambda row: number(row.tokens_per_forward),
    "tokens\nper\nsecond": lambda row: UNKNOWN if row.tokens_per_second is None else f"{row.tokens_per_second:.0f}",
    "speed-up\n[95%]": lambda row: number(row.speedup, row.speedup_low, row.speedup_high, "x"),
}
"""The columns of the speed table."""


COMPARISON: ResultColumns = {
    "accuracy [95%]": QUALITY["accuracy [95%]"],
    "accepted\ndraft\ntokens\nper round": SPEED["accepted\ndraft tokens\nper round"],
    "mean\nacceptance\nlength": lambda row: UNKNOWN if row.rule == "draft" else number(row.tokens_per_forward),
    "tokens\nper\nsecond": SPEED["tokens\nper\nsecond"],
    "speed-up\nover the\ntarget": lambda row: number(row.speedup, unit="x"),
    "McNemar\np": lambda row: UNKNOWN if row.rule == "target" else p_value(row.mcnemar_p),
}
"""The columns of the demo's table, whose rows are the rules target, draft, exact and judge."""

_IN_A_TERMINAL = (
    {"accuracy [95%]": "", "difference from\ntarget (pp) [95%]": "", "non-inferiority": "non-\ninferiority",
     "grade [95%]": ""},
    {"draft\nlength": "", "accepted\ndraft tokens\nper round": "accepted\ndraft\ntokens\nper round",
     "mean\nacceptance\nlength": "", "tokens\nper\nsecond": "", "speed-up\n[95%]": ""},
    {"McNemar\np": "", "answers\ncut off": "", "acceptance\nrate": "", "at first /\nmiddle / last\nposition": ""},
)  # fmt: skip
"""The columns of each table in a terminal, which leave 21 characters for names, with narrower titles for some."""


def cells(rows: Sequence[ResultRow], columns: ResultColumns) -> tuple[list[str], list[list[str]]]:
    """Return the titles of the columns with values, the method's name first, and the cells of each row.

    Numbers in names, such as a calibrated threshold, are shortened as far as they decide the same.
    """
    table = {title: [cell(row) for row in rows] for title, cell in columns.items()}
    known = {title: column for title, column in table.items() if set(column) != {UNKNOWN}}
    names = [short_numbers(row.name) for row in rows]
    return ["method", *known], [list(line) for line in zip(names, *known.values(), strict=True)]


def results_tables(results: Results) -> list[Table]:
    """Return the tables for a terminal, narrow enough for 80 columns: quality, speed and details, where known."""
    columns = {**QUALITY, **SPEED}
    parts = [{new or title: columns[title] for title, new in part.items()} for part in _IN_A_TERMINAL]
    tables = (cells(results.rows, part) for part in parts)
    return [plain_table(titles, lines) for titles, lines in tables if len(titles) > 1]


def plain_table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Return a table of results for a terminal."""
    return text_table(titles, lines, gap=1)


def notes(results: Results) -> str:
    """Explain the figures of the tables in sentences."""
    said = [
        "The mean acceptance length includes the target's own token, the correction or bonus (Spec-Bench's mean "
        "accepted tokens); accepted draft tokens per round exclude it (the paper's m*)."
    ]
    compared = [row for row in results.rows if row.difference is not None]
    if compared:
        said.append(
            "Non-inferiority is shown where the interval of the difference excludes a loss of more than "
            f"{100 * results.margin:g} percentage points; inconclusive is no proof of a loss. Worse: the interval is "
            "below 0."
        )
    if len(compared) > 2:
        said.append(
            f"{len(compared)} rows are compared with {TARGET}: of 20 p-values below 0.05, one is expected by chance."
        )
    if any(row.speedup is not None for row in results.rows):
        said.append("Times are of one machine and one run, all methods in turns; reading the prompt is counted.")
    if results.tuning:
        lengths = sorted({row.num_draft_tokens for row in results.tuning})
        said.append(
            f"Draft lengths are each method's fastest of {', '.join(map(str, lengths))} on {results.tuning[0].answers} "
            "other items."
        )
        ends = (lengths[0], lengths[-1])
        drafted = [row for row in results.rows if row.num_draft_tokens]
        at_the_end = [row for row in drafted if row.num_draft_tokens in ends]
        if at_the_end and len(lengths) > 2:
            said.append(
                f"{len(at_the_end)} of {len(drafted)} are fastest with the shortest or the longest of them, and may be "
                "faster still beyond (--num-draft-tokens)."
            )
    return " ".join(said)


def fastest_line(results: Results) -> str:
    """Say which setting is the fastest that is shown to be non-inferior; empty where nothing is right or wrong."""
    if all(row.non_inferior is None for row in results.rows):
        return ""
    margin, best = f"a margin of {100 * results.margin:g} percentage points", fastest_non_inferior(results.rows)
    if best is None:
        return f"No setting is shown to be non-inferior with {margin}; measure more items, or stricter settings."
    speed = f"{best.speedup:.2f}x" if best.speedup else f"mean acceptance length {best.tokens_per_forward:.2f}"
    change = points(best.difference, best.difference_low, best.difference_high)
    return (
        f"Fastest setting shown non-inferior with {margin}: {short_numbers(best.name)}, draft length "
        f"{best.num_draft_tokens}: {speed}, accuracy {change} points."
    )


LOADS_NOTE = (
    "Tokens per second of all answers together, by this package's own loop on this machine: measure where you serve. "
    "Draft length 0 is the target alone."
)


def loads_table(rows: Sequence[LoadRow]) -> tuple[list[str], list[list[str]]]:
    """Return titles and lines: the tokens per second at each draft length, and the best, by method and batch size."""
    lengths = sorted({row.num_draft_tokens for row in rows})
    speeds = {(row.name, row.batch_size, row.num_draft_tokens): row.tokens_per_second for row in rows}
    lines = [
        [short_numbers(name), str(size), *(f"{speeds[name, size, length]:.0f}" for length in lengths), str(best)]
        for name, by_size in best_by_load(rows).items()
        for size, best in by_size.items()
    ]
    return ["method", "batch\nsize", *(f"draft\nlength\n{length}" for length in lengths), "fastest"], lines


def vllm_options(rows: Sequence[LoadRow]) -> list[str]:
    """Return a sentence for each method: which keys of vLLM's ``--speculative-config`` draft the fastest lengths."""
    said = []
    for name, best in best_by_load(rows).items():
        sizes, option = " and ".join(map(str, best)), vllm_option(best)
        if not option:
            said.append(
                f"{short_numbers(name)}: no draft pays at batch size {sizes}; serve the target alone, without "
                "--speculative-config."
            )
            continue
        keys = dumps(option)[1:-1]
        said.append(f"{short_numbers(name)}: the option for vLLM is --speculative-config '{{..., {keys}}}'")
    return said
