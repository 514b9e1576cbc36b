"""Label Studio (https://labelstud.io), JSON export: the answer is a text with ``ERROR`` labels on it.

Each annotation of a task is a case. The project's labelling configuration::

    <View><Text name="question" value="$question"/>
    <Labels name="error" toName="answer"><Label value="ERROR"/></Labels>
    <Text name="answer" value="$answer"/></View>
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from judge_decoding.data.cases import Case
from judge_decoding.errors import RowError
from judge_decoding.labelling.formats.base import Foreign, Format, json_rows

LABEL = "ERROR"


class _Value(Foreign):
    start: int
    end: int
    text: str | None = None
    labels: tuple[str, ...] = ()


class _Result(Foreign):
    type: str = ""
    value: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies defaults)


class _Annotation(Foreign):
    result: tuple[_Result, ...] = ()
    completed_by: int | str | dict[str, Any] | None = None
    lead_time: float | None = None
    was_cancelled: bool = False


class _LabelStudioRow(Foreign):
    data: dict[str, Any]
    annotations: tuple[_Annotation, ...] = ()


def _make(row: _LabelStudioRow) -> list[Case]:
    known = {name: value for name, value in row.data.items() if name in Case.model_fields and name != "errors"}
    known.setdefault("source", "label-studio")
    answer = str(known.get("answer", ""))
    cases = []
    for annotation in row.annotations:
        if annotation.was_cancelled:
            continue
        values = [_Value.model_validate(one.value) for one in annotation.result if one.type == "labels"]
        more: dict[str, Any] = {"errors": [_span(answer, value) for value in values if LABEL in value.labels]}
        if annotation.completed_by is not None:
            more["annotator"] = _name(annotation.completed_by)
        if annotation.lead_time is not None:
            more["seconds"] = annotation.lead_time
        cases.append(Case.model_validate(known | more))
    if not cases:
        raise RowError("has no finished annotation")
    return cases


def _span(answer: str, value: _Value) -> tuple[int, int]:
    """The span in characters. A browser counts some characters twice, such as emoji; the text shows which."""
    if value.text is None or answer[value.start : value.end] == value.text:
        return value.start, value.end
    units = answer.encode("utf-16-le")
    start = len(units[: 2 * value.start].decode("utf-16-le", "replace"))
    end = start + len(value.text)
    if answer[start:end] != value.text:
        raise RowError(f"has a label on {value.text!r}, which is not at that place in the answer")
    return start, end


def _name(completed_by: int | str | dict[str, Any]) -> str:
    if isinstance(completed_by, dict):
        return str(completed_by.get("email", completed_by.get("id", "")))
    return str(completed_by)


def _write(cases: Sequence[Case]) -> str:
    rows = []
    for number, case in enumerate(cases, start=1):
        data = case.model_dump(mode="json", exclude_defaults=True, exclude={"errors", "seconds"})
        result = [
            {
                "id": f"{number}-{place}",
                "type": "labels",
                "from_name": "error",
                "to_name": "answer",
                "value": {"start": start, "end": end, "text": case.answer[start:end], "labels": [LABEL]},
            }
            for place, (start, end) in enumerate(case.errors)
        ]
        annotation: dict[str, Any] = {"result": result}
        if case.seconds is not None:
            annotation["lead_time"] = case.seconds
        rows.append({"data": data | {"source": case.source}, "annotations": [annotation]})
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


LABEL_STUDIO = Format("label-studio", lambda path, on_bad: json_rows(path, on_bad, _LabelStudioRow, _make), _write)
