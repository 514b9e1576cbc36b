"""The fastest draft length by load, as a table and as vLLM's option."""

from __future__ import annotations

from collections.abc import Sequence
from json import dumps

from judge_decoding.core.results import LoadRow
from judge_decoding.evaluation.loads import best_by_load, vllm_option
from judge_decoding.intervals import short_numbers

LOADS_NOTE = (
    "Tokens per second of all answers together, by this package's own loop on this machine: measure where you serve. "
    "Draft length 0 is the target alone."
)


def loads_table(rows: Sequence[LoadRow]) -> tuple[list[str], list[list[str]]]:
    """Return titles and lines: the tokens per second at each draft length, and the best, by method and batch size."""
    lengths = sorted({row.num_draft_tokens for row in rows})
    speeds = {(row.name, row.batch_size, row.num_draft_tokens): row.tokens_per_second for row in rows}
    lines = [
        [name, str(size), *(f"{speeds[name, size, length]:.0f}" for length in lengths), str(best)]
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
        said.append(f"{short_numbers(name)}: vLLM drafts so with --speculative-config '{{..., {keys}}}'")
    return said
