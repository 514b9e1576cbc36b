"""Runs one Python program under limits; started by ``sandbox.py`` as a program of its own, in the program's folder.

It imports nothing of this package. Standard input tells, in JSON, the limits and the word that says in the file
``finished`` that the program ran to its end: a program that leaves early by itself never gets that far.
"""

from __future__ import annotations

import json
import math
import os
import resource
import runpy
import sys
from typing import Any

_NETWORK = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
    "socket.gethostbyaddr",
)  # fmt: skip
_PROCESSES = (
    "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn",
    "subprocess.Popen",
)  # fmt: skip
_CHANGES = {
    "os.chflags": 1, "os.chmod": 1, "os.chown": 1, "os.link": 2, "os.mkdir": 1, "os.remove": 1, "os.rename": 2,
    "os.rmdir": 1, "os.symlink": 2, "os.truncate": 1, "os.utime": 1, "shutil.rmtree": 1,
}  # fmt: skip
"""Audit events of changes to files, and how many of their first arguments are paths."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def limit(seconds: float, memory: int, file_size: int) -> None:
    """Limit this process for good: not even it can lift the limits again, unless it is root."""
    cpu = math.ceil(seconds) + 1
    limits = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 0,
    }
    if sys.platform != "darwin":  # where it cannot be set
        limits[resource.RLIMIT_AS] = memory
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (least, least))


def guard(folder: str) -> None:
    """Refuse network, other processes and changes to files outside ``folder``, as far as Python tells of them."""
    inside = folder + os.sep

    def outside(path: Any) -> bool:  # noqa: ANN401  (what an audit event holds)
        if isinstance(path, int):  # an open file
            return False
        real = os.path.realpath(os.fsdecode(path))
        return real not in (folder, os.devnull) and not real.startswith(inside)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NETWORK or event in _PROCESSES:
            raise PermissionError(f"{event} is not allowed here")
        paths = arguments[: _CHANGES.get(event, 0)]
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
            paths = arguments[:1]
        if any(outside(path) for path in paths):
            raise PermissionError(f"{event} is not allowed outside the program's own folder")

    sys.addaudithook(watch)


def main() -> None:
    """Run ``program.py``."""
    given = json.load(sys.stdin)
    folder = os.path.realpath(".")
    limit(given["seconds"], given["memory"], given["file_size"])
    guard(folder)
    finished = os.path.join(folder, "finished")  # noqa: PTH118  (a small program starts faster without pathlib)
    sys.argv = ["program.py"]
    # Not "__main__": what a program does when it is started is not what its tests are about.
    runpy.run_path("program.py", run_name="program")
    with open(finished, "w") as file:  # noqa: PTH123
        file.write(given["word"])


if __name__ == "__main__":
    main()
