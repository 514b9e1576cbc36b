"""CSV with the columns question, answer and error, which quotes the wrong words; empty for a right answer.

A column ``occurrence`` gives the number of the occurrence if the answer contains the words more than once. ``source``,
``writer`` and ``annotator`` are read too. Semicolons and tabs, which spreadsheets write, also count as commas.

Spreadsheets treat a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break as a formula, which can
access other files. Such a cell is written with an apostrophe added at its start, which is removed when it is read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError, RowError
from judge_decoding.io.files import read_bytes
from judge_decoding.labelling.formats.base import Format, OnBad

END = "<end>"
"""Quoted instead of words if the answer should not have ended."""

_FORMULA = re.compile(r"'*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")  # full-width signs count too
_NEEDED = ("question", "answer", "error")
_MORE = ("source", "writer", "annotator")


def _rows(path: Path, on_bad: OnBad) -> Iterator[tuple[str, Callable[[], list[Case]]]]:
    # A line in another encoding must not make the other lines unreadable.
    text = read_bytes(path, "the file").decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
        if missing:
            raise JudgeDecodingError(
                f"{path} has no column {missing[0]}; its first line must contain question, answer and error."
            )
        for row in reader:
            yield f"line {reader.line_num}", partial(_cases, row)
    except csv.Error as error:
        on_bad(f"{path}, line {reader.reader.line_num} is not CSV: {error}; correct it; the rest was not read.")


def _cases(row: dict[str, str]) -> list[Case]:
    if any(row.get(name) is None for name in _NEEDED) or None in row:
        raise RowError("has a different number of columns than the first line; quote texts that hold the separator")
    if any("\udc80" <= letter <= "\udcff" for value in row.values() for letter in value or ""):
        raise RowError("is not UTF-8 text; convert it first")
    row = {name: _unescaped(cell or "") for name, cell in row.items()}
    answer, quote = row["answer"], row["error"]
    errors: tuple[tuple[int, int], ...] = ()
    if quote:
        start = _find(answer, quote, row.get("occurrence") or "")
        errors = ((start, start + (len(quote) if answer[start:] else 0)),)
    more = {name: row[name] for name in _MORE if row.get(name)}
    found = {"source": "csv", **more, "question": row["question"], "answer": answer, "errors": errors}
    return [Case.model_validate(found)]


def _escaped(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _unescaped(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _find(answer: str, quote: str, occurrence: str) -> int:
    """The start of the requested occurrence of ``quote``."""
    if quote == END and (occurrence == "end" or END not in answer):
        return len(answer)
    starts = _starts(answer, quote)
    if not starts:
        raise RowError(f"quotes {quote!r}, which is not in its answer; quote it verbatim")
    if not occurrence:
        if len(starts) > 1:
            raise RowError(
                f"quotes {quote!r}, which its answer has {len(starts)} times; quote more of it, or add a column "
                "occurrence"
            )
        return starts[0]
    if not occurrence.isdecimal() or not 1 <= int(occurrence) <= len(starts):
        raise RowError(f"has occurrence {occurrence!r} of {quote!r}; it must be a number from 1 to {len(starts)}")
    return starts[int(occurrence) - 1]


def _starts(answer: str, quote: str) -> list[int]:
    return [i for i in range(len(answer)) if answer.startswith(quote, i)]


def _write(cases: Sequence[Case]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, [*_NEEDED, "occurrence", *_MORE], quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        row = {"question": case.question, "answer": case.answer, "error": "", "occurrence": ""}
        if case.errors:
            start, end = min(case.errors)
            quote = case.answer[start:end] or case.answer[start : start + 1] or END
            row["error"] = quote
            starts = _starts(case.answer, quote)
            if start == len(case.answer):
                row["occurrence"] = "end"
            elif len(starts) > 1 or quote == END:
                row["occurrence"] = str(starts.index(start) + 1)
        row |= {name: getattr(case, name) for name in _MORE}
        writer.writerow({name: _escaped(cell) for name, cell in row.items()})
    return file.getvalue()


QUOTES = Format("csv", _rows, _write)
