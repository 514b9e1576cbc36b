"""E2E NLG: express the facts about a restaurant in a sentence (Novikova et al., arXiv 1706.09254).

Many wordings are right, and a checker finds wrong, missing, invented and repeated facts. That is the situation a judge
is made for.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from judge_decoding.errors import RowError
from judge_decoding.io.files import read_text
from judge_decoding.io.questions import Rows
from judge_decoding.tasks.base import HubDataset, Item, Task, text_of
from judge_decoding.tasks.e2e_facts import Mention, Slot, mentions

INSTRUCTION = "Describe this place in one or two sentences. State every fact and add none."
"""The instruction, on the line before the facts."""

FactErrorKind = Literal["wrong", "invented", "missing", "doubled"]

_FACT = re.compile(r"([A-Za-z][A-Za-z ]*)\[([^\]]+)\]")
# Other values that also state a value correctly: £20-25 is a moderate price.
_ALSO: dict[tuple[Slot, str], tuple[str, ...]] = {
    ("priceRange", "cheap"): ("low", "fair"), ("priceRange", "less than £20"): ("low", "fair"),
    ("priceRange", "moderate"): ("fair",), ("priceRange", "£20-25"): ("moderate", "fair"),
    ("priceRange", "more than £30"): ("high",),
    ("customer rating", "1 out of 5"): ("1", "low"), ("customer rating", "low"): ("1",),
    ("customer rating", "3 out of 5"): ("3", "average"), ("customer rating", "average"): ("3",),
    ("customer rating", "5 out of 5"): ("5", "high", "good"), ("customer rating", "high"): ("5", "good"),
}  # fmt: skip
_VAGUE = ("good", "fair")
"""Vague values that are compatible with any other value, once that is stated."""
_REPEATABLE: tuple[Slot, ...] = ("name", "eatType", "food")
"""Slots whose words may be repeated in good prose: an English pub with English food."""


class FactError(NamedTuple):
    """An error in a description, and where it is; a missing fact is at the end of the text."""

    start: int
    end: int
    kind: FactErrorKind
    slot: Slot


def question(mr: str) -> str:
    """The user's message for a meaning representation."""
    return f"{INSTRUCTION}\n{mr}"


def read_facts(mr: str) -> dict[Slot, list[str]]:
    """The values of each slot of a meaning representation, such as ``name[Blue Spice], area[riverside]``.

    Raises RowError if it has no facts, or an unknown slot.
    """
    facts: dict[Slot, list[str]] = {}
    for slot, value in _FACT.findall(mr):
        if slot.strip() not in get_args(Slot):
            raise RowError(f"has the slot {slot.strip()}; the task knows {', '.join(get_args(Slot))}")
        facts.setdefault(slot.strip(), []).append(value.strip())
    if not facts:
        raise RowError("has no facts; write them as in name[Blue Spice], area[riverside]")
    return facts


def find_errors(mr: str, text: str) -> list[FactError]:
    """The errors in a description of ``mr``, by position; empty if every fact is stated correctly and no other is.

    If a slot has several values, stating one of them is enough.
    """
    facts, found = read_facts(mr), mentions(text)
    errors: list[FactError] = []
    for slot in get_args(Slot):
        errors += _errors(slot, facts.get(slot, []), [one for one in found if one.slot == slot], text)
    return sorted(errors)


def _errors(slot: Slot, values: list[str], found: list[Mention], text: str) -> list[FactError]:
    sure = [one for one in found if one.sure]
    if not values:
        return [FactError(one.start, one.end, "invented", slot) for one in sure]
    true = {also for value in values for also in (value, *_ALSO.get((slot, value), ()))}
    right = [one for one in found if one.value in true]
    wrong = [one for one in sure if one.value not in true and not (right and one.value in _VAGUE)]
    if slot == "eatType" and right:  # people also call a restaurant a coffee shop
        wrong = []
    errors = [FactError(one.start, one.end, "wrong", slot) for one in wrong]
    if not right and not wrong:
        errors.append(FactError(len(text), len(text), "missing", slot))
    if slot not in _REPEATABLE:
        words = [text[one.start : one.end].lower() for one in sure]
        again = [one for location, one in enumerate(sure) if one not in wrong and words[location] in words[:location]]
        errors += [FactError(one.start, one.end, "doubled", slot) for one in again]
    return errors


class E2E(Task):
    """An answer must state every fact correctly, and no others."""

    name = "e2e"
    source = HubDataset("tuetschek/e2e_nlg")
    max_new_tokens = 96

    def rows(self, data: Path | None, on_bad: Callable[[str], None]) -> Rows:
        """Return one row per meaning representation; the data repeats it with each of its references."""
        given = _csv_rows(data) if data is not None and data.suffix == ".csv" else super().rows(data, on_bad)
        seen = set[str]()
        for location, row in given:
            mr = row.get(_field(row)) if isinstance(row, Mapping) else None
            if not (isinstance(mr, str) and mr in seen):
                yield location, row
            if isinstance(mr, str):
                seen.add(mr)

    def item(self, row: Any, location: str) -> Item:  # noqa: ANN401  (any JSON value)
        """Read a row with ``mr`` and perhaps ``ref``; on the Hub ``meaning_representation`` and ``human_reference``."""
        mr = text_of(row, _field(row)).strip()
        read_facts(mr)
        reference = next((row[field] for field in ("ref", "human_reference") if row.get(field)), "")
        if not isinstance(reference, str):
            raise RowError("has a reference that is not text")
        return Item(mr, (question(mr),), reference)

    def check(self, item: Item, answer: str) -> bool | None:
        """Check the facts."""
        return not find_errors(item.key, answer)


def _field(row: Any) -> str:  # noqa: ANN401  (any JSON value)
    return "meaning_representation" if isinstance(row, Mapping) and "meaning_representation" in row else "mr"


def _csv_rows(path: Path) -> Rows:
    """The rows of a CSV file with a header, as the challenge publishes them."""
    reader = csv.DictReader(io.StringIO(read_text(path, "the meaning representations"), newline=""))
    return ((f"line {reader.line_num}", row) for row in reader)
