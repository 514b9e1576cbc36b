"""Divide the E2E NLG data: what trains the target, the draft and the head, what calibrates, and what tests.

The meaning representations of the development set train the target; those of the test set are divided by a seed: 436
test, 100 calibrate, and the other 400 train the draft, by another system's texts, and the head.

    python recipes/smollm2_e2e/data.py --devel e2e_devel.csv --test e2e_test_a.csv \
        --systems e2e_system_outputs.jsonl --out data
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from judge_decoding.io.files import write_json, write_text
from judge_decoding.tasks.e2e import find_errors

TEST, CALIBRATION, REFERENCES = 436, 100, 2


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


def draft_texts(
    right: Sequence[Mapping[str, str]], systems: Iterable[Mapping[str, str]], fit: Collection[str]
) -> list[dict[str, str]]:
    """What the draft learns: TGen's texts for ``fit``, in other words than people's, and two references each."""
    found = [{"mr": one["mr"], "text": one["text"]} for one in systems if one["mr"] in fit and "tgen" in one["system"]]
    counts = Counter[str]()
    for row in right:
        counts[row["mr"]] += 1
        if counts[row["mr"]] <= REFERENCES:
            found.append(dict(row))
    return found


def write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as JSON lines."""
    write_text(path, "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))


def main() -> None:
    """Write ``split.json``, a file for each part, and the answers that the target and the draft learn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--devel", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--systems", type=Path, required=True, help="JSON lines of mr, text and system")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    devel, rows = read(args.devel), read(args.test)
    parts = divide(rows)
    write_json(args.out / "split.json", parts)
    for name, mrs in parts.items():
        known = set(mrs)
        write(args.out / f"{name}.jsonl", [{"mr": r["mr"], "ref": r["ref"]} for r in rows if r["mr"] in known])
    # About one reference in nine states a fact that its meaning representation lacks.
    right = [{"mr": row["mr"], "text": row["ref"]} for row in devel if not find_errors(row["mr"], row["ref"])]
    write(args.out / "target.jsonl", right)
    systems = [json.loads(line) for line in args.systems.read_text(encoding="utf-8").splitlines()]
    write(args.out / "draft.jsonl", draft_texts(right, systems, set(parts["fit"])))
    counts = {name: len(part) for name, part in parts.items()}
    print(f"{len({row['mr'] for row in devel})} meaning representations to train on, {counts} -> {args.out}")


if __name__ == "__main__":
    main()
