"""The one place that opens files for reading: regular ones of a bounded size. Nothing hangs or fills the memory.

A pipe that this process was given open, such as ``/dev/stdin`` or what a shell makes of ``<(command)``, is read, too,
as long as it says something.
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
"""Most bytes of a file that is read line by line."""
DOCUMENT = 2**28
"""Most bytes of a file that is read as one whole."""
LINE = 2**23
"""Most bytes of a line with a case or a question: more than the longest contexts hold."""
LINES = 10**7
"""Most lines of a file."""
SILENCE = 60.0
"""Seconds that a pipe may say nothing."""

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_READ_ELSEWHERE = {".bin", ".gguf", ".jinja", ".json", ".model", ".py", ".safetensors", ".txt"}
"""What other libraries read of a model's folder."""
_WEIGHTS = {".bin", ".gguf", ".safetensors"}


@contextmanager
def reading(path: Path, what: str, most: int = DOCUMENT) -> Iterator[io.BufferedReader]:
    """Open a file to read it; ``what`` names it in the error.

    A pipe or a file that grows can have more than ``most`` bytes all the same; who reads must count.

    Raises:
        JudgeDecodingError: it is no regular file, it has more than ``most`` bytes, or it cannot be read.
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
    """Open what may have become a pipe by now: without waiting for its writer."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


class _Pipe(io.FileIO):
    """An open pipe that does not keep silent for ever."""

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  (any buffer)
        if not select.select([self], [], [], SILENCE)[0]:
            raise TimeoutError(errno.ETIMEDOUT, f"nothing has come through it for {SILENCE:.0f} seconds")
        return super().readinto(buffer)


def descriptor(path: Path) -> int | None:
    """The number of the open descriptor that ``path`` names, as ``/dev/stdout`` and links to it do."""
    place = path.absolute()
    for _ in range(40):  # as many links as Linux follows
        if match := _DESCRIPTOR.fullmatch(str(place)):
            return int(match[1])
        if not place.is_symlink():
            return None
        place = place.parent / place.readlink()
    return None


def check_folder(folder: Path, what: str) -> None:
    """Check what other libraries read right in ``folder``: regular files, and texts of a size that texts have.

    Raises:
        JudgeDecodingError: something is not; ``what`` names it in the error.
    """
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
    return cannot_read(path, what, f"it is a {kind} and no file; name a file")


def too_large(path: Path, what: str, most: int) -> JudgeDecodingError:
    """The sentence about a file with more than ``most`` bytes."""
    return cannot_read(path, what, f"it has more than {most / 2**20:,.0f} MiB; divide it")


def cannot_read(path: Path, what: str, reason: str) -> JudgeDecodingError:
    """The sentence about a file that cannot be read."""
    return JudgeDecodingError(f"Cannot read {what} {path}: {reason}.")
