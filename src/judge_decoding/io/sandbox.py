"""Run model-written Python code with its unit tests in a sandbox.

Nothing runs without a sandbox unless the user asks for it; `sandbox_of` lists the sandboxes. A program has an empty
folder, no network, no view of other processes, and limits of time, memory and disk. There are two verdicts: the
program ran to its end, or it did not.

The tests call the program's functions, so both run in one interpreter, and a program can tamper with its tests. An
object that claims to equal everything passes any comparison, and the ``builtins`` that the tests use can be replaced.
A program that knows this sandbox can read the word for "passed" from its own memory (with ctypes, or through
``/proc/self/mem``). All other tricks count as not passed: exiting early in any way, searching for the word in frames,
with the garbage collector or among open files, skipping the tests with a trace function, exit handlers, writing to
every descriptor.
"""

from __future__ import annotations

import os
import secrets
import selectors
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import IO, cast

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.isolation import Sandbox, SandboxLimits, spelled
from judge_decoding.visible import one_line

__all__ = ["Sandbox", "SandboxLimits", "SandboxOutcome", "run_program", "sandbox_of"]

_SHOWN = 2000
_STARTED = b"+"
_START_SECONDS = 60.0
"""Maximum seconds for starting a sandbox, before the program's own time begins."""


@dataclass(frozen=True, slots=True)
class SandboxOutcome:
    """Whether a program ran to its end without an error, or into the time limit, and the end of its output."""

    passed: bool
    timed_out: bool
    output: str


@cache
def sandbox_of(spelling: str = "bwrap") -> Sandbox:
    """Return the sandbox for a spelling, after testing that it works.

    Args:
        spelling: ``bwrap`` (bubblewrap); ``docker:IMAGE`` or ``podman:IMAGE``, a container of an image that has
            ``python3``; or ``none`` for no isolation.
    """
    sandbox = spelled(spelling)
    if not run_program("", sandbox=sandbox).passed:
        raise JudgeDecodingError(f"The sandbox {sandbox} does not run programs to completion; {sandbox.needs}.")
    return sandbox


def run_program(program: str, limits: SandboxLimits | None = None, sandbox: Sandbox | None = None) -> SandboxOutcome:
    """Run an untrusted Python program; code under ``if __name__ == "__main__"`` does not run.

    The sandbox is bubblewrap by default. Windows, which cannot limit processes, is refused.
    """
    if sys.platform == "win32":
        raise JudgeDecodingError(
            "Code cannot be run safely on this system, which cannot limit processes; use Linux or macOS."
        )
    limits, sandbox = limits or SandboxLimits(), sandbox or sandbox_of()
    text, word = program.encode("utf-8", "surrogatepass"), secrets.token_bytes(32)
    try:
        with sandbox.start(limits, len(text)) as process:
            program_io = _ProgramIO(process, limits)
            program_io.run(text + word)
    except OSError as error:
        raise _does_not_start(sandbox, str(error.strerror)) from error
    output = program_io.output.decode("utf-8", "replace")
    if not program_io.started:
        raise _does_not_start(sandbox, output.strip().rpartition("\n")[2] or "it printed nothing")
    return SandboxOutcome(program_io.ended and program_io.verdict == _STARTED + word, program_io.timed_out, output)


def _does_not_start(sandbox: Sandbox, reason: str) -> JudgeDecodingError:
    return JudgeDecodingError(f"The sandbox {sandbox} does not start ({one_line(reason)[:200]}); {sandbox.needs}.")


class _ProgramIO:
    """Input and output of a program, bounded in time and size: the verdict's beginning, the end of what it printed.

    ``ended`` means that it ended by itself, within its output limit.
    """

    def __init__(self, process: subprocess.Popen[bytes], limits: SandboxLimits) -> None:
        self.verdict, self.output, self.ended, self.timed_out = b"", b"", False, False
        self._process, self._limits, self._num_bytes = process, limits, 0
        self._deadline = time.monotonic() + _START_SECONDS

    @property
    def started(self) -> bool:
        """Whether the sandbox is up and the program has started."""
        return self.verdict.startswith(_STARTED)

    def run(self, program: bytes) -> None:
        """Send ``program``, and read until the end."""
        given, verdict, printed = (
            cast("IO[bytes]", pipe) for pipe in (self._process.stdin, self._process.stdout, self._process.stderr)
        )
        rest = memoryview(program)

        def write(descriptor: int) -> bool:
            nonlocal rest
            with suppress(BrokenPipeError):  # The output shows if the sandbox is dead.
                rest = rest[os.write(descriptor, rest) :]
                return bool(rest)
            return False

        with selectors.DefaultSelector() as pipes:
            os.set_blocking(given.fileno(), False)
            pipes.register(given, selectors.EVENT_WRITE, write)
            pipes.register(verdict, selectors.EVENT_READ, self._read_verdict)
            pipes.register(printed, selectors.EVENT_READ, self._read_printed)
            while pipes.get_map():
                left = self._deadline - time.monotonic()
                self.timed_out = left <= 0
                if self.timed_out or self._num_bytes > self._limits.file_size:
                    return
                for key, _ in pipes.select(left):
                    if not key.data(key.fd):
                        pipes.unregister(key.fileobj)
                        cast("IO[bytes]", key.fileobj).close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(self._deadline - time.monotonic(), 0))
        self.timed_out = self._process.returncode is None
        self.ended = not self.timed_out and self._num_bytes <= self._limits.file_size

    def _read_verdict(self, descriptor: int) -> bool:
        """Read a part of the verdict; its first byte starts the program's time."""
        found = self._read(descriptor)
        if not self.verdict:
            self._deadline = time.monotonic() + self._limits.seconds
        self.verdict = (self.verdict + found)[:64]
        return bool(found)

    def _read_printed(self, descriptor: int) -> bool:
        found = self._read(descriptor)
        self.output = (self.output + found)[-_SHOWN:]
        return bool(found)

    def _read(self, descriptor: int) -> bytes:
        found = os.read(descriptor, 2**16)
        self._num_bytes += len(found)
        return found
