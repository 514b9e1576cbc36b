"""The order of the cases: the head's doubts first, a few repeats later, skipped ones only on request."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from judge_decoding.bounds import check_bound
from judge_decoding.labelling.annotate.storage import Event, standing

GAP = 20
"""Decisions between a case and its repeat; half the number of cases if there are fewer than twice as many."""


@dataclass(frozen=True, slots=True)
class QueuedCase:
    """A case to decide; ``repeat`` if it was decided before. ``earlier`` is the decision that was just undone."""

    case: str
    repeat: bool = False
    earlier: Event | None = None


@dataclass(frozen=True, slots=True)
class QueueProgress:
    """Turns done and in total (both with repeats), and cases skipped."""

    done: int
    total: int
    skipped: int


class Queue:
    """The order of one annotator's cases. It depends only on the arguments and the events, so it survives a kill.

    The cases with the highest ``uncertainty`` of the present head come first. Without it the order is random, but the
    same for all annotators, so that two who each do a part do the same part. ``repeats`` is the share of the cases that
    come twice; the annotator's name determines which.

    Raises:
        JudgeDecodingError: ``repeats`` is not a share.
    """

    def __init__(
        self,
        cases: Sequence[str],
        annotator: str,
        *,
        uncertainty: Mapping[str, float] | None = None,
        repeats: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_bound("repeats", repeats)
        doubts = uncertainty or {}
        self.order = sorted(cases, key=lambda case: (-doubts.get(case, 0.0), _chance(seed, "order", case)))
        self._known = frozenset(self.order)
        drawn = sorted(cases, key=lambda case: _chance(seed, "repeat", annotator, case))
        self.repeated = frozenset(drawn[: math.ceil(repeats * len(drawn))])
        self._gap = min(GAP, len(drawn) // 2)
        self._wait = {
            case: self._gap + int(_chance(seed, "wait", annotator, case) * (self._gap + 1)) for case in self.repeated
        }

    def next(self, events: Sequence[Event]) -> QueuedCase | None:
        """The next turn after ``events``, or None when all turns are done."""
        kept, undone = standing(events)
        if undone is not None and undone.case in self._known:
            return QueuedCase(undone.case, undone.repeat, undone)
        first, again, skipped = _decided(kept)
        now = len(kept)
        waiting = [case for case in first if case in self.repeated and case not in again]
        due = next((case for case in waiting if now - first[case] > self._wait[case]), None)
        if due is not None:
            return QueuedCase(due, repeat=True)
        fresh = next((case for case in self.order if case not in first and case not in skipped), None)
        if fresh is not None:
            return QueuedCase(fresh)
        return QueuedCase(waiting[0], repeat=True) if waiting else None

    def progress(self, events: Sequence[Event]) -> QueueProgress:
        """The annotator's progress. A skipped case is not repeated."""
        first, again, skipped = _decided(standing(events)[0])
        out = self._known & skipped
        done = len(self._known & first.keys()) + len(self.repeated & again) + len(out)
        return QueueProgress(done, len(self._known) + len(self.repeated - out), len(out))

    def open_cases(self, events: Sequence[Event]) -> frozenset[str]:
        """The cases the annotator has yet to decide, for the first time or again."""
        first, again, _ = _decided(standing(events)[0])
        return frozenset(case for case in self.order if case not in first or case in self.repeated - again)


def _decided(kept: Sequence[Event]) -> tuple[dict[str, int], set[str], set[str]]:
    """Cases decided (with the event index), decided again (or skipped the second time), and skipped at first."""
    first: dict[str, int] = {}
    again: set[str] = set()
    skipped: set[str] = set()
    for number, event in enumerate(kept):
        if event.action == "reopen":
            skipped.clear()
        elif event.repeat:
            again.add(event.case)
        elif event.action == "skip":
            skipped.add(event.case)
        else:
            first[event.case] = number
            skipped.discard(event.case)
    return first, again, skipped


def _chance(*parts: object) -> float:
    """A number in [0, 1) that is always the same for the same parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") / 2**64
