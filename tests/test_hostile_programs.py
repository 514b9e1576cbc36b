"""Programs that mean harm, against the boundary: as this user, and as an ordinary one where this one is root."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import judge_decoding
from commands import needs_bwrap
from hostile import BOUNDS, CLUMSY, FORGED, OUTSIDE
from judge_decoding.io import isolation
from judge_decoding.io.sandbox import SandboxLimits, SandboxOutcome, run_program, sandbox_of

pytestmark = pytest.mark.slow

Run = Callable[..., SandboxOutcome]
# One is found by its memory limit among all processes of the machine.
LIMITS = SandboxLimits(seconds=2.5, memory=2**30 + 4096 * os.getpid())
# For programs that never end.
SHORT = replace(LIMITS, seconds=1)
SECRET, KEY = "TOP-SECRET-LINE", "sk-in-the-environment"
SYSTEM_PYTHON = "/usr/bin/python3"
USERS = ["here"] + ["ordinary"] * (os.getuid() == 0 and os.access(SYSTEM_PYTHON, os.X_OK))
# Not simply False, behind which the compiler would leave nothing to jump to.
TESTS = "\nassert int('0')\nend = 1\n"
X86 = platform.machine() == "x86_64"

ORDINARY = """
import json, os, sys
from dataclasses import asdict
from judge_decoding.io import isolation
from judge_decoding.io.sandbox import SandboxLimits, run_program
# Its own Python may be where only root gets.
isolation._interpreter = lambda: sys.argv[1]
isolation._packages = isolation._python = lambda: []
os.chdir("/")
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
for line in sys.stdin:
    program, limits = json.loads(line)
    print(json.dumps(asdict(run_program(program, SandboxLimits(**limits)))), flush=True)
"""


class World:
    """What stands outside: files that are open to all, servers, a process with a key in its environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o777)
        (folder / "secret").write_text(SECRET)
        (folder / "victim").write_text("alive")
        with (folder / "big").open("wb") as big:
            big.truncate(1500 * 2**20)
        self.parent = subprocess.Popen(["sleep", "600"], env={"OPENAI_API_KEY": KEY})
        self.servers = [socket.create_server(("127.0.0.1", 0))]
        for name in (str(folder / "socket"), f"\0judge-{folder.name}"):
            server = socket.socket(socket.AF_UNIX)
            server.bind(name)
            server.listen()
            self.servers.append(server)
        (folder / "socket").chmod(0o777)
        for server in self.servers:
            server.setblocking(False)
        self.before = self.files()

    def files(self) -> dict[str, tuple[int, int]]:
        """Names, sizes and times of all that is there."""
        return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in self.folder.iterdir()}

    def told(self, program: str) -> str:
        """The program with the names of things out here."""
        names = {
            "@FOLDER": str(self.folder), "@NAME": self.folder.name, "@PORT": str(self.servers[0].getsockname()[1]),
            "@PARENT": str(self.parent.pid), "@HOME": str(Path.home()), "@KEYCTL": "250" if X86 else "219",
            "@FORKS": "(58, 56, 435)" if X86 else "(220, 435)",
        }  # fmt: skip
        for name, value in names.items():
            program = program.replace(name, value)
        return program

    def check(self, outcome: SandboxOutcome) -> None:
        """Nothing outside has changed, nothing was read, nobody is left."""
        deadline = time.monotonic() + 5
        while left := survivors():
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
        assert self.files() == self.before
        assert not any(knocked(server) for server in self.servers)
        assert self.parent.poll() is None
        assert not any(word in outcome.output for word in (SECRET, KEY, "ESCAPED")), outcome.output
        assert not [path for path in Path("/dev/shm").iterdir() if self.folder.name in path.name]

    def close(self) -> None:
        """Away with it all."""
        self.parent.kill()
        self.parent.wait()
        for server in self.servers:
            server.close()


