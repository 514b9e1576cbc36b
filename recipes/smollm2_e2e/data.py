"""Divide the E2E NLG data: what trains the target, the draft and the head, what calibrates, and what tests.

The meaning representations of the development set train the two models; those of the test set are divided by a seed:
436 test, 100 calibrate, and the other 400 label drafts for the head.

    python recipes/smollm2_e2e/data.py --devel e2e_devel.csv --test e2e_test_a.csv --out data
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from judge_decoding.io.files import write_json, write_text

TEST, CALIBRATION = 436, 100


def read(path: Path) -> list[dict[str, str]]:
    """The rows of one of the challenge's files: ``mr`` and ``ref``."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def divide(rows: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """The meaning representations of the test set by what they are for; the same for the same rows."""
    mrs = sorted({row["mr"] for row in rows})
    random.Random(0).shuffle(mrs)
    parts = {
        "test": mrs[:TEST],
        "calibration": mrs[TEST : TEST + CALIBRATION],
        "fit": mrs[TEST + CALIBRATION :],
    }
    return {name: sorted(part) for name, part in parts.items()}


def begins_with_name(row: Mapping[str, str]) -> bool:
    """Whether a reference begins with the place's name: the style that the draft does not learn."""
    name = re.search(r"name\[([^\]]*)\]", row["mr"])
    text, start = (one.strip().lower().removeprefix("the ") for one in (row["ref"], name[1] if name else "\n"))
    return text.startswith(start)


def write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as JSON lines."""
    write_text(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))


def main() -> None:
    """Write ``split.json``, a file for each part, and the answers that the target and the draft learn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devel", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    devel, rows = read(args.devel), read(args.test)
    parts = divide(rows)
    write_json(args.out / "split.json", parts)
    for name, mrs in parts.items():
        known = set(mrs)
        write(args.out / f"{name}.jsonl", [{"mr": r["mr"], "ref": r["ref"]} for r in rows if r["mr"] in known])
    answers = [{"mr": row["mr"], "text": row["ref"]} for row in devel]
    write(args.out / "target.jsonl", answers)
    write(args.out / "draft.jsonl", [a for a, r in zip(answers, devel, strict=True) if not begins_with_name(r)])
    counts = {name: len(part) for name, part in parts.items()}
    print(f"{len({row['mr'] for row in devel})} meaning representations to train on, {counts} -> {args.out}")


if __name__ == "__main__":
    main()
