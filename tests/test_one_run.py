"""One run at an output: the second one is refused and told who is there; what a killed one leaves locks nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from commands import Run, ends_in_one_sentence
from endpoint import Response, Serve, asked, said
from judge_decoding import FitConfig, JudgeDecoder, JudgeDecodingError, fit_head, read_cases, write_cases
from judge_decoding.data.cases import Case
from judge_decoding.io.locks import one_run
from judge_decoding.labelling.annotate.reading import ReadingModels, read_answers
from judge_decoding.labelling.annotate.storage import DecisionLog, readings_path

HOLDER = """
import sys, time
from pathlib import Path
from judge_decoding.io.locks import one_run
with one_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(output: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``output``."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]  # it is a pipe


def test_the_second_run_is_told_who_is_there(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.jsonl"
    with (
        held(out) as process,
        pytest.raises(JudgeDecodingError, match=rf"out.jsonl is being written by process {process.pid} on .* since 20"),
        one_run(out),
    ):
        raise AssertionError
    with one_run(out):  # the other one was killed, and its lock file is there
        pass
    assert list((tmp_path / "deep").iterdir()) == []


def test_it_is_the_file_and_not_its_name_that_is_held(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("out.jsonl")
    with one_run(tmp_path / "out.jsonl"):
        for name in (tmp_path / "link", tmp_path / ".." / tmp_path.name / "out.jsonl"):
            with pytest.raises(JudgeDecodingError, match=f"process {os.getpid()} "), one_run(name):
                raise AssertionError
        with one_run(tmp_path / "other.jsonl"):
            pass


def test_nothing_is_left_whatever_happens_inside(tmp_path: Path) -> None:
    def work() -> None:
        with one_run(tmp_path / "new" / "deep" / "out"):
            assert (tmp_path / "new" / "deep" / "out.lock").exists()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        work()
    assert list(tmp_path.iterdir()) == []
    with one_run(tmp_path / "new" / "out"):
        (tmp_path / "new" / "out").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "out"]


def test_a_lock_file_of_another_user_locks_nothing(tmp_path: Path) -> None:
    with one_run(tmp_path / "out"):
        assert (tmp_path / "out.lock").stat().st_mode & 0o666 == 0o666
    (tmp_path / "out.lock").write_text("process 1 on elsewhere since long ago, and \x1b[31mmore" + "x" * 1000)
    with one_run(tmp_path / "out"):
        assert (tmp_path / "out.lock").read_text().startswith(f"process {os.getpid()} on ")


def test_what_a_lock_file_says_is_one_short_line(tmp_path: Path) -> None:
    with one_run(tmp_path / "out"):
        (tmp_path / "out.lock").write_text("a\n\x1b[31mb" + "x" * 1000)
        with (
            pytest.raises(JudgeDecodingError, match=r"by a \\x1b\[31mbx{180,200}; wait") as refusal,
            one_run(tmp_path / "out"),
        ):
            raise AssertionError
    assert "\x1b" not in str(refusal.value)


def test_where_there_are_no_locks_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with one_run(tmp_path / "out"), one_run(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_start_at_once_one_runs_at_a_time(tmp_path: Path) -> None:
    """As files of locks come and go, nobody holds one that is gone."""
    inside, most, done, stop = 0, 0, 0, time.monotonic() + 30
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most, done
        while done < 100 and time.monotonic() < stop:
            try:
                with one_run(tmp_path / "out"):
                    with counting:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0.0005)
                    with counting:
                        inside -= 1
                        done += 1
            except JudgeDecodingError:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert done >= 100
    assert list(tmp_path.iterdir()) == []


# The commands


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    write_cases(path, [Case(question=f"Q{i}?", answer="1 + 1 = 3", correct=False) for i in range(12)])
    return path


COMMANDS = {
    "court collect": "{questions} -o {out}/o.jsonl -m openai:m",
    "court label llm": "{questions} -o {out}/o.jsonl -m m --yes",
    "court label likelihood": "{questions} -o {out}/o.jsonl --target {target} --draft {draft} --label-threshold 1 -y",
    "court label equivalence": "{questions} -o {out}/o.jsonl --target {target} --draft {draft} --yes",
    "evaluate": "--task jsonl --data {questions} --target {target} -o {out}",
    "sweep": "--task jsonl --data {questions} --target {target} --draft {draft} -o {out}",
    "fit": "--prompts {questions} --target {target} --draft {draft} -o {out} --yes",
    "train": "{target} {questions} -o {out} --aim accuracy --calibrate-on {questions} --draft {draft}",
}
HELD = {"evaluate": "results.json", "sweep": "results.json", "fit": "", "train": ""}
"""What of the folder is held; of the other commands it is the output itself."""


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_every_command_that_resumes_is_alone(
    run: Run,
    folders: dict[str, Path],
    questions: Path,
    tmp_path: Path,
    name: str,
    overwrite: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    out = tmp_path / "out"
    args = COMMANDS[name].format(questions=questions, out=out, **folders).split()
    with held(out / HELD.get(name, "o.jsonl")) as process:
        before = sorted(tmp_path.rglob("*"))
        refused = run(*name.split(), *args, *(["--overwrite"] if overwrite else []))
        ends_in_one_sentence(refused, f"is being written by process {process.pid} on ")
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("other", ["B", "A"])
def test_two_runs_of_collect_never_mix(serve: Serve, questions: Path, tmp_path: Path, other: str) -> None:
    """Started together with the same or another system message, killed, and gone on with."""

    def answer(body: dict[str, Any], _: int) -> Response:
        time.sleep(0.3)
        return said(f"by {body['messages'][0]['content']}")

    server, out = serve(answer), tmp_path / "o.jsonl"
    part = tmp_path / "o.jsonl.part"

    def start(system: str) -> subprocess.Popen[str]:
        command = ["court", "collect", str(questions), "-o", str(out), "-m", "openai:m", "--system", system]
        return subprocess.Popen(
            [sys.executable, "-m", "judge_decoding.cli.main", *command, "--concurrency", "2"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    runs, end = [start("A"), start(other)], time.monotonic() + 60
    while time.monotonic() < end and not (
        part.exists() and part.read_bytes().count(b"\n") > 4 and any(process.poll() is not None for process in runs)
    ):
        time.sleep(0.02)
    over = [process.poll() for process in runs]
    assert sorted(over, key=str) == [2, None]
    refused, living = runs[over.index(2)], runs[over.index(None)]
    living.send_signal(signal.SIGKILL)
    living.communicate()
    assert f"is being written by process {living.pid} on " in refused.communicate()[1]
    assert (tmp_path / "o.jsonl.lock").exists()
    first, *rows = [json.loads(line) for line in part.read_text().splitlines()]
    system = first["settings"]["system"]
    assert {row["result"]["text"].strip() for row in rows} == {f"by {system}"}
    asked_before = len(server.bodies)
    assert start(system).communicate(timeout=60) is not None
    assert [case.answer.strip() for case in read_cases(out)] == [f"by {system}"] * 12
    assert not part.exists()
    assert not (tmp_path / "o.jsonl.lock").exists()
    assert len(server.bodies) - asked_before == 12 - len(rows)
    assert {asked(body) for body in server.bodies} == {f"Q{i}?" for i in range(12)}


def test_fit_in_two_threads(
    target: LlamaForCausalLM, draft: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The Python function holds its folder as the command does."""
    out = tmp_path / "head"
    with one_run(out), pytest.raises(JudgeDecodingError, match="head is being written by process"):
        fit_head(JudgeDecoder(target, tokenizer, draft), ["one", "two", "three"], out, FitConfig(share=0.5))
    assert list(tmp_path.iterdir()) == []


def test_readings_are_made_by_one(folders: dict[str, Path], tmp_path: Path) -> None:
    cases, reader = [Case(question="one", answer=" two")], ReadingModels(str(folders["target"]))
    path = readings_path(tmp_path)
    with one_run(path), pytest.raises(JudgeDecodingError, match=rf"{path.name} is being written by"):
        read_answers(cases, reader, tmp_path)
    assert len(read_answers(cases, reader, tmp_path)) == 1
    with one_run(readings_path(tmp_path)):  # where all is read nothing is written
        assert len(read_answers(cases, reader, tmp_path)) == 1


def test_a_decision_log_is_open_once(tmp_path: Path) -> None:
    with DecisionLog(tmp_path / "log.jsonl"), pytest.raises(JudgeDecodingError):
        DecisionLog(tmp_path / "log.jsonl")
    DecisionLog(tmp_path / "log.jsonl").close()
