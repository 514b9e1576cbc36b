"""``court collect`` as a user meets it: local models and endpoints, sorted, resumed, and what can go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from commands import Run, needs_bwrap, the_sentence
from endpoint import never
from judge_decoding import Case, JudgeDecoder, read_cases, write_cases
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.io.questions import Question
from judge_decoding.labelling.collect import Answering, AnswerRequest, pairs, seed_of, without_stop
from judge_decoding.labelling.local_writer import LocalWriter
from judge_decoding.reference import pair
from judge_decoding.reference.problems import MAX_NEW_TOKENS, draw_many

Collect = Callable[..., tuple[int, str, str]]

PAIR = ("--model", "reference", "--model", "reference-draft", "--max-new-tokens", MAX_NEW_TOKENS)
TEMPLATE = ("--template", r"Q: {question}\nA:")


@pytest.fixture
def collect(court: Run) -> Collect:
    """Run ``judge-decoding court collect ...``; its exit code, stdout and stderr."""
    return partial(court, "collect")


PROBLEMS = draw_many(0, "test", 10)


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    rows = [{"question": p.question.strip(), "reference": str(p.answer)} for p in PROBLEMS]
    return write_rows(tmp_path / "problems.jsonl", rows)


@pytest.mark.slow
def test_the_embedded_pair_answers_right_and_wrong(collect: Collect, problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    code, told, err = collect(problems, "-o", out, *PAIR, *TEMPLATE, "--checker", "number", "--json")
    assert code == 0, err
    cases = read_cases(out)
    assert list(dict.fromkeys(case.question for case in cases)) == [pair.prompt_of(problem) for problem in PROBLEMS]
    numbers = {pair.prompt_of(problem): problem.answer for problem in PROBLEMS}
    for case in cases:
        last = [word for word in case.answer.replace(".", " ").split() if word.isdigit()][-1]
        assert case.correct == (int(last) == numbers[case.question])
        assert case.reference == str(numbers[case.question])
        assert case.ended
        assert case.source == ""
    figures = json.loads(told)
    for name, folder in (("reference", pair.TARGET), ("reference-draft", pair.DRAFT)):
        decoder = JudgeDecoder.from_pretrained(folder)
        own = [case for case in cases if case.writer == name]
        alone = [decoder.generate(case.question, MAX_NEW_TOKENS).text for case in own]
        assert [case.answer for case in own] == alone
        row = figures["models"][name]
        assert row["answers"] == 10
        assert row["right"] + row["wrong"] == 10
    assert figures["models"]["reference-draft"]["wrong"] > 0
    assert figures["models"]["reference"]["right"] > 0
    assert figures["cases"] == len(cases) == 20 - figures["duplicates"]
    assert not out.with_name("answers.jsonl.part").exists()


def sampled(batch_size: int, questions: list[Question]) -> dict[tuple[str, int], str]:
    found: dict[tuple[str, int], str] = {}
    how = Answering(samples=2, temperature=0.9, seed=5, max_new_tokens=24)
    writer = LocalWriter(str(pair.DRAFT), how, batch_size=batch_size)
    wants = [AnswerRequest(question, sample) for question in questions for sample in range(2)]
    writer.write(wants, lambda want, answer: found.update({(want.question.prompt, want.sample): answer.text}), never)
    return found


def test_samples_do_not_depend_on_the_batch() -> None:
    questions = [Question(text := pair.prompt_of(problem), text) for problem in PROBLEMS[:3]]
    together, alone = sampled(6, questions), sampled(1, questions)
    assert together == alone
    assert sampled(6, questions[2:]) == {key: text for key, text in alone.items() if key[0] == questions[2].prompt}
    assert len(set(alone.values())) > 4  # samples differ
    decoder = JudgeDecoder.from_pretrained(pair.DRAFT)
    for (prompt, sample), text in alone.items():
        params = SamplingParams(temperature=0.9, seed=seed_of(AnswerRequest(Question(prompt, prompt), sample), 5))
        assert decoder.generate(prompt, 24, sampling=params).text == text


def test_a_chat_is_rendered_by_the_target(collect: Collect, problems: Path, tmp_path: Path) -> None:
    """The pair's chat template gives the very prompts of the template."""
    plain, chat, short = tmp_path / "plain.jsonl", tmp_path / "chat.jsonl", ("--limit", 2, "--max-new-tokens", 20)
    assert collect(problems, "-o", plain, *PAIR, *TEMPLATE, *short)[0] == 0
    assert collect(problems, "-o", chat, *PAIR, "--chat", *short, "--batch-size", 2)[0] == 0
    assert read_cases(plain) == read_cases(chat)
    assert {case.correct for case in read_cases(plain)} == {None}


