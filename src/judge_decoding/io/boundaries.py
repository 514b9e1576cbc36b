"""What keeps a program that a model wrote from everything else: bubblewrap, a container, or nothing."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.seccomp import no_new_processes

_FOLDER = "/program"
"""Where a program is in bubblewrap. Not in /tmp, where Python itself may be installed."""
_CHILD = Path(__file__).with_name("sandbox_child.py").read_text()
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/nix/store",
    "/gnu/store",
)  # fmt: skip
_NOBODY = "65534"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Threads of libraries, and address space that the C library puts by for each thread, would count as memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use.

    Attributes:
        seconds: time, by the clock; a second more of the processor's.
        memory: bytes of address space; not on macOS without a container, as it has no such limit.
        file_size: bytes of any file it writes, and of what it prints.
        disk: bytes of all its files, and as much again of shared memory; not without a sandbox.

    Raises:
        JudgeDecodingError: one of them is too small.
    """

    seconds: float = 10.0
    memory: int = 2**30
    file_size: int = 2**23
    disk: int = 2**26

    def __post_init__(self) -> None:
        for name, least in (("seconds", 0.1), ("memory", 2**26), ("file_size", 2**10), ("disk", 2**16)):
            value = getattr(self, name)
            if not value >= least:
                raise JudgeDecodingError(f"{name} is {value}; it must be {least} or more.")


