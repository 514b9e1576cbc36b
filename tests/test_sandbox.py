"""Code of a model behind a boundary: what passes, what does not, what it has, and which boundaries there are."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from commands import Run, is_one_sentence, needs_bwrap
from judge_decoding import Case, JudgeDecodingError, write_cases
from judge_decoding.io import isolation, sandbox
from judge_decoding.io.sandbox import SandboxLimits, run_program, sandbox_of
from judge_decoding.io.seccomp import no_new_processes

TESTS = "\ndef check(f):\n    assert f(2, 3) == 5\n    assert f(-1, 1) == 0\n\ncheck(add)\n"
SANDBOXES = [pytest.param("bwrap", marks=needs_bwrap), "none"]


@pytest.fixture(autouse=True)
def _nothing_is_known_of_sandboxes() -> Iterator[None]:
    sandbox_of.cache_clear()
    yield
    sandbox_of.cache_clear()


@pytest.mark.parametrize("where", SANDBOXES)
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
            "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
            "add = lambda a, b: P(a).x + P(b).x",
            True,
        ),
        ("import math, re, typing, tempfile\nadd = lambda a, b: int(math.fsum((a, b)))", True),
        ("import numpy\nadd = lambda a, b: int(numpy.add(a, b))", True),
        ("if __name__ == '__main__':\n    input('wait')\nadd = int.__add__", True),
        ("add = int.__add__\nprint('ä' * 10)", True),
        ("input()", False),
    ],
)
def test_what_passes(where: str, program: str, passes: bool) -> None:
    outcome = run_program(program + TESTS, sandbox=sandbox_of(where))
    assert outcome.passed == passes, outcome.output
    assert not outcome.timed_out


@pytest.mark.parametrize("where", SANDBOXES)
def test_threads_work(where: str) -> None:
    program = (
        "import threading\nfound, gate = [], threading.Barrier(40)\n"
        "def work():\n    gate.wait()\n    found.append(1)\n"
        "threads = [threading.Thread(target=work) for _ in range(40)]\n"
        "for thread in threads: thread.start()\nfor thread in threads: thread.join()\nassert len(found) == 40\n"
    )
    outcome = run_program(program, sandbox=sandbox_of(where))
    assert outcome.passed, outcome.output


@pytest.mark.parametrize("where", SANDBOXES)
def test_what_went_wrong_is_shown(where: str) -> None:
    assert run_program("assert 1 == 2", sandbox=sandbox_of(where)).output.endswith("AssertionError\n")


@pytest.mark.slow
@pytest.mark.parametrize("where", SANDBOXES)
@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "print('x', flush=True)\nwhile 1: 1",
        "import os, time\nos.closerange(0, 64)\ntime.sleep(60)",
    ],
)
def test_time_is_limited(where: str, program: str) -> None:
    start = time.monotonic()
    outcome = run_program(program, SandboxLimits(seconds=1), sandbox_of(where))
    assert outcome.timed_out
    assert not outcome.passed
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("where", SANDBOXES)
def test_memory_files_and_output_are_limited(where: str) -> None:
    there = sandbox_of(where)
    outcome = run_program("x = bytearray(2**29)", SandboxLimits(memory=2**28), there)
    assert not outcome.passed
    assert "MemoryError" in outcome.output
    assert not run_program("open('big', 'wb').write(bytes(2**21))", SandboxLimits(file_size=2**20), there).passed
    assert run_program("open('big', 'wb').write(bytes(2**21))", sandbox=there).passed
    printed = run_program("while True: print('x' * 1000)", SandboxLimits(file_size=2**16), there)
    assert not printed.passed
    assert not printed.timed_out
    assert len(printed.output) <= 2000
    assert not run_program("print('x' * 2**17)", SandboxLimits(file_size=2**16), there).passed
    assert run_program("import resource as r\nassert r.getrlimit(r.RLIMIT_CORE) == (0, 0)", sandbox=there).passed


@needs_bwrap
def test_the_disk_is_limited() -> None:
    write = "import os\nwith open('{}', 'wb') as f: f.write(bytes({}))\n"
    for folder in ("/tmp/x", "/dev/shm/x"):
        assert run_program(write.format(folder, 2**19), SandboxLimits(disk=2**20)).passed
        outcome = run_program(write.format(folder, 2**21), SandboxLimits(disk=2**20))
        assert not outcome.passed
        assert "No space left" in outcome.output


@pytest.mark.parametrize("where", SANDBOXES)
def test_a_program_has_a_folder_of_its_own(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import os, tempfile\n"
        "assert os.listdir('.') == []\n"
        "with open('file', 'w') as file: file.write('x')\n"
        "with tempfile.TemporaryDirectory() as folder: open(folder + '/y', 'w').close()\n"
        "os.rename('file', 'other'); os.remove('other'); os.mkdir('d'); os.rmdir('d')\n"
        "assert os.path.dirname(tempfile.mkstemp()[1]) == os.getcwd() == os.path.expanduser('~')\n"
        "open(os.devnull, 'w').close()\n"
        "for _ in range(3000): os.mkdir('deep'); os.chdir('deep')\n"
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome = run_program(program, sandbox=sandbox_of(where))
    assert outcome.passed, outcome.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", SANDBOXES)
def test_a_program_sees_nothing_of_our_environment(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "secret")
    outcome = run_program(
        "import os, sys\nassert 'secret' not in os.environ.values()\nprint(sorted(os.environ))",
        sandbox=sandbox_of(where),
    )
    assert outcome.passed, outcome.output
    assert "'PATH'" not in outcome.output


@needs_bwrap
def test_in_bubblewrap_a_program_is_nobody_without_rights() -> None:
    program = (
        "import os\nstatus = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "assert os.getuid() == os.getgid() == 65534 and os.getpid() < 10\n"
        "assert {int(status[name], 16) for name in ('CapEff', 'CapPrm', 'CapInh', 'CapBnd', 'CapAmb')} == {0}\n"
        "assert status['NoNewPrivs'] == '1' and status['Seccomp'] == '2'\n"
        "assert [line.split(':')[0].strip() for line in open('/proc/net/dev') if ':' in line] == ['lo']\n"
        "assert sorted(os.listdir('/proc/self/fd')) == ['0', '1', '2', '3', '4']\n"  # The last is that of listdir.
        "mounts = [line.split() for line in open('/proc/mounts')]\n"
        "writable = {where for _, where, kind, how, *_ in mounts if how.startswith('rw') and 'dev' not in kind}\n"
        "assert writable == {'/tmp', '/program', '/dev/shm'}, writable\n"
    )
    outcome = run_program(program)
    assert outcome.passed, outcome.output


def test_the_filter_is_for_this_kind_of_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    filtered = {}
    for machine in ("x86_64", "aarch64"):
        monkeypatch.setattr("platform.machine", lambda name=machine: name)
        filtered[machine] = no_new_processes() or b""
        assert len(filtered[machine]) % 8 == 0  # struct sock_filter
    assert filtered["x86_64"] != filtered["aarch64"]
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    assert no_new_processes() is None
    with pytest.raises(JudgeDecodingError, match=r"kind of processor.*--sandbox docker:IMAGE"):
        run_program("", sandbox=isolation.Bubblewrap("bwrap"))


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": float("nan")}, {"memory": 5}, {"file_size": -1}])
def test_limits_have_ranges(limits: dict[str, float]) -> None:
    with pytest.raises(JudgeDecodingError, match="or more"):
        SandboxLimits(**limits)  # type: ignore[arg-type]


def test_a_system_without_limits_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(JudgeDecodingError, match="use Linux or macOS"):
        run_program("")


@pytest.mark.parametrize(
    "spelling", ["", "bwrap2", "docker", "docker:", "docker:-v", "docker:a b", "podman:a\n", "None"]
)
def test_there_is_no_such_sandbox(spelling: str) -> None:
    with pytest.raises(JudgeDecodingError, match="There is no sandbox"):
        sandbox_of(spelling)


def test_without_bubblewrap_nothing_runs_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for call in (lambda: run_program(""), sandbox_of):
        with pytest.raises(JudgeDecodingError, match=r"not installed.*--sandbox docker:IMAGE.*--no-sandbox\.$"):
            call()
    with pytest.raises(JudgeDecodingError, match="docker is not installed"):
        sandbox_of("docker:python:3.12")
    assert run_program("", sandbox=sandbox_of("none")).passed


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'bwrap: Unknown option --size' >&2; exit 1", r"bwrap: Unknown option --size"),
        ("echo 'No permissions \033[31m to create' >&2; exit 1", r"No permissions \\x1b\[31m to create"),
        ("exit 0", "it printed nothing"),
        ("head -c 100000 /dev/zero; exit 0", "it printed nothing"),
        ("cat >/dev/null", "it printed nothing"),
    ],
)
def test_a_sandbox_that_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    """An error of its own, not a verdict on the program."""
    executable(tmp_path / "bwrap", f"#!/bin/sh\n{script}\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(
        JudgeDecodingError, match=rf"The sandbox bwrap does not start \({reason}\); it needs bubblewrap"
    ):
        sandbox_of()
    executable(tmp_path / "bwrap", "no program")
    with pytest.raises(JudgeDecodingError, match=r"The sandbox bwrap does not start \(Exec format error\)"):
        sandbox_of()


def test_a_sandbox_that_hangs_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executable(tmp_path / "bwrap", "#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sandbox, "_START_SECONDS", 0.5)
    with pytest.raises(JudgeDecodingError, match="does not start"):
        sandbox_of()


ENGINE = """#!{python}
import json, os, pathlib, subprocess, sys
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
with (here / "told").open("a") as told: told.write(json.dumps(words) + "\\n")
if words[0] == "rm":
    os.kill(int((here / words[2]).read_text()), 9)
