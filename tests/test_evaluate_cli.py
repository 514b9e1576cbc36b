"""``judge-decoding evaluate`` and ``sweep`` as a user meets them."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import LlamaForCausalLM

from commands import Run, ends_in_one_sentence, is_one_sentence
from endpoint import Response, Serve, refused, said
from judge_decoding import Case, Exact, Judge, JudgeDecoder, JudgeDecodingError, VerificationRule, write_cases
from judge_decoding.core.results import TARGET, ResultRow, Results, read_results
from judge_decoding.core.samples import read_samples
from judge_decoding.report.page import results_page
from judge_decoding.report.results import notes, results_tables
from samples import HOSTILE
from test_familiarity import knowing
from tiny import llama

TEXTS = ("one two", "red blue up", "good bad", "seven", "dog left", "up down")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": text, "answer": "red"}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def options(questions: Path, folders: dict[str, Path]) -> list[object]:
    return [
        "--task", "jsonl(checker='regex:(red|blue|up)', reference=answer)", "--data", questions,
        "--target", folders["target"], "--draft", folders["draft"], "--judge", folders["judge"],
        "--max-new-tokens", 10, "--no-chat",
    ]  # fmt: skip


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep of few rules and without its picture: the rules are those of test_trial.py, the picture that of
    test_report_plots.py.
    """

    def rules(decoder: JudgeDecoder, thresholds: Sequence[float]) -> list[VerificationRule]:
        assert decoder.judge is not None
        return [Exact(), Judge(decoder.judge, thresholds[0])]

    monkeypatch.setattr("judge_decoding.cli.run.sweep.default_rules", rules)
    for module in ("cli.run.sweep", "report.page"):
        monkeypatch.setattr(f"judge_decoding.{module}.pareto_svg", lambda _: "<svg/>")


def figures(run: Run, *args: object) -> dict[str, Any]:
    code, out, err = run(*args, "--json")
    assert code == 0, err
    return json.loads(out)


def test_the_figures_are_those_of_the_answers(run: Run, options: list[object], tmp_path: Path) -> None:
    told = figures(run, "evaluate", *options, "--rule", "top_k(k=3)", "--num-draft-tokens", 4, "--out", tmp_path / "o")
    assert (tmp_path / "o" / "results.json").read_text() == json.dumps(told, indent=2) + "\n"
    target, own = told["rows"]
    assert (target["name"], own["name"], own["setting"]) == (TARGET, "top_k(k=3)", "3")
    samples = read_samples(tmp_path / "o" / "samples.jsonl")
    assert [sample.question for sample in samples] == list(TEXTS)
    assert own["right"] == sum(bool(sample.correct) for sample in samples)
    assert target["right"] == sum(bool(sample.target_correct) for sample in samples)
    assert own["tokens"] == sum(len(event.token_ids) for sample in samples for event in sample.rounds)
    assert own["rounds"] == sum(len(sample.rounds) for sample in samples)
    assert own["accepted"] == sum(event.accepted for sample in samples for event in sample.rounds)
    rescued = [any("rescued" in event.causes for event in sample.rounds) for sample in samples]
    assert [sample.lossy for sample in samples] == rescued
    assert any(rescued)
    assert target["tokens_per_forward"] == 1
    assert own["tokens_per_forward"] > 1
    assert own["num_draft_tokens"] == 4
    assert (told["items"], told["data"], told["chat"], told["max_new_tokens"]) == (6, "questions.jsonl", False, 10)
    assert told["command"][1] == "evaluate"
    assert told["dtype"] == "float32"
    assert not list((tmp_path / "o").glob("*.part"))


def test_the_tables_fit_a_terminal(run: Run, options: list[object], tmp_path: Path) -> None:
    code, out, err = run("evaluate", *options, "--out", tmp_path / "o")
    assert code == 0, err
    for phrase in ("accuracy [95%]", "McNemar", "accepted", "speed-up", "6 items", "results.json", "paper's"):
        assert phrase in out
    assert max(len(line) for line in out.splitlines()) <= 160


