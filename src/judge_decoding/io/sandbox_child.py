"""Runs one Python program under limits; ``sandbox.py`` passes this source to a separate Python.

It imports nothing from this package. The command line contains the limits, the program's length in bytes, and package
folders. Standard input contains the program, followed by the word that this script writes to standard output when the
program has run to its end; a mark before it means that the program is about to start. The program's own output goes to
standard error.
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
    """Limit this process permanently: it cannot raise the limits again, unless it is root outside a sandbox."""
    limits = {
        resource.RLIMIT_CPU: math.ceil(seconds) + 1,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    if sys.platform != "darwin":  # where this limit cannot be set
        limits[resource.RLIMIT_AS] = memory
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (least, least))


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse tracing, with which a program could skip its tests, and changes to this function's code."""
    traced = event in ("sys.settrace", "sys.monitoring.register_callback")
    if traced or (event == "object.__setattr__" and arguments[1] == "__code__"):
        raise PermissionError(f"{event} is not allowed here")


def steps(length: int, verdict: int) -> Iterator[bytes | Callable[[], None]]:
    """Yield the word, which no variable may hold, and the function that runs the program."""
    with open(0, "rb", closefd=False) as given:
        text = given.read(length)
        yield given.read()
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  (pathlib takes longer to import than the rest)
        os.dup2(nothing.fileno(), 0)
    # Not "__main__": the tests do not cover what a program does as a script.
    module = sys.modules["program"] = ModuleType("program")
    os.write(verdict, b"+")
    # Decoded first, so that no comment in the program can change the encoding of the tests after it.
    code = compile(text.decode("utf-8-sig"), "program.py", "exec", dont_inherit=True)
    sys.addaudithook(watch)
    yield partial(exec, code, vars(module))


def take(step: bytes | Callable[[], None]) -> int:
    """Run the program when its step comes."""
    if callable(step):
        step()
    return 0


def main() -> None:
    """Run the program, and write the word if it runs to its end."""
    seconds, memory, file_size, length, *packages = sys.argv[1:]
    sys.argv, sys.path = ["program.py"], sys.path + packages
    verdict = os.dup(1)
    os.dup2(2, 1)
    limit(float(seconds), int(memory), int(file_size))
    # For equal keys `max` returns the first item, the word. While the program runs, only a C variable holds it, which
    # is invisible in frames and to the garbage collector, and is gone if the program fails.
    os.write(verdict, max(steps(int(length), verdict), key=take))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
