"""The only module that opens files for reading: regular files of a bounded size, so that reads end and fit in memory.

Pipes that this process inherits, such as ``/dev/stdin`` or the shell's ``<(command)``, can be read too, as long as they
do not stay silent.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from judge_decoding.errors import JudgeDecodingError

MOST = 2**31
"""Maximum bytes of a file that is read line by line."""
DOCUMENT = 2**28
"""Maximum bytes of a file that is read as a whole."""
LINE = 2**23
"""Maximum bytes of a line with a case or a question: more than the longest contexts contain."""
LINES = 10**7
"""Maximum lines of a file."""
SILENCE = 60.0
"""Maximum seconds without data from a pipe."""

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_READ_ELSEWHERE = {".bin", ".gguf", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt"}
"""Suffixes of the files that other libraries read in a model's folder."""
_WEIGHTS = {".bin", ".gguf", ".safetensors"}


@contextmanager
def reading(path: Path, what: str, most: int = DOCUMENT) -> Iterator[io.BufferedReader]:
    """Open a file to read it; ``what`` names it in the error.

    A pipe or a growing file can still have more than ``most`` bytes; the caller must count.
    """
    try:
        with _opened(path, what) as file:
            if os.fstat(file.fileno()).st_size > most:
                raise too_large(path, what, most)
            yield file
    except OSError as error:
        raise cannot_read(path, what, f"{error.strerror}; check the path") from error


def _opened(path: Path, what: str) -> io.BufferedReader:
    number, mode = descriptor(path), path.stat().st_mode
    if number is not None and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return io.BufferedReader(_Pipe(os.dup(number)))
    if not stat.S_ISREG(mode):
        raise _no_file(path, what, mode)
    return io.BufferedReader(io.FileIO(path, opener=_at_once))


def _at_once(name: str, flags: int) -> int:
    """Open a path that may have become a pipe, without waiting for a writer."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


class _Pipe(io.FileIO):
    """An open pipe with a timeout for silence."""

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  (any buffer)
        if not select.select([self], [], [], SILENCE)[0]:
            raise TimeoutError(errno.ETIMEDOUT, f"nothing has come through it for {SILENCE:.0f} seconds")
        return super().readinto(buffer)


def descriptor(path: Path) -> int | None:
    """Return the number of the open descriptor that ``path`` names, such as ``/dev/stdout`` or a link to it."""
    place = path.absolute()
    for _ in range(40):  # as many links as Linux follows
        if match := _DESCRIPTOR.fullmatch(str(place)):
            return int(match[1])
        if not place.is_symlink():
            return None
        place = place.parent / place.readlink()
    return None


def check_folder(folder: Path, what: str) -> None:
    """Check the files that other libraries read in ``folder``: they are regular files, and texts have a sane size."""
    try:
        for path in folder.iterdir():
            if path.suffix not in _READ_ELSEWHERE or not path.exists() or path.is_dir():
                continue
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise _no_file(path, what, found.st_mode)
            if path.suffix not in _WEIGHTS and found.st_size > DOCUMENT:
                raise too_large(path, what, DOCUMENT)
    except OSError as error:
        raise cannot_read(folder, what, f"{error.strerror}; check the path") from error


def _no_file(path: Path, what: str, mode: int) -> JudgeDecodingError:
    kinds = {"folder": stat.S_ISDIR, "named pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK}
    kind = next((name for name, is_one in kinds.items() if is_one(mode)), "device")
    return cannot_read(path, what, f"it is a {kind} and no file; give a file")


def too_large(path: Path, what: str, most: int) -> JudgeDecodingError:
    """Return the error for a file with more than ``most`` bytes."""
    return cannot_read(path, what, f"it has more than {most / 2**20:,.0f} MiB; divide it")


def cannot_read(path: Path, what: str, reason: str) -> JudgeDecodingError:
    """Return the error for a file that cannot be read."""
    return JudgeDecodingError(f"Cannot read {what} {path}: {reason}.")
