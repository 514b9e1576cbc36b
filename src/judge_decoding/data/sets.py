"""Split and merge data sets."""

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
"""How to resolve cases with the same answer and different verdicts: keep the first, drop all, or keep all."""


def split(cases: Sequence[Case], shares: Mapping[str, float], seed: int = 0) -> dict[str, list[Case]]:
    """Split cases by question into parts of about these ``shares``.

    Questions that leak each other (`leaks`) go to one part, that of the shortest: they differ only in case and white
    space, or one contains the other. A part depends only on the shortest question's text and ``seed``, so it changes
    only when a shorter question inside it is added.
    """
    if not shares or min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        given = ", ".join(f"{share:g}" for share in shares.values())
        raise JudgeDecodingError(f"The shares are {given or 'missing'}; they must be above 0 and sum to 1.")
    parts: dict[str, list[Case]] = {name: [] for name in shares}
    shortest = relatives(case.question for case in cases)
    for case in cases:
        place = split_position(shortest[same_question(case.question)], seed)
        # The last part absorbs the rounding error.
        ends = zip(shares, accumulate(shares.values()), strict=True)
        parts[next((name for name, end in ends if place < end), list(shares)[-1])].append(case)
    empty = [name for name, part in parts.items() if not part]
    if empty:
        raise JudgeDecodingError(
            f"{empty[0]} would have no case: there are {len(set(shortest.values()))} different questions; "
            "give it a larger share, add cases, or use another seed."
        )
    return parts


def split_position(question: str, seed: int | str = 0) -> float:
    """Hash a question and the seed to a number between 0 and 1, ignoring case and white space."""
    digest = hashlib.sha256(f"{seed} {same_question(question)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True, slots=True)
class Merged:
    """The cases that remain, the number of removed copies, and the cases of each answer that has several verdicts."""

    cases: list[Case]
    duplicates: int
    conflicts: list[list[Case]]


def merge(cases: Sequence[Case], on_conflict: OnConflict = "first") -> Merged:
    """Merge cases, keeping the same answer to the same question only once.

    Any label replaces an answer that is known to be wrong but not located. With ``keep`` the labels of every annotator
    are kept, so that agreement can be measured.
    """
    groups: dict[object, dict[object, Case]] = {}
    copies = 0
    for case in sorted(cases, key=lambda case: not case.located):
        # The text identifies a fully judged answer; if only some tokens are judged, the token ids identify it.
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
    """Apply another threshold to the scores of cases: above it is correct, otherwise the judged part is wrong."""
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
