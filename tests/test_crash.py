"""An exception that nobody expected is one sentence, with the traceback in a log file that it names."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import Run
from judge_decoding import JudgeDecodingError
from judge_decoding.cli import crash

HOSTILE = "x\x1b]0;y\x07\u202e[red]\nError: forged"


class Panic(BaseException):
    """As the one of libraries written in Rust, which is no Exception."""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "judge-decoding"


@pytest.fixture
def ending(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], tuple[int, str, str]]:
    """Run a command that ends so."""

    def call(error: BaseException) -> tuple[int, str, str]:
        def broken() -> None:
            raise error

        monkeypatch.setattr("judge_decoding.cli.rules.built_in", broken)
        return run("rules")

    return call


@pytest.mark.parametrize(
    "error",
    [ValueError(HOSTILE), KeyError("k"), RuntimeError(""), RecursionError("deep"), MemoryError(), Panic("rust"),
     OSError(5, "Input/output error"), AssertionError(), ValueError("long " * 1000),
     UnicodeDecodeError("utf-8", b"\xff", 0, 1, "r")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_it_is_one_sentence_and_a_private_log(ending, state: Path, error: BaseException) -> None:
    code, out, err = ending(error)
    assert (code, out) == (70, "")
    assert err.startswith("Error: Something unexpected went wrong (" + type(error).__name__)
    assert err.count("\n") == 1
    assert err.endswith("; please report it.\n")
    assert len(err) < 1000
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", err)
    (log,) = state.iterdir()
    assert str(log) in err
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert f"{type(error).__name__}" in text.splitlines()[-1] + text
    assert "in broken" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)  # it will be looked at in a terminal
    if sys.platform != "win32":
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (JudgeDecodingError("Our own."), 2, "Error: Our own.\n"),
        (KeyboardInterrupt(), 130, "Stopped: nothing is kept.\n"),
        (SystemExit(3), 3, ""),
        (BrokenPipeError(32, "Broken pipe"), 1, ""),
    ],
    ids=str,
)
def test_what_is_expected_has_no_log(ending, state: Path, error: BaseException, code: int, said: str) -> None:
    assert ending(error) == (code, "", said)
    assert not state.exists()


def test_help_has_no_log(run: Run, state: Path) -> None:
    assert run("--help")[0] == run("rules", "--help")[0] == run("--version")[0] == 0
    assert run("no-such-command")[0] == 2
    assert not state.exists()


@pytest.mark.parametrize(("value", "printed"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_a_variable_prints_the_traceback(ending, state: Path, monkeypatch, value: str, printed: bool) -> None:
    monkeypatch.setenv("JUDGE_DECODING_TRACEBACK", value)
    code, _, err = ending(ValueError(HOSTILE))
    assert code == 70
    assert ("Traceback (most recent call last)" in err) is printed
    assert "\x1b" not in err
    assert err.splitlines()[-1].startswith("Error: Something unexpected")


def test_only_the_newest_logs_stay(ending, state: Path) -> None:
    state.mkdir(parents=True)
    (state / "notes.txt").write_text("another's")
    names = []
    for number in range(crash.KEPT + 5):
        err = ending(ValueError(f"number {number}"))[2]
        names.append(re.findall(r"judge-decoding-\w+\.log", err)[0])
    assert {path.name for path in state.iterdir()} == {*names[-crash.KEPT :], "notes.txt"}


def test_without_a_place_for_state_it_goes_to_the_temporary_folder(ending, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "state").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "state"))
    assert "could not be saved" in ending(ValueError("x"))[2]  # no place at all
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    err = ending(ValueError("x"))[2]
    (log,) = (tmp_path / "temporary").iterdir()
    assert str(log) in err


def test_a_user_without_a_home_gets_the_sentence_too(ending, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    assert str(tmp_path) in ending(ValueError("x"))[2]


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes")
def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m judge_decoding.cli.main plan smollm2-135m-1.7b --json"
    done = subprocess.run(["sh", "-c", f"{command} | head -c 1"], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{", "")