class Sandbox(ABC):
    """A way to start a Python that nothing outside has to fear. Its ``str`` is its spelling."""

    @property
    @abstractmethod
    def needs(self) -> str:
        """What it takes, in words for those where it does not start."""

    @abstractmethod
    @contextmanager
    def start(self, limits: Limits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """A process that runs ``sandbox_child.py``; at the end it is dead with all that it started.

        Args:
            limits: what the program may use.
            length: of the program, in bytes.

        Raises:
            OSError: no process can be started.
        """


@dataclass(frozen=True)
class Bubblewrap(Sandbox):
    """``bwrap``: namespaces of the kernel, in which there is nothing but Python, read-only, and an empty folder."""

    program: str

    @property
    def needs(self) -> str:
        """A version, and leave."""
        return (
            "it needs bubblewrap 0.7 or newer, and leave for user namespaces; else name a container with --sandbox "
            "docker:IMAGE, or do without a boundary with --no-sandbox"
        )

    @contextmanager
    def start(self, limits: Limits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """In namespaces of its own, without leave to start processes."""
        filtered = no_new_processes()
        if filtered is None:
            raise JudgeDecodingError(
                "bubblewrap cannot keep a program from starting processes on this kind of processor; name a container "
                "with --sandbox docker:IMAGE."
            )
        size = ["--size", str(limits.disk), "--tmpfs"]
        # Its own environment would be in the sandbox's /proc: it gets the program's.
        environment = {"HOME": _FOLDER, "TMPDIR": _FOLDER, **_ONE_THREAD}
        with tempfile.TemporaryFile() as rules:
            rules.write(filtered)
            rules.seek(0)
            # For root the kernel's settings in /proc/sys are files of its own, whatever it has no leave for: bubblewrap
            # covers other parts of /proc only.
            command = [
                self.program, "--unshare-all", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY,
                "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--seccomp", str(rules.fileno()),
                "--proc", "/proc", "--dev", "/dev", *size, "/dev/shm", *size, "/tmp", *size, _FOLDER,
                *(word for path in [*_SYSTEM, *_python()] for word in ("--ro-bind-try", path, path)),
                "--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", _FOLDER,
                *_inside(limits, length),
            ]  # fmt: skip
            with _started(command, environment, descriptors=[rules.fileno()]) as process:
                yield process

    def __str__(self) -> str:
        return "bwrap"


@dataclass(frozen=True)
class Container(Sandbox):
    """A container of Docker or Podman, without network, without rights and read-only."""

    engine: str
    image: str

    @property
    def needs(self) -> str:
        """The engine, and the image."""
        return (
            f"{self.engine} must run, and have an image {self.image} with Python as python3 ({self.engine} pull "
            f"{self.image})"
        )

    @contextmanager
    def start(self, limits: Limits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """In a container that is removed afterwards, and killed if it does not end by itself."""
        name = f"judge-decoding-{secrets.token_hex(8)}"
        memory = str(limits.memory + 2 * limits.disk)
        environment = [word for pair in _ONE_THREAD.items() for word in ("--env", "=".join(pair))]
        command = [
            self.engine, "run", "--rm", "--interactive", "--name", name, "--pull", "never", "--network", "none",
            "--read-only", "--tmpfs", f"/tmp:rw,size={limits.disk},mode=1777", "--shm-size", str(limits.disk),
            "--memory", memory, "--memory-swap", memory, "--pids-limit", "64", "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges", "--user", f"{_NOBODY}:{_NOBODY}", "--workdir", "/tmp",
            "--env", "HOME=/tmp", "--env", "TMPDIR=/tmp", *environment, "--log-driver", "none", "--entrypoint",
            "python3", self.image, *_child(limits, length),
        ]  # fmt: skip
        with _started(command, os.environ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:  # The engine's client is no more than its messenger.
                    with suppress(OSError, subprocess.TimeoutExpired):
                        subprocess.run(
                            [self.engine, "rm", "--force", name], capture_output=True, timeout=60, check=False
                        )

    def __str__(self) -> str:
        return f"{self.engine}:{self.image}"


@dataclass(frozen=True)
class Unguarded(Sandbox):
    """No boundary: the program may do what its user may; time and memory are limited."""

    @property
    def needs(self) -> str:
        """Python alone."""
        return "Python must be able to start"

    @contextmanager
    def start(self, limits: Limits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """In a temporary folder, with an empty environment."""
        folder = tempfile.mkdtemp(prefix="judge-decoding-")
        try:
            with _started(
                _inside(limits, length), {"HOME": folder, "TMPDIR": folder, **_ONE_THREAD}, folder
            ) as process:
                yield process
        finally:
            # Python's own rmtree does not get to the bottom of what a program can make.
            subprocess.run(["rm", "-rf", folder], capture_output=True, check=False)

    def __str__(self) -> str:
        return "none"


def spelled(spelling: str) -> Sandbox:
    """The sandbox of that spelling, whether it works here or not; see `sandbox_of`.

    Raises:
        JudgeDecodingError: there is none, or its program is not installed.
    """
    if spelling == "none":
        return Unguarded()
    if spelling == "bwrap":
        program = shutil.which("bwrap")
        if program is None:
            raise JudgeDecodingError(
                "Code that a model wrote runs in bubblewrap, which is not installed (Debian's package bubblewrap; "
                "Linux only); install it, name a container with --sandbox docker:IMAGE, or do without a boundary with "
                "--no-sandbox."
            )
        return Bubblewrap(program)
    container = re.fullmatch(r"(docker|podman):([A-Za-z0-9][\w./:@-]*)", spelling, re.ASCII)
    if container is None:
        raise JudgeDecodingError(
            f"There is no sandbox {spelling[:80]!r}; give bwrap, docker:IMAGE, podman:IMAGE, or none for no boundary."
        )
    if shutil.which(container[1]) is None:
        raise JudgeDecodingError(f"{container[1]} is not installed; install it, or leave its container out.")
    return Container(container[1], container[2])


def _child(limits: Limits, length: int) -> list[str]:
    """Python's words for the child: without the user's settings and packages, and nothing of it in a file."""
    numbers = (limits.seconds, limits.memory, limits.file_size, length)
    return ["-I", "-B", "-X", "utf8", "-c", _CHILD, *map(str, numbers)]


def _inside(limits: Limits, length: int) -> list[str]:
    """The command for the child by this Python: the one without an environment, which is given its packages."""
    return [_interpreter(), "-S", *_child(limits, length), *_packages()]


def _interpreter() -> str:
    return str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())


def _packages() -> list[str]:
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


def _python() -> list[str]:
    """The paths that this Python consists of."""
    base = Path(sys.base_exec_prefix).resolve()
    return [_interpreter(), str(base / "lib"), str(base / "lib64"), *_packages()]


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str], folder: str | None = None, descriptors: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes, which is killed at the end with all of its group."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        pass_fds=descriptors, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError, PermissionError):  # gone already
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        process.wait()
