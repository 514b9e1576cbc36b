"""Dividing a data set and putting several together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from judge_decoding.bounds import check_bound
from judge_decoding.data.cases import Case
from judge_decoding.data.leaks import relatives, same_question
from judge_decoding.errors import JudgeDecodingError

OnConflict = Literal["first", "drop", "keep"]
"""What becomes of cases with the same answer and other verdicts: the first stays, none does, or all do."""


def split(cases: Sequence[Case], shares: Mapping[str, float], seed: int = 0) -> dict[str, list[Case]]:
    """Divide cases by question into parts of about these ``shares``.

    A question's part depends on its text and ``seed`` alone, so it keeps it when cases are added. Questions that would
    give each other away (`leaks`) are in one part, that of the shortest: they differ in case and space only, or one is
    inside the other.

    Raises:
        JudgeDecodingError: the shares are not positive or do not sum to 1, or a part comes out empty.
    """
    if not shares or min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        given = ", ".join(f"{share:g}" for share in shares.values())
        raise JudgeDecodingError(f"The shares are {given or 'missing'}; they must be above 0 and sum to 1.")
    parts: dict[str, list[Case]] = {name: [] for name in shares}
    shortest = relatives(case.question for case in cases)
    for case in cases:
        place = place_of(shortest[same_question(case.question)], seed)
        # The last part takes what rounding leaves.
        ends = zip(shares, accumulate(shares.values()), strict=True)
        parts[next((name for name, end in ends if place < end), list(shares)[-1])].append(case)
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise JudgeDecodingError(
            f"{empty[0]} would have no case: there are {len(set(shortest.values()))} different questions; "
            "give it a larger share, add cases, or take another seed."
        )
    return parts


def place_of(question: str, seed: int | str = 0) -> float:
    """Where a question stands between 0 and 1, by a hash of its text, case and space apart; others for another seed."""
    digest = hashlib.sha256(f"{seed} {same_question(question)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, slots=True)
class Merged:
    """Cases put together.

    Attributes:
        cases: what stays.
        duplicates: how many were there already, with the same verdict.
        conflicts: the cases of each answer that has several verdicts.
    """

    cases: list[Case]
    duplicates: int
    conflicts: list[list[Case]]


def merge(cases: Sequence[Case], on_conflict: OnConflict = "first") -> Merged:
    """Put cases together: the same answer to the same question once.

    Answers that are known to be wrong but not located give way to any label. With ``keep`` each annotator's labels
    stay, as their agreement is measured by them.
    """
    groups: dict[object, dict[object, Case]] = {}
    copies = 0
    for case in sorted(cases, key=lambda case: not case.located):
        # Of a whole answer the text tells which it is; where only some tokens are judged, they do.
        ids = None if case.judged is None else case.token_ids
        group = groups.setdefault((case.question, case.answer, case.judged, ids), {})
        if not case.located and group:
            copies += 1
            continue
        key: object = (case.errors, case.ended)
        if on_conflict == "keep":
            key = (key, case.annotator, case.source)
        copies += key in group
        group.setdefault(key, case)
    merged, conflicts = [], []
    for group in groups.values():
        labels = list(group.values())
        if len({(case.errors, case.ended) for case in labels}) > 1:
            conflicts.append(labels)
            labels = {"first": labels[:1], "drop": [], "keep": labels}[on_conflict]
        merged += labels
    return Merged(merged, copies, conflicts)


def rethreshold(cases: Sequence[Case], threshold: float) -> list[Case]:
    """The same cases with another threshold on their scores: above it is correct, else the judged part is wrong.

    Raises:
        JudgeDecodingError: a case has no score, or no judged part, or the threshold is not finite.
    """
    check_bound("threshold", threshold)
    for case in cases:
        if case.score is None or not case.judged:
            raise JudgeDecodingError(
                f"The answer to {case.question[:40]!r} has no score, or does not say which part it is of; only labels "
                "by likelihood can have another threshold."
            )
    return [
        case.model_copy(update={"errors": () if case.score > threshold else case.judged})  # type: ignore[operator]  # checked
        for case in cases
    ]