def test_what_is_cut_off_is_not_checked(collect: Collect, problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    args = (problems, "-o", out, "--model", "reference", *TEMPLATE, "--limit", 2, "--checker", "number")
    code, told, _ = collect(*args, "--max-new-tokens", 5)
    assert code == 0
    assert "reference: 2 answers, 2 unchecked, 2 cut off" in told
    assert {(case.ended, case.correct) for case in read_cases(out)} == {(False, None)}
    # A stop string ends an answer, and is no part of it.
    assert collect(*args, "--stop", "shells", "--stop", "7", "--overwrite")[0] == 0
    for case in read_cases(out):
        assert case.ended
        assert "shells" not in case.answer
        assert "7" not in case.answer


def test_without_stop() -> None:
    assert without_stop("one two three", ["three", "two"]) == "one "
    assert without_stop("one", ["x"]) == "one"


def test_a_prompt_that_does_not_fit_fails_alone(collect: Collect, problems: Path, tmp_path: Path) -> None:
    rows = [{"question": "long " * 2000}, {"question": PROBLEMS[0].question.strip()}]
    out = tmp_path / "answers.jsonl"
    args = ("-o", out, "--model", "reference", *TEMPLATE, "--max-new-tokens", 9)
    code, told, err = collect(write_rows(tmp_path / "in.jsonl", rows), *args)
    assert code == 0
    assert "1 answers of reference failed, the first because The prompt has" in err
    assert "1 failed" in told
    assert [case.question for case in read_cases(out)] == [pair.prompt_of(PROBLEMS[0])]
    assert "No question was answered: The prompt has" in the_sentence(
        collect(write_rows(tmp_path / "in.jsonl", rows[:1]), *args, "-o", tmp_path / "none.jsonl")
    )
    assert not (tmp_path / "none.jsonl").exists()


def test_it_goes_on_where_it_was(
    collect: Collect, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the second model, nothing is decoded twice and the result is the same."""
    args = (problems, *PAIR, *TEMPLATE, "--limit", 5, "--batch-size", 2, "--max-new-tokens", 12)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "answers.jsonl"
    assert collect(*args, "-o", whole)[0] == 0
    decoded: list[int] = []
    original = JudgeDecoder.generate_batch

    def counted(self: JudgeDecoder, prompts: Any, *rest: Any, **options: Any) -> Any:
        if len(decoded) == 4:
            decoded.append(0)
            raise KeyboardInterrupt
        decoded.append(len(prompts))
        return original(self, prompts, *rest, **options)

    monkeypatch.setattr(JudgeDecoder, "generate_batch", counted)
    code, _, err = collect(*args, "-o", out)
    assert code == 130
    assert err.splitlines()[-1] == f"Stopped: finished work is kept in {out}.part, and the same command resumes."
    assert not out.exists()
    part = out.with_name("answers.jsonl.part")
    with part.open("a") as file:
        file.write('{"key": ["half')
    assert "started with max_new_tokens 12, not 9" in the_sentence(collect(*args, "-o", out, "--max-new-tokens", 9))
    code, _, err = collect(*args, "-o", out)
    assert code == 0, err
    assert "7 of 10 answers already exist" in err
    assert sum(decoded) == 10
    assert read_cases(out) == read_cases(whole)
    assert not part.exists()


def test_pairs(collect: Collect, problems: Path, tmp_path: Path) -> None:
    args = (problems, *PAIR, *TEMPLATE, "--limit", 8, "--checker", "number")
    out = tmp_path / "pairs.jsonl"
    assert collect(*args, "-o", out, "--pairs")[0] == 0
    cases = read_cases(out)
    assert [case.correct for case in cases] == [True, False] * (len(cases) // 2)
    assert [a.question == b.question for a, b in zip(cases[::2], cases[1::2], strict=True)] == [True] * (
        len(cases) // 2
    )
    right = ("--model", "reference", *TEMPLATE, "--limit", 1, "--checker", "number", "--pairs")
    none = tmp_path / "none.jsonl"
    assert "No question has a right and a wrong answer" in the_sentence(collect(problems, *right, "-o", none))
    assert not none.exists()
    verdicts = [
        ("1", "a", False),
        ("1", "b", True),
        ("1", "c", True),
        ("2", "d", True),
        ("3", "e", None),
        ("3", "f", False),
    ]
    made = [Case(question=question, answer=answer, correct=right) for question, answer, right in verdicts]
    assert [case.answer for case in pairs(made)] == ["b", "a"]


def test_questions_from_many_places(collect: Collect, tmp_path: Path, folders: dict[str, Path]) -> None:
    def asked(*args: object) -> list[tuple[str, str]]:
        out = tmp_path / "out.jsonl"
        code, _, err = collect(*args, "-o", out, "--model", folders["target"], "--max-new-tokens", 2, "--overwrite",
                               "--no-chat")  # fmt: skip
        assert code == 0, err
        return [(case.question, case.reference) for case in read_cases(out)]

    text = tmp_path / "questions.txt"
    text.write_text("one two\n\n  red  \none two\n{cat\n")
    assert asked(text) == [("one two", ""), ("red", ""), ("{cat", "")]
    (tmp_path / "plain").write_text("left\nright\n")
    assert asked(tmp_path / "plain", "--limit", 1) == [("left", "")]
    write_cases(
        tmp_path / "cases.jsonl", [Case(question="one", answer="x", reference="two"), Case(question="up", answer="y")]
    )
    assert asked(tmp_path / "cases.jsonl") == [("one", "two"), ("up", "")]
    rows = [
        {"turns": ["one", "two"], "meta": {"right": 5, "a.b": "dog"}, "prompt": "no"},
        {"turns": ["red"], "meta": {"right": 2.5, "a.b": "cat"}, "prompt": "no"},
    ]
    nested = write_rows(tmp_path / "nested.jsonl", rows)
    fields = ("--prompt-field", "turns.0", "--reference-field", "meta.right")
    assert asked(nested, *fields) == [("one", "5"), ("red", "2.5")]
    templates = ("--template", r"{question}\nup {prompt}", "--reference-template", r"{meta.right}\n({turns.0})")
    assert asked(nested, "--prompt-field", "turns.0", *templates) == [
        ("one\nup no", "5\n(one)"),
        ("red\nup no", "2.5\n(red)"),
    ]


def test_questions_of_a_data_set(
    collect: Collect, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "test.jsonl", [{"q": "one two", "r": "red"}, {"q": "up", "r": "left"}])
    datasets.Dataset.from_list([{"question": "cat"}]).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"dev": datasets.Dataset.from_list([{"question": "dog"}])}).save_to_disk(tmp_path / "dict")
    common = (
        "-o",
        tmp_path / "out.jsonl",
        "--no-chat",
        "--model",
        folders["target"],
        "--max-new-tokens",
        2,
        "--overwrite",
        "--dataset",
    )
    for args, expected in (
        ((tmp_path / "data", "--split", "test", "--prompt-field", "q", "--reference-field", "r"),
         [("one two", "red"), ("up", "left")]),
        ((tmp_path / "saved",), [("cat", "")]),
        ((tmp_path / "dict", "--split", "dev"), [("dog", "")]),
    ):  # fmt: skip
        code, _, err = collect(*common, *args)
        assert code == 0, err
        assert [(case.question, case.reference) for case in read_cases(tmp_path / "out.jsonl")] == expected
    assert "check its name, --dataset-config and --split" in the_sentence(collect(*common, tmp_path / "dict"))
    assert "Cannot load the data set" in the_sentence(collect(*common, tmp_path / "data", "--split", "nothing"))
    assert "Cannot load the data set" in the_sentence(collect(*common, "acme/none"))


def test_bad_rows_are_named_and_the_good_ones_asked(collect: Collect, tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b'{"question": "one"}\n[1]\n{"question": ["two"]}\n{"question": "  "}\n{"nothing": 1}\n{"question": "\xff"}\n'
        b'{"quest'
    )
    out = tmp_path / "out.jsonl"
    code, _, err = collect(path, "-o", out, "--model", folders["target"], "--no-chat", "--max-new-tokens", 2)
    assert code == 0, err
    assert "line 6 is not UTF-8" in err
    assert "line 2 is not a JSON object" in err
    assert "line 3 has list in its field question; give a field that contains text, such as question.0" in err
    assert "line 4 has nothing in its field question" in err
    assert "1 more lines" in err
    assert [case.question for case in read_cases(out)] == ["one"]


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("{file}", "--dataset", "x"), "one of the two"),
        ((), "one of the two"),
        (("{none}",), "Cannot read the questions"),
        (("{empty}",), "has no questions"),
        (("{file}", "--template", "hello"), "has no field such as"),
        (("{file}", "--reference-template", "{{}}"), "has no field such as"),
        (("{file}", "--prompt-field", "x"), "give the field with --prompt-field"),
        (("{file}", "--samples", "3"), "all be the same answer"),
        (("{file}", "--samples", "0"), "samples is 0"),
        (("{file}", "--temperature", "-1"), "temperature is -1"),
        (("{file}", "--top-p", "0"), "--top-p is 0.0"),
        (("{file}", "--max-new-tokens", "0"), "--max-new-tokens is 0"),
        (("{file}", "--stop", ""), "A stop string is empty"),
        (("{file}", "--checker", "nonsense"), "There is no checker nonsense"),
        (("{file}", "--checker", "tests"), "--allow-code-execution"),
        (("{file}", "--pairs"), "need a checker"),
        (("{file}", "--dtype", "int3"), "dtype is int3"),
        (("{file}", "--target", "reference", "--no-chat"), "leave it or --no-chat out"),
        (("{file}", "-o", "{folder}"), "it is a folder"),
        (("{file}", "--model", "{none}"), "Cannot load the tokenizer"),
        (("{file}", "--chat", "--target", "{none}"), "Cannot load the tokenizer"),
    ],
)
def test_what_can_be_wrong(
    collect: Collect, tmp_path: Path, folders: dict[str, Path], args: tuple[str, ...], phrase: str
) -> None:
    file, empty = write_rows(tmp_path / "file.jsonl", [{"question": "one"}]), write_rows(tmp_path / "empty.jsonl", [])
    places = {"file": file, "none": tmp_path / "none", "empty": empty, "folder": tmp_path}
    out = tmp_path / "out.jsonl"
    given = [arg.format(**places) for arg in args]
    assert phrase in the_sentence(collect("-o", out, "--model", folders["target"], "--max-new-tokens", 2, *given))
    assert not out.exists()


@pytest.mark.parametrize("where", [pytest.param((), marks=needs_bwrap), ("--no-sandbox",)])
def test_code_is_checked_by_its_tests(collect: Collect, tmp_path: Path, where: tuple[str, ...]) -> None:
    """HumanEval's fields, answers from a part, as if they had been collected: right and wrong ones."""
    row = {"prompt": "def double(x):\n", "test": "def check(f):\n    assert f(4) == 8", "entry_point": "double"}
    out = tmp_path / "out.jsonl"
    answers = ["    return 2 * x", "    return x", "    return 2 * x\n# again", "    return 2 * x"]
    settings: dict[str, Any] = {
        "temperature": 1.0, "top_p": 1.0, "seed": None, "max_new_tokens": 512, "stop": [], "system": "", "chat": False,
        "raw": False,
    }  # fmt: skip
    lines: list[Any] = [{"settings": settings}]
    lines += [
        {"key": [row["prompt"], "reference", i], "result": {"text": text, "ended": True}}
        for i, text in enumerate(answers)
    ]
    write_rows(out.with_name("out.jsonl.part"), lines)
    code, told, err = collect(
        write_rows(tmp_path / "in.jsonl", [row]), "-o", out, "--model", "reference", "--temperature", 1, "--samples", 4,
        "--template", "{prompt}", "--reference-template", r"{test}\ncheck({entry_point})", "--checker", "tests",
        "--allow-code-execution", "--json", *where,
    )  # fmt: skip
    assert code == 0, err
    figures = json.loads(told)
    assert figures["models"]["reference"]["right"] == 3
    assert figures["models"]["reference"]["wrong"] == 1
    assert figures["duplicates"] == 1
    assert [case.correct for case in read_cases(out)] == [True, False, True]
