"""The TokenCourt file to which marked answers go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock

from judge_decoding.data.cases import Case, read_numbered
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import cannot_write, check_writable, end_line, read_bytes, replacing
from judge_decoding.io.inputs import MOST
from judge_decoding.io.locks import one_run

_PATIENCE = 2.0
"""Seconds to wait for another program that is writing the file."""


class CaseFile:
    """Adds cases to a file, and changes or removes those it has added; all other lines stay as they are.

    Args:
        path: the file; it is created with the first case.

    Raises:
        JudgeDecodingError: the file is there and has other things in it than cases, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_writable(path)
        if path.exists() and not path.is_file():
            raise JudgeDecodingError(
                f"{path} is not a regular file, and cases are added and changed in place; give a file."
            )
        if path.exists() and path.stat().st_size:
            read_numbered(path)
        self._lines: dict[str, bytes] = {}
        self._lock = Lock()

    def put(self, name: str, case: Case) -> None:
        """Add a case, or replace the case that was added under this name.

        Raises:
            JudgeDecodingError: the file cannot be written; it is as it was before.
        """
        line = case.model_dump_json(exclude_defaults=True).encode() + b"\n"
        with self._writing():
            old = self._lines.get(name)
            if old is None:
                self._append(line)
            else:
                self._replace(old, line)
            self._lines[name] = line

    def drop(self, name: str) -> None:
        """Remove the case that was added under this name, if there is one.

        Raises:
            JudgeDecodingError: the file cannot be written; it is as it was before.
        """
        with self._writing():
            if name in self._lines:
                self._replace(self._lines[name], b"")
                del self._lines[name]

    @property
    def count(self) -> int:
        """How many cases were added."""
        return len(self._lines)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Keep other threads and other runs from writing."""
        with self._lock, ExitStack() as held:
            end = time.monotonic() + _PATIENCE
            while True:
                try:
                    held.enter_context(one_run(self.path))
                    break
                except JudgeDecodingError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)
            yield

    def _append(self, line: bytes) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                end_line(file)
                file.write(line)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _replace(self, old: bytes, new: bytes) -> None:
        """Write the file anew, whole or not at all, with ``new`` in place of the last line that is ``old``."""
        lines = read_bytes(self.path, "the cases", MOST).splitlines(keepends=True) if self.path.exists() else []
        place = next((i for i in reversed(range(len(lines))) if lines[i] == old), None)
        if place is None:  # somebody else has changed or removed it
            lines.append(new)
        else:
            lines[place] = new
        with replacing(self.path) as temporary:
            temporary.write_bytes(b"".join(lines))
