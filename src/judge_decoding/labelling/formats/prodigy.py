"""Prodigy (https://prodi.gy): the answer is the text, errors are spans; the rest of a case goes into ``meta``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from judge_decoding.data.cases import Case
from judge_decoding.errors import RowError
from judge_decoding.labelling.formats.base import Foreign, Format, json_line, json_rows

LABEL = "ERROR"


class _Span(Foreign):
    start: int
    end: int
    label: str = LABEL


class _ProdigyRow(Foreign):
    text: str
    spans: tuple[_Span, ...] = ()
    answer: str = "accept"
    meta: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies defaults)


def _make(row: _ProdigyRow) -> list[Case]:
    if row.answer != "accept":
        raise RowError(f"was not accepted by its annotator ({row.answer})")
    if "question" not in row.meta:
        raise RowError('has no question; a task needs it in "meta"')
    known = {name: value for name, value in row.meta.items() if name in Case.model_fields}
    known["errors"] = [(span.start, span.end) for span in row.spans if span.label == LABEL]
    known.setdefault("source", "prodigy")
    return [Case.model_validate(known | {"answer": row.text})]


def _write(cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        meta = case.model_dump(mode="json", exclude_defaults=True, exclude={"answer", "errors"})
        spans = [{"start": start, "end": end, "label": LABEL} for start, end in case.errors]
        meta["source"] = case.source
        rows.append(json_line({"text": case.answer, "spans": spans, "answer": "accept", "meta": meta}))
    return "".join(rows)


PRODIGY = Format("prodigy", lambda path, on_bad: json_rows(path, on_bad, _ProdigyRow, _make), _write)
