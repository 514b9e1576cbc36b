"""Rows with several turns, as in MT-Bench (on the Hub and in its own file) and Spec-Bench."""

from __future__ import annotations

from typing import Any

from judge_decoding.errors import RowError
from judge_decoding.tasks.base import Item, text_of

MT_BENCH = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
"""MT-Bench's categories; Spec-Bench contains all their questions."""


def conversation(row: Any) -> Item:  # noqa: ANN401  (any JSON value)
    """The item of a row, with the references of all turns in one text; raises RowError.

    A row has ``question_id`` (on the Hub ``prompt_id``), ``category``, ``turns`` (``prompt``), and optionally
    ``reference``, one per turn: a text, or several acceptable texts.
    """
    category = text_of(row, "category")
    key = row.get("question_id", row.get("prompt_id"))
    if isinstance(key, bool) or not isinstance(key, int | str) or key == "":
        raise RowError("has no question_id")
    field = "turns" if "turns" in row else "prompt"
    turns = _texts(row.get(field), field)
    if not turns or not all(turn.strip() for turn in turns):
        raise RowError(f"has no text, or an empty one, in its field {field}")
    given = row.get("reference") or []
    if isinstance(given, list):
        given = ["; or: ".join(_texts(one, "reference")) if isinstance(one, list) else one for one in given]
    references = _texts(given, "reference")
    if len(references) > 1:
        references = [f"To turn {number}:\n{text}" if text else "" for number, text in enumerate(references, start=1)]
    return Item(str(key), tuple(turns), "\n\n".join(filter(None, references)), category)


def _texts(value: Any, field: str) -> list[str]:  # noqa: ANN401  (any JSON value)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise RowError(f"has no list of texts in its field {field}")
    return value