elif "python:3.12" not in words:
    sys.exit("Unable to find image locally\\n" + "docker: Error response: No such image.")
else:
    # The client is a messenger: the container is nobody's child.
    inside = subprocess.Popen([sys.executable, *words[words.index("python:3.12") + 1:]], start_new_session=True)
    (here / words[words.index("--name") + 1]).write_text(str(inside.pid))
    sys.exit(inside.wait())
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is said to an engine that runs containers plainly."""
    executable(tmp_path / request.param, ENGINE.format(python=sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / request.param


def told(engine: Path) -> list[list[str]]:
    return [json.loads(line) for line in (engine.parent / "told").read_text().splitlines()]


def test_a_container(engine: Path) -> None:
    there = sandbox_of(f"{engine.name}:python:3.12")
    assert str(there) == f"{engine.name}:python:3.12"
    limits = SandboxLimits(seconds=5, memory=2**28, file_size=2**20, disk=2**25)
    assert run_program("def add(a, b): return a + b" + TESTS, limits, there).passed
    outcome = run_program("def add(a, b): return a - b" + TESTS, limits, there)
    assert not outcome.passed
    assert outcome.output.endswith("AssertionError\n")
    _, words, _ = told(engine)
    name = words[4]
    assert name.startswith("judge-decoding-")
    assert words == [
        "run", "--rm", "--interactive", "--name", name, "--pull", "never", "--network", "none", "--read-only",
        "--tmpfs", "/tmp:rw,size=33554432,mode=1777", "--shm-size", "33554432",
        "--memory", "335544320", "--memory-swap", "335544320", "--pids-limit", "64", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--user", "65534:65534", "--workdir", "/tmp",
        "--env", "HOME=/tmp", "--env", "TMPDIR=/tmp", "--env", "OMP_NUM_THREADS=1", "--env", "OPENBLAS_NUM_THREADS=1",
        "--env", "MALLOC_ARENA_MAX=1", "--log-driver", "none", "--entrypoint", "python3", "python:3.12",
        "-I", "-B", "-X", "utf8", "-c", isolation._CHILD, "5", "268435456", "1048576",
        str(len("def add(a, b): return a + b" + TESTS)),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_container_is_killed_with_its_time(engine: Path) -> None:
    there = sandbox_of(f"{engine.name}:python:3.12")
    outcome = run_program("import time\ntime.sleep(600)", SandboxLimits(seconds=1), there)
    assert outcome.timed_out
    *_, started, removed = told(engine)
    assert removed == ["rm", "--force", started[4]]
    inside = int((engine.parent / started[4]).read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{inside}/cmdline").exists() and Path(f"/proc/{inside}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_image_that_is_not_there(engine: Path) -> None:
    with pytest.raises(
        JudgeDecodingError,
        match=rf"does not start \(docker: Error response: No such image\.\); .*{engine.name} pull no",
    ):
        sandbox_of(f"{engine.name}:no:1")


COMMANDS = [
    "evaluate --target {none} --out {new} --data {file} --task jsonl(checker=tests) --allow-code-execution",
    "sweep --target {none} --draft prompt-lookup --out {new} --data {file} --task humaneval --allow-code-execution",
    "court collect {file} -o {new} -m {none} --checker tests --allow-code-execution",
]


@pytest.mark.parametrize("command", COMMANDS, ids=[command.split(" -")[0] for command in COMMANDS])
@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ("", "--sandbox docker:IMAGE"),
        ("--sandbox docker:python:3.12", "docker is not installed"),
        ("--sandbox jail", "There is no sandbox 'jail'"),
        ("--sandbox docker:python:3.12 --no-sandbox", "contradict each other"),
    ],
)
def test_where_code_cannot_run_no_model_is_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, options: str, phrase: str
) -> None:
    write_cases(tmp_path / "in.jsonl", [Case(question="q", answer="a", reference="1")])
    monkeypatch.setattr(shutil, "which", lambda name, *_, **__: None)
    places = {"none": "none", "file": "in.jsonl", "new": "new"}
    words = f"{command} {options}".format(**{name: tmp_path / path for name, path in places.items()}).split()
    is_one_sentence(run(*words), phrase)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
