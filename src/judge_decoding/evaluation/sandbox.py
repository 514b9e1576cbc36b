"""Running the Python code that a model wrote, with its unit tests.

What is limited: time (by the clock and of the processor), memory, the size of files, open files and, except for root,
the number of processes. The program has a temporary folder of its own, an environment with nothing of ours, no standard
input, and is killed with all of its process group. Python refuses it network, other processes and changes to files
elsewhere.

What is not: it runs as the same user on the same file system, and may read what that user may read. Python's refusals
are a guard against accidents; code that means harm gets around them (by ctypes, for one). Where ``unshare`` works, as
on most Linux machines, the kernel takes network and the sight of other processes away, too; see `isolation`. Code of
strangers belongs into a container or a virtual machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from judge_decoding.errors import JudgeDecodingError

_CHILD = Path(__file__).with_name("sandbox_child.py")
_UNSHARE = ("--user", "--map-current-user", "--net", "--pid", "--fork", "--kill-child")
_SHOWN = 2000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: time, by the clock; a second more of the processor's.
        memory: bytes of address space; not on macOS, which has no such limit.
        file_size: bytes of any file it writes, and of what it prints.
    """

    seconds: float = 10.0
    memory: int = 2**30
    file_size: int = 2**23

    def __post_init__(self) -> None:
        for name, least in (("seconds", 0.1), ("memory", 2**26), ("file_size", 2**10)):
            value = getattr(self, name)
            if not value >= least:
                raise JudgeDecodingError(f"{name} is {value}; it must be {least} or more.")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a program.

    Attributes:
        passed: it ran to its end without an error.
        timed_out: it was stopped because its time was over.
        output: the end of what it printed, the error included.
    """

    passed: bool
    timed_out: bool
    output: str


def run_program(program: str, limits: Limits | None = None) -> Outcome:
    """Run a Python program that nobody vouches for.

    Args:
        program: its text; what stands under ``if __name__ == "__main__"`` does not run.
        limits: what it may use.

    Raises:
        JudgeDecodingError: this system has no limits for processes (Windows), or no program can be started.
    """
    if find_spec("resource") is None:
        raise JudgeDecodingError(
            "Code cannot be run safely on this system, which has no limits for processes; use Linux or macOS."
        )
    limits = limits or Limits()
    word = secrets.token_hex(16)
    told = {"seconds": limits.seconds, "memory": limits.memory, "file_size": limits.file_size, "word": word}
    with tempfile.TemporaryDirectory(prefix="judge-decoding-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "program.py").write_bytes(program.encode("utf-8", "replace"))
        printed = folder / "printed"
        with printed.open("wb") as output:
            timed_out = _run(folder, json.dumps(told).encode(), output.fileno(), limits.seconds)
        finished = folder / "finished"
        passed = not timed_out and finished.is_file() and finished.read_bytes() == word.encode()
        return Outcome(passed, timed_out, printed.read_bytes()[-_SHOWN:].decode("utf-8", "replace"))


def _run(folder: Path, told: bytes, output: int, seconds: float) -> bool:
    """Run the child to its end or the end of its time, which is told."""
    command = [*_unshared(), sys.executable, "-I", "-B", "-X", "utf8", str(_CHILD)]
    # Libraries that start threads would meet the limit of processes.
    env = {"HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise JudgeDecodingError(f"Cannot start Python to run code: {error.strerror}; check the machine.") from error
    try:
        process.communicate(told, timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        with suppress(ProcessLookupError, PermissionError):  # gone already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def isolation() -> str:
    """What keeps a program from network and other processes here: "kernel" (and Python), or "python" alone."""
    return "kernel" if _unshared() else "python"


@cache
def _unshared() -> tuple[str, ...]:
    """The words before a command that runs without network and apart from other processes; none where it cannot."""
    program = shutil.which("unshare")
    if program is None:
        return ()
    command = (program, *_UNSHARE, "--")
    try:
        done = subprocess.run([*command, sys.executable, "-I", "-c", ""], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return command if done.returncode == 0 else ()
