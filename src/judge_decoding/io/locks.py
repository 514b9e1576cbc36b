"""One run at an output: the second one is told who is there, and nothing of the two is mixed.

The system keeps the lock, on a descriptor of the file ``<output>.lock``, and drops it when the process ends, however it
ends: a file that was left behind locks nothing. On disks without locks, as on some networks, and on Windows, nobody is
kept away.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from platform import node

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import cannot_write, folder_of
from judge_decoding.visible import one_line

if sys.platform != "win32":
    import fcntl

_TOLD = 200
"""Bytes that are read of a lock file."""


@contextmanager
def one_run(output: Path) -> Iterator[None]:
    """Keep every other run away from ``output``, a file or a folder, while the block runs.

    Raises:
        JudgeDecodingError: another run is there, in this process or in another one, or the place cannot be written.
    """
    real = Path(os.path.realpath(output))
    path = real.with_name(f"{real.name}.lock")
    with folder_of(output):
        try:
            file = _locked(path, output)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            yield
        finally:
            # Before it is unlocked, so that nobody gets a lock on a file that goes.
            with suppress(OSError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    path.unlink()
            os.close(file)


def lock(file: int) -> bool:
    """Lock an open file for this descriptor; False if another one has it locked."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # there are no locks on this disk
            return True
    return True


def _locked(path: Path, output: Path) -> int:
    """The descriptor of a lock file that is locked, and tells by whom."""
    while True:
        file = _opened(path)
        try:
            if not lock(file):
                holder = one_line(os.read(file, _TOLD).decode("utf-8", "replace")) or "another run"
                raise JudgeDecodingError(
                    f"{output} is being written by {holder}; wait until that has ended, or name another output."
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):  # not one that its owner has just removed
                    os.ftruncate(file, 0)
                    since = time.strftime("%Y-%m-%d %H:%M:%S")
                    os.write(file, f"process {os.getpid()} on {node() or 'this machine'} since {since}".encode())
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _opened(path: Path) -> int:
    """A descriptor of a lock file, made if need be; any user may take over what another's killed run has left."""
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with suppress(FileNotFoundError):  # first without making it: Linux lets nobody "make" another user's file in /tmp
        return os.open(path, os.O_RDWR | more)
    with suppress(FileExistsError):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | more, 0o666)
        with suppress(OSError):
            path.chmod(0o666)
        return file
    return _opened(path)
