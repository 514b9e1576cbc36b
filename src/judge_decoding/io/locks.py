"""Allow only one run per output: a second run gets an error that names the first, so outputs are never mixed.

The system holds the lock, on a descriptor of the file ``<output>.lock``, and releases it when the process ends in any
way: a leftover file locks nothing. On disks without locks, as on some networks, and on Windows, there is no protection.
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
"""Maximum bytes read from a lock file."""


@contextmanager
def one_run(output: Path) -> Iterator[None]:
    """Lock ``output``, a file or a folder, against every other run while the block runs."""
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
            # Remove it before unlocking, so that no other run locks a file that is about to be removed.
            with suppress(OSError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    path.unlink()
            os.close(file)


def lock(file: int) -> bool:
    """Lock an open file for this descriptor; return False if another descriptor holds the lock."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # this disk does not support locks
            return True
    return True


def _locked(path: Path, output: Path) -> int:
    """Return the descriptor of the locked lock file, which names its owner."""
    while True:
        file = _opened(path)
        try:
            if not lock(file):
                holder = one_line(os.read(file, _TOLD).decode("utf-8", "replace")) or "another run"
                raise JudgeDecodingError(
                    f"{output} is being written by {holder}; wait until that has ended, or choose another output."
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):  # not a file that its owner has just removed
                    os.ftruncate(file, 0)
                    since = time.strftime("%Y-%m-%d %H:%M:%S")
                    os.write(file, f"process {os.getpid()} on {node() or 'this machine'} since {since}".encode())
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _opened(path: Path) -> int:
    """Open a lock file, creating it if needed; any user may reuse the leftover file of another user's killed run."""
    more = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with suppress(FileNotFoundError):  # first without O_CREAT, which Linux denies for another user's file in /tmp
        return os.open(path, os.O_RDWR | more)
    with suppress(FileExistsError):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | more, 0o666)
        with suppress(OSError):
            path.chmod(0o666)
        return file
    return _opened(path)
