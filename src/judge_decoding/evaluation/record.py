"""The answers of an evaluation as they come, kept so that a stopped one goes on where it was."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from judge_decoding.court.unfinished import Unfinished
from judge_decoding.evaluation.trial import Answered

Key = tuple[str, str]
"""A method's name and an item's key."""


class Record(Unfinished):
    """The answers so far, in ``<output>.part``: a line each, behind a line with the settings.

    Attributes:
        known: what became of the items, by method and item.
        told: what else was kept of each.
    """

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.known: dict[Key, Answered] = {}
        self.told: dict[Key, Any] = {}
        super().__init__(output, settings)

    def take(self, row: Any) -> None:  # noqa: ANN401  (any JSON value)
        """Remember an answer."""
        key = row["method"], row["answered"]["item"]
        self.known[key], self.told[key] = Answered(**row["answered"]), row.get("told")

    def add(self, method: str, answered: Answered, told: Any = None) -> None:  # noqa: ANN401  (any JSON value)
        """An answer is there, with what else is to be kept of it."""
        key = method, answered.item
        self.known[key], self.told[key] = answered, told
        self.append({"method": method, "answered": asdict(answered), "told": told})