def test_the_target_alone_is_warmed_up_as_the_method_is(
    run: Run, few: None, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted: list[bool] = []
    for command in ("evaluate", "sweep"):
        monkeypatch.setattr(
            f"judge_decoding.evaluation.{command}.warm_up",
            lambda methods, *_: drafted.extend(method.decoder.draft is not None for method in methods.values()),
        )
    for command in ("evaluate", "sweep"):
        drafted.clear()
        more = ("--tune", 1) if command == "sweep" else ()
        figures(run, command, *options, "--limit", 2, "--num-draft-tokens", 3, *more, "--out", tmp_path / command)
        assert sorted({*drafted}) == [False, True]


def test_in_batches_nothing_is_timed(run: Run, options: list[object], tmp_path: Path) -> None:
    options += ["--limit", 3, "--num-draft-tokens", 3]
    alone = figures(run, "evaluate", *options, "--out", tmp_path / "a")["rows"]
    together = figures(run, "evaluate", *options, "--out", tmp_path / "b", "--batch-size", 2)["rows"]
    counts = ("right", "tokens", "rounds", "accepted")
    assert [[row[name] for name in counts] for row in alone] == [[row[name] for name in counts] for row in together]
    assert "tokens_per_second" in alone[1]
    assert "tokens_per_second" not in together[1]
    assert all(sample.seconds is None for sample in read_samples(tmp_path / "b" / "samples.jsonl"))


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(run: Run, options: list[object], questions: Path, tmp_path: Path) -> None:
    whole = figures(run, "evaluate", *options, "--out", tmp_path / "whole")
    out = tmp_path / "killed"
    part = out / "samples.jsonl.part"
    command = [sys.executable, "-m", "judge_decoding.cli.main", "evaluate", *map(str, options), "--out", str(out)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while (not part.exists() or part.read_bytes().count(b"\n") < 4) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    if not (out / "results.json").exists():  # else it was faster than the signal
        there = part.read_bytes().count(b"\n")
        assert there >= 4
    told = figures(run, "evaluate", *options, "--out", out, "--overwrite")
    counts = ("name", "right", "tokens", "rounds", "accepted", "accuracy_low", "difference", "mcnemar_p")
    assert [[row.get(name) for name in counts] for row in told["rows"]] == [
        [row.get(name) for name in counts] for row in whole["rows"]
    ]


def stopped(*_: object) -> None:
    raise JudgeDecodingError("Stopped.")


# What changes between a run and the one that would go on with it: options, the machine, or a model's weights.
CHANGES: dict[str, list[tuple[tuple[object, ...] | str, str]]] = {
    "evaluate": [
        (("--dtype", "bfloat16"), "started with dtype float32, not bfloat16"),
        (("--num-draft-tokens", 3), "started with num_draft_tokens 4, not 3"),
        (("--system", "be good"), "started with system , not be good"),
        (("--no-target-alone",), "started with target_alone True, not False"),
        ("machine", "started with machine"),
        ("target", "started with weights of the target"),
        ("draft", "started with weights of the draft"),
    ],
    "sweep": [
        (("--tune", 2), "started with tune 1, not 2"),
        (("--num-draft-tokens", 3), "started with num_draft_tokens [4], not [3, 4]"),
        (("--threshold", 0.6), "started with threshold [], not [0.6]"),
        (("--rule", "relaxed"), "started with rule [], not ['relaxed']"),
        (("--every-length",), "started with tune 1, not 0"),
    ],
}


@pytest.mark.parametrize("command", CHANGES)
def test_a_run_goes_on_with_the_same_settings_only(
    run: Run, few: None, options: list[object], folders: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, command: str,
) -> None:  # fmt: skip
    for role in ("target", "draft"):
        shutil.copytree(folders[role], tmp_path / role)
        options[options.index(f"--{role}") + 1] = tmp_path / role
    given = [*options, "--num-draft-tokens", 4, "--out", tmp_path / "o", "--limit", 3]
    given += ["--tune", 1] if command == "sweep" else []
    with monkeypatch.context() as patch:
        patch.setattr("judge_decoding.cli.run.evaluate.write_samples", stopped)
        patch.setattr("judge_decoding.cli.run.sweep.results_page", stopped)
        ends_in_one_sentence(run(command, *given), "Stopped.")
    begun = {path: path.read_bytes() for path in (tmp_path / "o").iterdir()}
    assert begun
    for change, phrase in CHANGES[command]:
        # Beside --every-length, --tune would do nothing.
        words = given[: given.index("--tune")] if change == ("--every-length",) else given
        with monkeypatch.context() as patch:
            if change == "machine":
                patch.setattr("judge_decoding.cli.run.prepare.machine", lambda _: "another")
            elif isinstance(change, str):
                model = llama(0)
                model.lm_head.weight[0, 0] += 0.01
                model.save_pretrained(tmp_path / change)
            ends_in_one_sentence(run(command, *words, *([] if isinstance(change, str) else change)), phrase)
        if change in folders:
            shutil.copytree(folders[str(change)], tmp_path / str(change), dirs_exist_ok=True)
        assert {path: path.read_bytes() for path in (tmp_path / "o").iterdir()} == begun


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"--task": "gms8k"}, "did you mean gsm8k"),
        ({"--task": "gsm8k | arc"}, "several tasks"),
        ({"--task": "humaneval"}, "allow it with --allow-code-execution"),
        ({"--task": "arithmetic"}, "leave --data out"),
        ({"--data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"--rule": "tpo_k(k=2)"}, "did you mean top_k"),
        ({"--temperature": "-1"}, "temperature is -1"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    run: Run, options: list[object], tmp_path: Path, change: dict[str, object], phrase: str
) -> None:
    given = list(options)
    for name, value in change.items():
        if name in given:
            given[given.index(name) + 1] = value
        else:
            given += [name, value]
    ends_in_one_sentence(run("evaluate", *given, "--out", tmp_path / "o"), phrase)
    assert not (tmp_path / "o" / "results.json").exists()


def test_questions_that_were_trained_on_are_refused(run: Run, options: list[object], tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.jsonl", [Case(question="Dog  LEFT", answer="x")])
    more = ("--trained-on", tmp_path / "cases.jsonl", "--out", tmp_path / "o")
    for command in ("evaluate", "sweep"):
        ends_in_one_sentence(run(command, *options, *more), "1 of the 6 questions were also used for training")


def test_a_head_for_another_target_is_refused(
    run: Run, options: list[object], tmp_path: Path, folders: dict[str, Path]
) -> None:
    given = [*options, "--out", tmp_path / "o"]
    given[given.index("--target") + 1] = "reference"
    code, _, err = run("evaluate", *given)
    assert code == 2
    assert "Traceback" not in err


def test_without_a_draft_the_target_is_measured_alone(
    run: Run, questions: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    told = figures(
        run, "evaluate", "--task", "jsonl(reference=answer)", "--data", questions, "--target", folders["target"],
        "--max-new-tokens", 5, "--out", tmp_path / "o",
    )  # fmt: skip
    (row,) = told["rows"]
    assert (row["name"], row["tokens_per_forward"]) == (TARGET, 1)
    assert "accuracy" not in row
    assert told["chat"] is True  # there is a template


def test_options_that_would_do_nothing_are_refused(
    run: Run, questions: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    given = ["--task", "jsonl", "--data", questions, "--target", folders["target"], "--out", tmp_path / "o"]
    for option, value in (("--judge", folders["judge"]), ("--rule", "exact"), ("--num-draft-tokens", 3)):
        is_one_sentence(run("evaluate", *given, option, value), f"Without --draft there is no use for {option}")
    result = run("sweep", *given, "--draft", folders["draft"], "--threshold", 0.5)
    is_one_sentence(result, "Without --judge there is no use for --threshold")


def test_spec_benchs_own_format_comes_with_its_task(run: Run, options: list[object], tmp_path: Path) -> None:
    data = tmp_path / "spec.jsonl"
    rows = [{"question_id": i, "category": "qa", "turns": ["one two", "red"]} for i in (3, 4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = list(options)
    given[1], given[3] = "spec_bench", data
    told = figures(run, "evaluate", *given, "--out", tmp_path / "o")
    lines = [json.loads(line) for line in (tmp_path / "o" / "spec_bench.jsonl").read_text().splitlines()]
    assert [line["question_id"] for line in lines] == [3, 4]
    lengths = [length for line in lines for length in line["choices"][0]["accept_lengths"]]
    assert sum(lengths) / len(lengths) == pytest.approx(told["rows"][1]["tokens_per_forward"])
    assert len(read_samples(tmp_path / "o" / "samples.jsonl")) == 4
    code, _, err = run("evaluate", *given, "--out", tmp_path / "o", "--overwrite", "--batch-size", 2)
    assert code == 0
    assert "not written with --batch-size" in err
    assert not (tmp_path / "o" / "spec_bench.jsonl").exists()


def test_grades_come_from_an_endpoint(run: Run, options: list[object], tmp_path: Path, serve: Serve) -> None:
    data = tmp_path / "mt.jsonl"
    rows = [{"question_id": i, "category": "writing", "turns": ["one two", "red"]} for i in (81, 82)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = serve(lambda body, _: said("Fine.\nGrade: 7"))
    given = list(options)
    given[1], given[3] = "mt_bench", data
    told = figures(run, "evaluate", *given, "--grader", "big", "--out", tmp_path / "o")
    assert [row["grade"] for row in told["rows"]] == [7, 7]
    assert told["grader"] == "big"
    assert len(server.bodies) >= 2
    samples = read_samples(tmp_path / "o" / "samples.jsonl")
    assert [(s.grade, s.target_grade) for s in samples] == [(7, 7)] * 4
    assert len((tmp_path / "o" / "grades.jsonl").read_text().splitlines()) == 8
    code, _, err = run("evaluate", *given, "--out", tmp_path / "o", "--overwrite")
    assert code == 0
    assert "are not graded" in err
    assert not (tmp_path / "o" / "grades.jsonl").exists()


@pytest.mark.parametrize("command", ["evaluate", "sweep"])
def test_grading_that_was_stopped_goes_on(
    run: Run,
    few: None,
    options: list[object],
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    data = tmp_path / "mt.jsonl"
    rows = [{"question_id": i, "category": "writing", "turns": [text]} for i, text in enumerate(TEXTS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    good, part = [2], tmp_path / "o" / "grades.jsonl.part"

    def answer(body: dict[str, Any], number: int) -> Response:
        good[0] -= 1
        if good[0] >= 0:
            return said("Fine.\nGrade: 7")
        # A refusal ends what is still under way: it must not overtake both of the good ones.
        end = time.monotonic() + 30
        while "Fine." not in (part.read_text() if part.exists() else "") and time.monotonic() < end:
            time.sleep(0.01)
        return refused(401, "no")

    serve(answer)
    given = [*options, "--grader", "big", "--out", tmp_path / "o", "--num-draft-tokens", 3]
    given[1], given[3] = "mt_bench", data
    given += ["--tune", 1] if command == "sweep" else []
    ends_in_one_sentence(run(command, *given), "refuses the key")
    kept = part.read_text().count("Fine.")
    assert kept >= 1
    assert not (tmp_path / "o" / "results.json").exists()
    good[0] = 1000
    monkeypatch.delattr("judge_decoding.decoder.JudgeDecoder.generate_batch")  # all answers are there
    told = figures(run, command, *given)
    assert {row["grade"] for row in told["rows"]} == {7}
    assert {row["graded"] for row in told["rows"]} == {told["items"]}
    lines = (tmp_path / "o" / "grades.jsonl").read_text().splitlines()
    assert len(lines) == len(told["rows"]) * told["items"]
    assert not list((tmp_path / "o").glob("*.part"))


def test_what_is_lacking_is_told_before_the_work(
    run: Run, options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judge_decoding.report.head_pictures.find_spec", lambda _: None)
    ends_in_one_sentence(run("sweep", *options, "--out", tmp_path / "o"), "matplotlib")
    data = tmp_path / "mt.jsonl"
    data.write_text(json.dumps({"question_id": 81, "category": "writing", "turns": ["one two"]}))
    given = list(options)
    given[1], given[3] = "mt_bench", data
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ends_in_one_sentence(run("evaluate", *given, "--grader", "big", "--out", tmp_path / "o"), "OPENAI_API_KEY")
    assert not (tmp_path / "o").exists()


def test_the_tables_show_any_task(run: Run, options: list[object], tmp_path: Path) -> None:
    given = list(options)
    given[1] = "jsonl(checker='regex:[/b](red)[i]', reference=answer)"
    code, out, err = run("evaluate", *given, "--out", tmp_path / "o", "--limit", 1)
    assert code == 0, err
    assert "[/b](red)[i]" in out


@pytest.mark.slow
def test_a_sweep_has_the_baselines_and_a_picture(run: Run, options: list[object], tmp_path: Path) -> None:
    out = tmp_path / "o"
    told = figures(
        run, "sweep", *options, "--limit", 3, "--tune", 1, "--threshold", 0.3, "--num-draft-tokens", 2,
        "--num-draft-tokens", 5, "--rule", "relaxed", "--max-new-tokens", 8, "--out", out,
    )  # fmt: skip
    names = [row["name"] for row in told["rows"]]
    assert names[:2] == [TARGET, "exact"]
    for name in ("top_k(k=2)", "top_k(k=2), matched", "kl_judge(tau=0.3, confidence=0.9)", "judge(threshold=0.3)"):
        assert name in names
    assert "relaxed(n=10, delta=0.6), matched" in names
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["exact"]["difference"] == 0
    assert rows["exact"]["lossless"]
    assert not rows["top_k(k=2)"]["lossless"]
    assert rows["top_k(k=2), matched"]["temperature"] == 1
    assert {row["answers"] for row in told["rows"]} == {2}
    assert told["items"] == 2
    assert {row["num_draft_tokens"] for row in told["tuning"]} == {2, 5}
    assert all(row["num_draft_tokens"] in (2, 5) for row in told["rows"][1:])
    page = (out / "sweep.html").read_text()
    assert "<svg" in page
    assert "matched" in page
    assert (out / "sweep.svg").read_text().startswith("<svg")
    written = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(written) == 2 * len(names)
    assert not any(row["lossy"] for row in written if row["method"] in (TARGET, "exact"))
    assert {row["lossy"] for row in written if row["method"] == "top_k(k=2), matched"} == {False}
    alone = {row["item"]: row["text"] for row in written if row["method"] == TARGET}
    greedy = [row for row in written if not row["method"].endswith("matched")]
    assert all(row["lossy"] or row["text"] == alone[row["item"]] for row in greedy)
    assert any(row["lossy"] for row in greedy)
    assert read_results(out / "results.json").rows[1].name == "exact"


def test_a_sweep_of_every_length(run: Run, few: None, options: list[object], tmp_path: Path) -> None:
    told = figures(
        run, "sweep", *options, "--every-length", "--threshold", 0.3, "--num-draft-tokens", 2, "--num-draft-tokens", 5,
        "--out", tmp_path / "o", "--limit", 2,
    )  # fmt: skip
    assert {row["num_draft_tokens"] for row in told["rows"] if row["rule"] == "exact"} == {2, 5}
    assert told["tuning"] == []


def test_both_tell_how_unlike_the_training_questions_the_items_are(
    run: Run, few: None, options: list[object], target: LlamaForCausalLM, tmp_path: Path
) -> None:
    knowing(target).save_pretrained(tmp_path / "judge")
    data = tmp_path / "spec.jsonl"
    rows = [{"question_id": i, "category": "qa", "turns": ["one two", "red"]} for i in (3, 4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [*options, "--num-draft-tokens", 3]
    given[1], given[3] = "spec_bench", data
    given[given.index("--judge") + 1] = tmp_path / "judge"
    one = figures(run, "evaluate", *given, "--out", tmp_path / "e")
    assert len(one["distances"]) == 2  # of the items, not of their turns
    many = figures(run, "sweep", *given, "--every-length", "--out", tmp_path / "s")
    assert many["distances"] == pytest.approx(one["distances"])
    assert many["data_hash"] == one["data_hash"]
    rest = figures(run, "sweep", *given, "--tune", 1, "--out", tmp_path / "t")
    assert rest["distances"] == many["distances"][1:]
    assert rest["data_hash"] != many["data_hash"]  # it is that of the items in the table


def test_names_cannot_steer_the_terminal(run: Run, options: list[object], tmp_path: Path) -> None:
    row = ResultRow(name="[/b] \x1b[2J[red]", rule="x", num_draft_tokens=2, tokens_per_forward=2)
    console = Console(file=io.StringIO(), width=80)
    for table in results_tables(Results(rows=(row,))):
        console.print(table)
    assert r"[/b] \x1b[2J[red]" in console.file.getvalue()  # type: ignore[attr-defined]
    data = tmp_path / "spec.jsonl"
    data.write_text(2 * (json.dumps({"question_id": "a\x1b[2J", "category": "qa", "turns": ["one"]}) + "\n"))
    given = list(options)
    given[1], given[3] = "spec_bench", data
    code, _, err = run("evaluate", *given, "--out", tmp_path / "o")
    assert code == 0
    assert r"key a\x1b[2J of another row" in err
    assert "\x1b[2J" not in err


def test_the_page_of_results_is_escaped() -> None:
    row = ResultRow(
        name=HOSTILE, rule=HOSTILE, num_draft_tokens=2, tokens_per_forward=2, accuracy=0.5, accuracy_low=0.4,
        accuracy_high=0.6, tokens_per_second=3,
    )  # fmt: skip
    page = results_page(Results(task=HOSTILE, target=HOSTILE, rows=(row,), command=(HOSTILE,), versions={"x": HOSTILE}))
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_a_draft_length_at_the_end_of_its_range_is_told() -> None:
    def taking(*lengths: int) -> str:
        rows = [ResultRow(name=str(n), rule="x", num_draft_tokens=n, tokens_per_forward=2) for n in (0, *lengths)]
        tuning = tuple(
            ResultRow(name="x", rule="x", num_draft_tokens=n, tokens_per_forward=2, answers=3) for n in (2, 4, 8)
        )
        return notes(Results(rows=tuple(rows), tuning=tuning))

    assert "2 of 3 are fastest with the shortest or the longest of them" in taking(2, 4, 8)
    assert "fastest of 2, 4, 8 on 3 other items" in taking(4, 4)
    assert "shortest" not in taking(4, 4)
    two = ResultRow(name="x", rule="x", num_draft_tokens=2, tokens_per_forward=2, answers=3)
    assert "shortest" not in notes(Results(rows=(two,), tuning=(two,)))  # there was no choice