def knocked(server: socket.socket) -> bool:
    """Somebody has connected."""
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def survivors() -> list[str]:
    """Processes with the limits of the programs here."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # gone meanwhile
            continue
        if str(LIMITS.memory).encode() in words:
            found.append(path.parent.name)
    return found


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="hostile-", dir="/tmp") as name:
        there = World(Path(name))
        try:
            yield there
        finally:
            there.close()


def run_here(program: str, limits: SandboxLimits = LIMITS) -> SandboxOutcome:
    """Runs a program as this user."""
    outcome: SandboxOutcome = within(90, lambda: run_program(program, limits))
    return outcome


@pytest.fixture(scope="module", params=USERS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a program as that user; a run that hangs fails the test."""
    if request.param == "here":
        yield run_here
        return
    sources = str(Path(judge_decoding.__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", ORDINARY, SYSTEM_PYTHON], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": sources, "PATH": os.environ["PATH"], "OPENAI_API_KEY": KEY},
    ) as helper:  # fmt: skip
        asked, answered = helper.stdin, helper.stdout
        assert asked is not None
        assert answered is not None

        def ask(program: str, limits: SandboxLimits = LIMITS) -> SandboxOutcome:
            asked.write(json.dumps([program, asdict(limits)]) + "\n")
            asked.flush()
            return SandboxOutcome(**json.loads(within(90, answered.readline)))

        yield ask
        asked.close()


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What ``call`` gives, or raises, in that time."""
    found: list[Any] = []

    def do() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001  (told below)
            found.append(error)

    # Not joined at the end of the process: one that hangs must not keep it.
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "It hangs."
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


@needs_bwrap
@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_outside_is_reached(run: Run, world: World, name: str) -> None:
    world.check(run(world.told(OUTSIDE[name])))


@needs_bwrap
@pytest.mark.parametrize("name", BOUNDS)
def test_what_it_uses_is_bounded(run: Run, world: World, name: str) -> None:
    start = time.monotonic()
    outcome = run(world.told(BOUNDS[name]), SHORT)
    assert time.monotonic() - start < 30
    world.check(outcome)
    assert not outcome.passed, outcome.output
    assert len(outcome.output) <= 2000


# Inside, a program is nobody, whoever started it: what follows depends on no user.


@needs_bwrap
@pytest.mark.parametrize("name", FORGED)
def test_passed_is_not_forged(world: World, name: str) -> None:
    outcome = run_here(world.told(FORGED[name]) + TESTS)
    assert not outcome.passed
    world.check(outcome)


@needs_bwrap
@pytest.mark.parametrize("name", CLUMSY)
def test_whatever_it_does_there_is_a_verdict(world: World, name: str) -> None:
    outcome = run_here(world.told(CLUMSY[name]))
    world.check(outcome)
    assert not outcome.timed_out
    assert run_here("assert 1 + 1 == 2").passed


@needs_bwrap
@pytest.mark.parametrize(
    ("name", "line", "careless"),
    [
        ("find the word", "yield given.read()", "word = given.read()\n        yield word"),
        ("jump", "sys.addaudithook(watch)", "pass"),
        ("jump without the hook", ' or (event == "object.__setattr__" and arguments[1] == "__code__")', ""),
    ],
)
def test_one_that_is_less_careful_is_deceived(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str, careless: str
) -> None:
    """The forgers above are good ones: where a line is missing, they succeed."""
    monkeypatch.setattr(isolation, "_CHILD", isolation._CHILD.replace(line, careless))
    assert careless in isolation._CHILD
    assert line not in isolation._CHILD
    assert run_program(FORGED[name] + TESTS).passed


@needs_bwrap  # As the others, on Linux.
@pytest.mark.parametrize("name", ["read a file of the user", "write", "remove by dir_fd", "TCP", "unix socket", "fork"])
def test_without_a_boundary_they_would_be_seen(world: World, name: str) -> None:
    """The checks above can fail: without a sandbox these programs get what they want."""
    outcome = run_program(world.told(OUTSIDE[name]), LIMITS, sandbox_of("none"))
    with pytest.raises(AssertionError):
        world.check(outcome)
