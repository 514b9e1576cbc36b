"""Runs one Python program under limits; ``sandbox.py`` gives this text to a Python of its own.

It imports nothing of this package. The command line has the limits, the program's length in bytes, and folders with
packages. Standard input has the program, and behind it the word that says on standard output that the program ran to
its end; a sign before it says that the program is about to start. What the program prints goes to standard error.
"""

from __future__ import annotations

import math
import os
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any


def limit(seconds: float, memory: int, file_size: int) -> None:
    """Limit this process for good: not even it can lift the limits again, unless it is root outside a sandbox."""
    limits = {
        resource.RLIMIT_CPU: math.ceil(seconds) + 1,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    if sys.platform != "darwin":  # where it cannot be set
        limits[resource.RLIMIT_AS] = memory
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (least, least))


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse tracing, with which a program could jump over its tests, and new code for this very function."""
    traced = event in ("sys.settrace", "sys.monitoring.register_callback")
    if traced or (event == "object.__setattr__" and arguments[1] == "__code__"):
        raise PermissionError(f"{event} is not allowed here")


def steps(length: int, verdict: int) -> Iterator[bytes | Callable[[], None]]:
    """The word, which no variable may hold, and what runs the program."""
    with open(0, "rb", closefd=False) as given:
        text = given.read(length)
        yield given.read()
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  (pathlib takes longer to import than the rest)
        os.dup2(nothing.fileno(), 0)
    # Not "__main__": what a program does when it is started is not what its tests are about.
    module = sys.modules["program"] = ModuleType("program")
    os.write(verdict, b"+")
    # Text, in which no comment of its own can say that the tests behind it are to be read in another encoding.
    code = compile(text.decode("utf-8-sig"), "program.py", "exec", dont_inherit=True)
    sys.addaudithook(watch)
    yield partial(exec, code, vars(module))


def take(step: bytes | Callable[[], None]) -> int:
    """Run the program when its turn comes."""
    if callable(step):
        step()
    return 0


def main() -> None:
    """Run the program, and say the word if it comes to its end."""
    seconds, memory, file_size, length, *packages = sys.argv[1:]
    sys.argv, sys.path = ["program.py"], sys.path + packages
    verdict = os.dup(1)
    os.dup2(2, 1)
    limit(float(seconds), int(memory), int(file_size))
    # Of equals `max` gives the first, the word. While the program runs, only a variable in C has it, which no frame
    # and no collector shows, and which is gone when the program fails.
    os.write(verdict, max(steps(int(length), verdict), key=take))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
