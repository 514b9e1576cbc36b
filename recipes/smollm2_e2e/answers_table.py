"""The table and the figure of answers that are already there, of the items that every method has answered.

    python recipes/smollm2_e2e/answers_table.py benchmarks/results/smollm2_e2e/float32.jsonl --figure smollm2.svg

Several files are read as one. A sampled baseline has the suffix ``, matched``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judge_decoding.core.results import MATCHED, TARGET, ItemResult, ResultRow, row
from judge_decoding.io.files import write_text
from judge_decoding.markdown import table
from judge_decoding.report.card_results import measured_table
from judge_decoding.report.plots import pareto_svg

Answers = dict[str, dict[str, dict[str, Any]]]
"""The answers by method and item."""


def read(paths: list[Path]) -> Answers:
    """Read the answers of all files."""
    found: defaultdict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for path in paths:
        for text in path.read_text(encoding="utf-8").splitlines():
            one = json.loads(text)
            found[one["method"]][one["item"]] = one
    return found


def rows_of(answers: Answers, items: list[str], num_draft_tokens: int, margin: float) -> list[ResultRow]:
    """The row of each method, the target alone first, then from few accepted tokens to many."""
    results = {
        name: [
            ItemResult(
                item,
                one["correct"],
                one["rounds"],
                one["tokens"],
                one["accepted"],
                cut_off=one.get("cut_off", False),
                drafted=one["drafted"],
                positions=one.get("positions", ()),
            )
            for item, one in ((item, known[item]) for item in items)
        ]
        for name, known in answers.items()
    }
    own = results.pop(TARGET)
    found = []
    for name, given in results.items():
        family, _, setting = name.removesuffix(MATCHED).partition("(")
        suffix = MATCHED if name.endswith(MATCHED) else ""
        length = num_draft_tokens if any(one.drafted for one in given) else 0
        found.append(
            row(given, own, margin=margin, name=name, rule=family + suffix, setting=setting.removesuffix(")"),
                num_draft_tokens=length, lossless=name == "exact", temperature=1.0 if suffix else 0.0)
        )  # fmt: skip
    target = row(own, name=TARGET, rule=TARGET, num_draft_tokens=0)
    return [target, *sorted(found, key=lambda one: (bool(one.drafted), one.accepted_per_round or 0))]


def texts_of(answers: Answers, items: list[str]) -> list[dict[str, Any]]:
    """Of each method: answers lost and won against the target, rounds, length, and perplexity where it was computed."""
    found, target = [], answers[TARGET]
    for name, known in answers.items():
        given = [known[item] for item in items]
        nll = [one["nll"] for one in given if one.get("nll") is not None]
        found.append(
            {
                "name": name,
                "lost": sum(target[item]["correct"] and not known[item]["correct"] for item in items),
                "won": sum(known[item]["correct"] and not target[item]["correct"] for item in items),
                "perplexity": math.exp(sum(nll) / len(nll)) if nll else None,
                "words": sum(len(one["text"].split()) for one in given) / len(given),
                "rounds": sum(one["rounds"] for one in given) / len(given),
            }
        )
    return found


def tables(rows: Sequence[ResultRow], texts: Sequence[dict[str, Any]]) -> str:
    """Both tables in Markdown."""
    lines = [
        [
            one["name"],
            str(one["lost"]),
            str(one["won"]),
            f"{one['rounds']:.2f}",
            f"{one['words']:.1f}",
            "" if one["perplexity"] is None else f"{one['perplexity']:.1f}",
        ]
        for one in texts
    ]
    heads = ["", "answers lost", "won", "rounds per answer", "words", "perplexity under the base"]
    return f"{measured_table(rows)}\n\n{table(heads, lines)}"


def main() -> None:
    """Print the tables; write the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("answers", type=Path, nargs="+")
    parser.add_argument("--num-draft-tokens", type=int, default=6)
    parser.add_argument("--margin", type=float, default=1.5, help="percentage points of accuracy that may be lost")
    parser.add_argument("--figure", type=Path, help="accuracy against mean acceptance length, as SVG")
    args = parser.parse_args()
    answers = read(args.answers)
    items = sorted(set.intersection(*map(set, answers.values())))
    rows = rows_of(answers, items, args.num_draft_tokens, args.margin / 100)
    print(f"{len(items)} items\n\n{tables(rows, texts_of(answers, items))}")
    if args.figure is not None:
        shown = [one for one in rows if one.drafted or one.name == TARGET]
        for one in shown:  # hollow in the figure; the table compares them with the greedy target
            one.lossless = one.lossless or one.rule.endswith(MATCHED)
        write_text(args.figure, pareto_svg(shown))


if __name__ == "__main__":
    main()
