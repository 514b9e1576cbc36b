"""Sandboxes for model-written programs: bubblewrap, a container, or no isolation."""

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
"""The folder of a program in bubblewrap. Not in /tmp, where Python itself may be installed."""
_CHILD = Path(__file__).with_name("sandbox_child.py").read_text()
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/nix/store",
    "/gnu/store",
)  # fmt: skip
_NOBODY = "65534"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
"""Limits library threads and the address space that the C library reserves per thread, which count as memory."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """The limits of a program.

    Attributes:
        seconds: wall-clock time; the limit of CPU time is one second more.
        memory: bytes of address space; not enforced on macOS without a container, as it has no such limit.
        file_size: bytes of each file it writes, and of its output.
        disk: bytes of all its files, and the same amount of shared memory; not enforced without a sandbox.
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
    """A way to start an isolated Python. Its ``str`` is its spelling."""

    needs: str
    """What it requires, for the message if it does not start."""

    @abstractmethod
    @contextmanager
    def start(self, limits: SandboxLimits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process that runs ``sandbox_child.py``; on exit, kill it and all processes that it started.

        ``length`` is that of the program in bytes. Raises OSError if no process can be started.
        """


@dataclass(frozen=True)
class Bubblewrap(Sandbox):
    """``bwrap``: kernel namespaces that contain only Python, read-only, and an empty folder."""

    program: str
    needs = (
        "it needs bubblewrap 0.7 or newer, and leave for user namespaces; else use a container with --sandbox "
        "docker:IMAGE, or do without a boundary with --no-sandbox"
    )

    @contextmanager
    def start(self, limits: SandboxLimits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """Start it in new namespaces, without permission to start processes."""
        filtered = no_new_processes()
        if filtered is None:
            raise JudgeDecodingError(
                "bubblewrap cannot keep a program from starting processes on this kind of processor; use a container "
                "with --sandbox docker:IMAGE."
            )
        size = ["--size", str(limits.disk), "--tmpfs"]
        # The environment of bwrap is visible in the sandbox's /proc, so it gets the program's environment.
        environment = {"HOME": _FOLDER, "TMPDIR": _FOLDER, **_ONE_THREAD}
        with tempfile.TemporaryFile() as rules:
            rules.write(filtered)
            rules.seek(0)
            # Root owns the kernel settings in /proc/sys even without capabilities, and bubblewrap only protects other
            # parts of /proc.
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
    """A Docker or Podman container, read-only and without network or privileges."""

    engine: str
    image: str

    @property
    def needs(self) -> str:  # type: ignore[override]  # it depends on the fields
        """The required engine and image."""
        return (
            f"{self.engine} must run, and have an image {self.image} with Python as python3 ({self.engine} pull "
            f"{self.image})"
        )

    @contextmanager
    def start(self, limits: SandboxLimits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """Start it in a container that is removed afterwards, and killed if it does not end by itself."""
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
                if process.poll() is None:  # Killing the client does not stop the container.
                    with suppress(OSError, subprocess.TimeoutExpired):
                        subprocess.run(
                            [self.engine, "rm", "--force", name], capture_output=True, timeout=60, check=False
                        )

    def __str__(self) -> str:
        return f"{self.engine}:{self.image}"


@dataclass(frozen=True)
class Unguarded(Sandbox):
    """No isolation: the program has the user's permissions; only time and memory are limited."""

    needs = "Python must be able to start"

    @contextmanager
    def start(self, limits: SandboxLimits, length: int) -> Iterator[subprocess.Popen[bytes]]:
        """Start it in a temporary folder, with an empty environment."""
        folder = tempfile.mkdtemp(prefix="judge-decoding-")
        try:
            with _started(
                _inside(limits, length), {"HOME": folder, "TMPDIR": folder, **_ONE_THREAD}, folder
            ) as process:
                yield process
        finally:
            # Python's own rmtree fails on some folders that a program can create, such as very deep ones.
            subprocess.run(["rm", "-rf", folder], capture_output=True, check=False)

    def __str__(self) -> str:
        return "none"


def spelled(spelling: str) -> Sandbox:
    """Return the sandbox for a spelling, without testing it; see `sandbox_of`."""
    if spelling == "none":
        return Unguarded()
    if spelling == "bwrap":
        program = shutil.which("bwrap")
        if program is None:
            raise JudgeDecodingError(
                "Code that a model wrote runs in bubblewrap, which is not installed (Debian's package bubblewrap; "
                "Linux only); install it, use a container with --sandbox docker:IMAGE, or run without isolation with "
                "--no-sandbox."
            )
        return Bubblewrap(program)
    container = re.fullmatch(r"(docker|podman):([A-Za-z0-9][\w./:@-]*)", spelling, re.ASCII)
    if container is None:
        raise JudgeDecodingError(
            f"There is no sandbox {spelling[:80]!r}; give bwrap, docker:IMAGE, podman:IMAGE, or none for no isolation."
        )
    if shutil.which(container[1]) is None:
        raise JudgeDecodingError(f"{container[1]} is not installed; install it, or leave its container out.")
    return Container(container[1], container[2])


def _child(limits: SandboxLimits, length: int) -> list[str]:
    """Return Python's arguments for the child: no user settings or packages, and no files for its code."""
    numbers = (limits.seconds, limits.memory, limits.file_size, length)
    return ["-I", "-B", "-X", "utf8", "-c", _CHILD, *map(str, numbers)]


def _inside(limits: SandboxLimits, length: int) -> list[str]:
    """Return the command that runs the child with this Python, without its environment but with its packages."""
    return [_interpreter(), "-S", *_child(limits, length), *_packages()]


def _interpreter() -> str:
    return str(Path(getattr(sys, "_base_executable", None) or sys.executable).resolve())


def _packages() -> list[str]:
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


def _python() -> list[str]:
    base = Path(sys.base_exec_prefix).resolve()
    return [_interpreter(), str(base / "lib"), str(base / "lib64"), *_packages()]


@contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str], folder: str | None = None, descriptors: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with pipes; kill its whole process group at the end."""
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
