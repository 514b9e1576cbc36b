"""Hold the checker to the human references: how many it passes, and which ones to read.

    python recipes/smollm2_e2e/check_references.py e2e_devel.csv e2e_test_a.csv --draw 60 --out drawn.jsonl

A reference that the checker rejects is either wrong itself or a mistake of the checker; only reading tells which. So
``--draw`` takes some of the rejected ones at random, and as many of those that pass.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from judge_decoding.io.files import write_text
from judge_decoding.tasks.e2e import find_errors


def checked(mr: str, text: str) -> dict[str, Any]:
    """A reference with the errors that the checker finds: kind, slot and words."""
    errors = [[one.kind, one.slot, text[one.start : one.end]] for one in find_errors(mr, text)]
    return {"mr": mr, "text": text, "errors": errors}


def read(path: Path) -> list[dict[str, Any]]:
    """All references of a file, checked."""
    with path.open(encoding="utf-8", newline="") as file:
        return [checked(row["mr"], row["ref"]) for row in csv.DictReader(file)]


def draw(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` rejected references and as many that pass, at random."""
    parts = [row for row in rows if row["errors"]], [row for row in rows if not row["errors"]]
    for part in parts:
        random.Random(seed).shuffle(part)
    return [row for part in parts for row in part[:count]]


def main() -> None:
    """Print the figures, and write the references to read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("references", type=Path, nargs="+", help="CSV files with mr and ref")
    parser.add_argument("--draw", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    try:
        files = {path: read(path) for path in args.references}
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"this is no CSV file with the columns mr and ref: {error!r}")
    for path, rows in files.items():
        passed = sum(not row["errors"] for row in rows)
        print(f"{path.name}: {passed} of {len(rows)} references pass, {passed / len(rows):.1%}")
    every = [row for rows in files.values() for row in rows]
    kinds = Counter((kind, slot) for row in every for kind, slot, _ in row["errors"])
    print(*(f"{count:5} {kind} {slot}" for (kind, slot), count in kinds.most_common()), sep="\n")
    if args.out:
        drawn = draw(every, args.draw, args.seed)
        write_text(args.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in drawn))


if __name__ == "__main__":
    main()
