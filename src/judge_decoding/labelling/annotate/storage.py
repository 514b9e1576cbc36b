"""An annotator's decisions, one line per event, append-only: a kill at any moment loses nothing saved."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from getpass import getuser
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import cannot_write, first_problem, read_bytes
from judge_decoding.io.locks import lock

PREFIX = "decisions-"
ALL_READINGS = "target*.jsonl"
"""The files with the target's readings of the answers, one per user."""


class Event(BaseModel):
    """One action of an annotator.

    Attributes:
        action: "label" decides a case, "skip" sets it aside, "undo" reverts the latest event that is still in effect,
            "reopen" returns all skipped cases to the queue.
        case: `case_id` of the answer; empty for undo and reopen.
        errors: character spans ``[start, end)`` of the answer that are wrong, as in `Case`.
        repeat: whether the annotator had decided this case before; the two decisions measure self-agreement.
        seconds: time the person looked at the case.
        annotator: the annotator's name.
        at: when it was saved, UTC, ISO 8601.
        key: made by the page, so that an event sent twice is saved once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["label", "skip", "undo", "reopen"]
    case: str = ""
    errors: tuple[tuple[int, int], ...] = ()
    repeat: bool = False
    seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    annotator: str
    at: str = ""
    key: str = ""


class DecisionLog:
    """The decisions file of one annotator, open for appending; no other process can have it open meanwhile.

    Attributes:
        path: the file.
        events: all events in it, oldest first.
        repaired: whether a half-written last line was found and removed.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            JudgeDecodingError: it cannot be written, is in use, or a line other than the last is broken.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            if not lock(self._file):
                raise JudgeDecodingError(
                    f"{path} is in use by another annotation server; continue there, or give another --annotator."
                )
            content = read_bytes(path, "the decisions")
            self.events, whole = _parse(path, content)
            self.repaired = whole < len(content)
            if self.repaired:
                os.ftruncate(self._file, whole)
            elif content and not content.endswith(b"\n"):
                self._write(b"\n")
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, so that another server can open it."""
        os.close(self._file)

    def append(self, event: Event) -> None:
        """Save an event; when this returns, the event is on the disk.

        Raises:
            JudgeDecodingError: the disk is full or gone; no part of the event is left in the file.
        """
        size = os.fstat(self._file).st_size
        try:
            self._write((event.model_dump_json(exclude_defaults=True) + "\n").encode())
        except OSError as error:
            os.ftruncate(self._file, size)
            raise JudgeDecodingError(f"Cannot write {self.path}: {error.strerror}; make room and try again.") from error
        self.events.append(event)

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)


def decisions_path(folder: Path, annotator: str) -> Path:
    """The path of the decisions of ``annotator`` in ``folder``."""
    return folder / f"{PREFIX}{annotator}.jsonl"


def cases_path(folder: Path, annotator: str) -> Path:
    """The path of the cases that ``annotator`` has decided in ``folder``."""
    return folder / f"cases-{annotator}.jsonl"


def readings_path(folder: Path) -> Path:
    """The path of this user's file of the target's readings in ``folder``."""
    return folder / f"target-{_user()}.jsonl"


def token_path(folder: Path) -> Path:
    """The path of the token for this user's page in ``folder``."""
    return folder / f"token-{_user()}"


def _user() -> str:
    # If several users share the folder, they cannot write each other's files.
    return str(os.getuid()) if sys.platform != "win32" else getuser()


def read_events(path: Path) -> list[Event]:
    """The events of a decisions file that another process may be writing: a half-written last line is left out.

    Raises:
        JudgeDecodingError: the file cannot be read, or a line other than the last is broken.
    """
    return _parse(path, read_bytes(path, "the decisions"))[0]


def _parse(path: Path, content: bytes) -> tuple[list[Event], int]:
    """The events, and their size in bytes, line ends included."""
    events: list[Event] = []
    whole = 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        unfinished = number == len(lines)
        if line.strip():
            try:
                events.append(Event.model_validate_json(line))
            except ValidationError as error:
                if unfinished:
                    break
                raise JudgeDecodingError(
                    f"{path}, line {number} is not a decision: {first_problem(error)}; correct or remove the line."
                ) from error
        whole += len(line) + (not unfinished)
    return events, whole


def standing(events: Sequence[Event]) -> tuple[list[Event], Event | None]:
    """The events that were not undone, and the last undone event if nothing was done since."""
    kept: list[Event] = []
    undone: Event | None = None
    for event in events:
        if event.action == "undo":
            undone = kept.pop() if kept else None
        else:
            kept.append(event)
            undone = None
    return kept, undone
