"""The table of answers that are already there, of the items that every method has answered.

python recipes/smollm2_e2e/answers_table.py benchmarks/results/smollm2_e2e/answers.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from judge_decoding.core.results import TARGET
from judge_decoding.intervals import UNKNOWN, p_value, points, share
from judge_decoding.markdown import table
from judge_decoding.statistics import difference_interval, mcnemar, wilson

TITLES = [
    "method", "accuracy [95%]", "difference from target (pp) [95%]", "McNemar p", "accepted draft tokens per round",
    "mean acceptance length", "acceptance rate",
]  # fmt: skip


def line(name: str, answers: list[dict[str, Any]], target: list[dict[str, Any]]) -> list[str]:
    """The row of one method; ``answers`` and ``target`` are about the same items."""
    right, own = [one["correct"] for one in answers], [one["correct"] for one in target]
    rounds, accepted, drafted, tokens = (
        sum(one[field] for one in answers) for field in ("rounds", "accepted", "drafted", "tokens")
    )
    compared = [UNKNOWN, UNKNOWN]
    if name != TARGET:
        difference = (sum(right) - sum(own)) / len(own)
        compared = [points(difference, *difference_interval(right, own)), p_value(mcnemar(right, own))]
    speculative = [f"{accepted / rounds:.2f}", f"{tokens / rounds:.2f}", f"{accepted / drafted:.0%}"] if drafted else []
    return [
        name, share(sum(right) / len(right), *wilson(sum(right), len(right))), *compared,
        *(speculative or [UNKNOWN] * 3),
    ]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("answers", type=Path)
    args = parser.parse_args()
    found: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for text in args.answers.read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        found[row["method"]][row["item"]] = row
    items = sorted(set.intersection(*map(set, found.values())))
    rows = {name: [answers[item] for item in items] for name, answers in found.items()}
    print(f"{len(items)} items\n")
    print(table(TITLES, [line(name, answers, rows[TARGET]) for name, answers in rows.items()]))


if __name__ == "__main__":
    main()
