"""Divide the E2E NLG data: what trains the target, the draft and the head, what calibrates, and what tests.

The meaning representations of the development set train the target; those of the test set are divided by a seed: 436
test, 100 calibrate, and the other 400 train the draft, by another system's texts, and the head.

Nearly all places of the development set are coffee shops, while the test set has pubs and restaurants. Both training
files therefore have every text once more with other values in it and in its meaning representation.

    python recipes/smollm2_e2e/data.py --devel e2e_devel.csv --test e2e_test_a.csv \
        --systems e2e_system_outputs.jsonl --out data
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from judge_decoding.io.files import write_json, write_text
from judge_decoding.tasks.e2e import find_errors, read_facts
from judge_decoding.tasks.e2e_facts import Slot

TEST, CALIBRATION, REFERENCES = 436, 100, 2
SWAPPED: tuple[Slot, ...] = ("name", "eatType", "food", "near")
"""Slots whose values stand in texts word for word."""
DRAFT_SWAPS = 3
"""Swapped texts of the draft for each of TGen's."""


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


def values(mrs: Iterable[str]) -> dict[Slot, list[str]]:
    """The values of each slot that is swapped."""
    found: dict[Slot, set[str]] = {slot: set() for slot in SWAPPED}
    for mr in mrs:
        facts = read_facts(mr)
        for slot in SWAPPED:
            found[slot].update(facts.get(slot, ()))
    return {slot: sorted(known) for slot, known in found.items()}


def swap(text: str, old: str, new: str) -> str:
    """Replace a value in a text, with the article that fits it; the same text if the value is not there."""
    article = "an" if new[0].lower() in "aeiou" else "a"
    text = re.sub(rf"\b(a)n? (?={re.escape(old)}\b)", article + " ", text, flags=re.IGNORECASE)
    text = re.sub(rf"\b{re.escape(old)}\b", new, text, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:]


def swapped(
    rows: Iterable[Mapping[str, str]], known: Mapping[Slot, Sequence[str]], held_out: Collection[str], seed: int
) -> list[dict[str, str]]:
    """Each row with other values, where the text is still right for its new meaning representation.

    Rows of one meaning representation get the same new one, and none gets one of ``held_out``.
    """
    rng, plans, found = random.Random(seed), dict[str, dict[str, str]](), list[dict[str, str]]()
    for row in rows:
        mr, text = row["mr"], row["text"]
        if mr not in plans:
            plans[mr] = {f"{slot}[{old}]": rng.choice(known[slot])
                         for slot, all_old in read_facts(mr).items() if slot in known for old in all_old}  # fmt: skip
        for fact, new in plans[mr].items():
            slot, old = fact.removesuffix("]").split("[", 1)
            mr = mr.replace(fact, f"{slot}[{new}]")
            text = swap(text, old, new.lower() if new == "Fast food" else new)
        text = re.sub(r"\bfast food food\b", "fast food", re.sub(r"\bthe The\b", "The", text), flags=re.IGNORECASE)
        if mr not in held_out and mr != row["mr"] and not find_errors(mr, text):
            found.append({"mr": mr, "text": text})
    return found


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
    known = values([*(row["mr"] for row in devel), *parts["fit"]])
    held_out = {*parts["test"], *parts["calibration"]}
    write(args.out / "target.jsonl", [*right, *swapped(right, known, held_out, seed=0)])
    systems = [json.loads(line) for line in args.systems.read_text(encoding="utf-8").splitlines()]
    texts = draft_texts(right, systems, set(parts["fit"]))
    more = [row for seed in range(DRAFT_SWAPS) for row in swapped(texts, known, held_out, seed)]
    write(args.out / "draft.jsonl", [*texts, *more])
    counts = {name: len(part) for name, part in parts.items()}
    print(f"{len({row['mr'] for row in devel})} meaning representations to train on, {counts} -> {args.out}")


if __name__ == "__main__":
    main()
