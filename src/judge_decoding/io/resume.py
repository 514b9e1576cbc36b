"""Resumable long work: its results so far are kept beside the output, so it can stop at any moment and continue."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import cannot_write, end_line, lines, parse_json
from judge_decoding.io.inputs import DOCUMENT, MOST, reading

ResultKeyT = TypeVar("ResultKeyT", bound=Hashable)
ResultT = TypeVar("ResultT")


class Unfinished(Generic[ResultKeyT, ResultT]):
    """Results in ``<output>.part``, one per line, after a line with the settings; a kill loses at most the last one.

    The file is created with the first result: a start that fails earlier leaves nothing behind. The settings must not
    change between runs. Each kind of work is a subclass that defines ``row``.

    Attributes:
        row: the types of a key and its result, which read and write the lines.
        suffix: appended to the output's name; if empty, the results are kept in the output itself.
        replaces: whether results of other settings, or of another version, are replaced; otherwise they are refused.
        done: the results so far.
    """

    row: TypeAdapter[tuple[ResultKeyT, ResultT]]
    suffix = ".part"
    replaces = False

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.output, self.part, self.settings = output, output.with_name(output.name + self.suffix), settings
        self.done: dict[ResultKeyT, ResultT] = {}
        self._begun = False
        first = _line({"settings": settings})
        if self.part.exists() and not self._holds_only(first):
            self._load()
        else:
            self.part.unlink(missing_ok=True)  # it contains only a piece of the settings

    def _holds_only(self, first: bytes) -> bool:
        """Whether the part file contains only its first line, or a piece of it, after a kill."""
        with reading(self.part, "the unfinished file", MOST) as file:
            return first.startswith(file.read(len(first) + 1))

    def _load(self) -> None:
        rows = [line for _, line in lines(self.part, "the unfinished file", lambda _: None, longest=DOCUMENT)]
        try:
            begun = dict(parse_json(rows[0])["settings"])
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise _other_work(self.part) from error
        if self.replaces and begun != self.settings:
            return  # until the first result, which replaces the file
        try:
            for line in rows[1:]:
                self._load_row(line)
        except (ValueError, KeyError, TypeError) as error:
            self.done.clear()
            if self.replaces:
                return
            raise _other_work(self.part) from error
        if begun != self.settings:
            if len(rows) > 1:
                raise other_settings(self.part, begun, self.settings)
            self.part.unlink()
            return
        self._begun = True
        with self.part.open("ab+") as file:
            end_line(file)

    def _load_row(self, line: str) -> None:
        try:
            found = parse_json(line)
        except ValueError:
            return  # cut off by a stop: this result is computed again
        if "wrote" not in found:
            key, result = self.row.validate_python((found["key"], found["result"]))
            self.done[key] = result

    def add(self, key: ResultKeyT, result: ResultT) -> None:
        """Save a result."""
        saved_key, saved = self.row.dump_python((key, result), mode="json", exclude_defaults=True, warnings="error")
        self._append({"key": saved_key, "result": saved})
        self.done[key] = result

    def will_write(self, path: Path) -> None:
        """Record that ``path``, which is not the output, also belongs to this work; see `written_before`."""
        self._append({"wrote": str(path.absolute())})

    def _append(self, row: dict[str, Any]) -> None:
        try:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            with self.part.open("ab" if self._begun else "wb") as file:
                file.write(_line(row) if self._begun else _line({"settings": self.settings}) + _line(row))
        except OSError as error:
            raise cannot_write(self.part, error) from error
        self._begun = True


def written_before(part: Path) -> list[Path]:
    """Return the other files that a stopped run with this part file has written, so that the next may replace them."""
    if not part.exists():
        return []
    found = lines(part, "the unfinished file", lambda _: None, longest=DOCUMENT)
    rows = (line for _, line in found if line.startswith('{"wrote": '))
    return [Path(parse_json(row)["wrote"]) for row in rows]


def _line(row: dict[str, Any]) -> bytes:
    # Lone surrogates, which a model's JSON may contain, cannot be encoded as UTF-8.
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def other_settings(path: Path, begun: Mapping[str, Any], settings: Mapping[str, Any]) -> JudgeDecodingError:
    """The error for unfinished work in ``path`` that was ``begun`` with other settings; it names the first of them."""
    if begun.keys() != settings.keys():
        return _other_work(path)
    name = next(name for name in begun if begun[name] != settings[name])
    return JudgeDecodingError(
        f"{path} was started with {name} {begun[name]}, not {settings[name]}; resume with that, or remove the "
        "file to start over."
    )


def _other_work(path: Path) -> JudgeDecodingError:
    return JudgeDecodingError(
        f"{path} is not unfinished work of this command in this version; remove it to start over."
    )
