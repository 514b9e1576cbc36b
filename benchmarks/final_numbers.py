"""Final numbers: our own reading and math-verify's, on answers with known verdicts.

    python benchmarks/final_numbers.py example_model_solutions.jsonl

The answers are the tables of ``tests/test_numbers.py``; the solutions are those of github.com/openai/grade-school-math
with their ``is_correct``. Prints, for each reader, how many verdicts are right answers called wrong and wrong ones
called right, and the processor's time an answer, without imports.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from math_verify import parse, verify

from judge_decoding.tasks.checkers import number

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_numbers import GROUPING, LATEX, PLACES, VALUES

Row = tuple[str, str, bool | None]
"""An answer, its reference, and the verdict that is right."""


def library(_question: str, answer: str, reference: str) -> bool:
    """math-verify alone, as its readme has it, without time limits."""
    wanted, found = (parse(text, parsing_timeout=None) for text in (reference, answer))
    return bool(verify(wanted, found, timeout_seconds=None))


def told(check: Callable[[str, str, str], bool | None], rows: Sequence[Row]) -> str:
    """The counts of one reader."""
    check("", rows[0][0], rows[0][1])
    start = time.process_time()
    verdicts = [check("", answer, reference) for answer, reference, _ in rows]
    spent = (time.process_time() - start) / len(rows)
    lost = sum(right is True and verdict is not True for verdict, (*_, right) in zip(verdicts, rows, strict=True))
    gained = sum(right is False and verdict is True for verdict, (*_, right) in zip(verdicts, rows, strict=True))
    return f"{len(rows)} answers, {lost} right called wrong, {gained} wrong called right, {1000 * spent:.2f} ms each"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("solutions", type=Path)
    args = parser.parse_args()
    table: list[Row] = [row for row in GROUPING + LATEX + VALUES + PLACES if row[2] is not None]
    solutions = list[Row]()
    for line in args.solutions.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        solutions += [
            (one["solution"], row["ground_truth"], one["is_correct"]) for one in row.values() if isinstance(one, dict)
        ]
    for name, rows in (("by hand", table), ("GSM8K", solutions)):
        print(f"{name}, ours:        {told(number, rows)}")
        print(f"{name}, math-verify: {told(library, rows)}")


if __name__ == "__main__":
    main()
