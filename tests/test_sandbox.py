"""Code of a model under limits: what passes, what does not, and what it cannot do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from judge_decoding import JudgeDecodingError
from judge_decoding.evaluation import sandbox
from judge_decoding.evaluation.sandbox import Limits, isolation, run_program

TESTS = "\ndef check(f):\n    assert f(2, 3) == 5\n    assert f(-1, 1) == 0\n\ncheck(add)\n"


@pytest.mark.parametrize(
    ("program", "passes"),
    [
        ("def add(a, b):\n    return a + b", True),
        ("def add(a, b):\n    return a - b", False),
        ("def add(a, b):\n    return a +", False),
        ("def add(a, b):\n    return a + b\nraise SystemExit(0)", False),
        ("import os\ndef add(a, b):\n    os._exit(0)", False),
        ("import sys\nsys.modules['os']._exit(0)", False),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nadd = lambda a, b: P(a).x + P(b).x",
            True,
        ),
        ("import math, re, typing, tempfile\nadd = lambda a, b: int(math.fsum((a, b)))", True),
        ("if __name__ == '__main__':\n    input('wait')\nadd = int.__add__", True),
        ("add = int.__add__\nprint('ä' * 10)", True),
        ("input()", False),
    ],
)
def test_what_passes(program: str, passes: bool) -> None:
    outcome = run_program(program + TESTS)
    assert outcome.passed == passes, outcome.output
    assert not outcome.timed_out


def test_what_went_wrong_is_shown() -> None:
    assert "AssertionError" in run_program("assert 1 == 2").output


@pytest.mark.parametrize(
    "program", ["while True: pass", "import time\ntime.sleep(60)", "print('x', flush=True)\nwhile 1: 1"]
)
def test_time_is_limited(program: str) -> None:
    outcome = run_program(program, Limits(seconds=1))
    assert outcome.timed_out
    assert not outcome.passed


def test_memory_and_files_are_limited() -> None:
    outcome = run_program("x = bytearray(2**29)", Limits(memory=2**28))
    assert not outcome.passed
    assert "MemoryError" in outcome.output
    assert not run_program("open('big', 'wb').write(bytes(2**21))", Limits(file_size=2**20)).passed
    assert run_program("open('big', 'wb').write(bytes(2**21))").passed
    printed = run_program("while True: print('x' * 1000)", Limits(file_size=2**16))
    assert not printed.passed
    assert len(printed.output) <= 2000
    for name in ("NPROC", "CORE"):
        assert run_program(f"import resource as r\nassert r.getrlimit(r.RLIMIT_{name}) == (0, 0)").passed


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos.fork()",
        "import os\nos.system('true')",
        "import subprocess\nsubprocess.run(['true'])",
        "import multiprocessing as m\nm.Process(target=print).start()",
        "import os\nos.kill(os.getppid(), 9)",
        "import os, shutil\nshutil.rmtree({file!r} + '/..')",
        "open({file!r}, 'w')",
        "open({file!r}, 'a')",
        "import os\nos.open({file!r}, os.O_TRUNC)",
        "import os\nos.remove({file!r})",
        "import os\nos.rename({file!r}, 'mine')",
        "import os\nos.chdir('/')\nos.mkdir({file!r} + 'new')",
        "import os\nos.symlink({file!r}, 'link')",
        "from pathlib import Path\nPath({file!r}).write_text('')",
        "from pathlib import Path\nPath({file!r}).unlink()",
        "import socket\nsocket.create_connection(('127.0.0.1', {port}))",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')",
        "import socket\nsocket.socket().bind(('127.0.0.1', 0))",
    ],
)
def test_what_python_refuses(program: str, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        outcome = run_program(program.format(file=str(file), port=server.getsockname()[1]))
        with pytest.raises(BlockingIOError):  # nobody knocked
            server.accept()
    assert not outcome.passed
    assert "is not allowed" in outcome.output
    assert file.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [file]


def test_a_program_has_a_folder_of_its_own() -> None:
    program = (
        "import os, tempfile\n"
        "with open('file', 'w') as file: file.write('x')\n"
        "with tempfile.TemporaryDirectory() as folder: open(folder + '/y', 'w').close()\n"
        "os.rename('file', 'other'); os.remove('other'); os.mkdir('d'); os.rmdir('d')\n"
        "assert os.path.dirname(tempfile.mkstemp()[1]) == os.getcwd()\n"
        "open(os.devnull, 'w').close()\n"
    )
    outcome = run_program(program)
    assert outcome.passed, outcome.output


def test_a_program_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "secret")
    outcome = run_program(
        "import os, sys\nassert 'secret' not in os.environ.values()\nprint(sorted(os.environ), sys.path)"
    )
    assert outcome.passed, outcome.output
    assert "PATH" not in outcome.output.partition("]")[0]


@pytest.mark.skipif(isolation() != "kernel", reason="unshare does not work here")
def test_the_kernel_takes_the_network_away() -> None:
    devices = (
        "lines = [l.split(':')[0].strip() for l in open('/proc/net/dev') if ':' in l]\nassert lines == ['lo'], lines"
    )
    outcome = run_program(devices)
    assert outcome.passed, outcome.output
    assert run_program("import os\nassert os.getpid() < 10").passed


def test_without_unshare_python_alone_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_unshared", tuple)
    assert isolation() == "python"
    assert run_program("add = int.__add__" + TESTS).passed
    outcome = run_program("import socket\nsocket.create_connection(('127.0.0.1', 9))")
    assert "is not allowed" in outcome.output


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": float("nan")}, {"memory": 5}, {"file_size": -1}])
def test_limits_have_ranges(limits: dict[str, float]) -> None:
    with pytest.raises(JudgeDecodingError, match="or more"):
        Limits(**limits)  # type: ignore[arg-type]


def test_a_system_without_limits_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "find_spec", lambda name: None)
    with pytest.raises(JudgeDecodingError, match="use Linux or macOS"):
        run_program("")
