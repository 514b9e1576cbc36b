"""The starter set: how it is imported and made, what is in it, and that its name stands for it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from commands import Run, is_one_sentence
from judge_decoding import Case, JudgeDecodingError, ask_cases, read_cases, starter_cases, write_cases
from judge_decoding.data import cases as module
from judge_decoding.labelling.formats import FORMATS
from judge_decoding.training.labels import data_hash
from make_starter import LONGEST, chosen, packed
from test_training import word_cases
from tiny import word_tokenizer

SOLVED = {
    "question": "How many?",
    "ground_truth_solution": "2 + 3 = <<2+3=5>>5\n#### 5",
    "model_output_steps": ["Step 1: 2 + 2 = <<2+2=4>>4", "Step 2:  So 4 + 1 = 6, really.", "Step 3: #### 6"],
    "model_output_answer_correctness": "wrong",
    "model_output_solution_correctness": "wrong",
    "model_output_solution_first_error_step": 2,
    "question_type": "original",
}
TRACE = {
    "input": "( [",
    "target": "] )",
    "answer": "]",
    "steps": ["( ; stack: (", "", "[ ; stack: ["],
    "mistake_index": 2,
}


def imported(name: str, tmp_path: Path, *rows: object) -> tuple[list[Case], list[str]]:
    """The cases of these rows, and what is said of the bad ones."""
    path, told = tmp_path / "rows.jsonl", list[str]()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return FORMATS[name].read(path, told.append), told


def marked(case: Case) -> list[str]:
    return [case.answer[start:end] for start, end in case.errors]


def test_mr_gsm8k_as_published(tmp_path: Path) -> None:
    program = SOLVED | {"question_type": "POT", "model_output_solution_first_error_step": 1}
    right = SOLVED | {
        "question_type": "reversed",
        "model_output_solution_correctness": "correct",
        "model_output_solution_first_error_step": "N/A",
        "model_output_answer_correctness": "correct",
        "ground_truth_solution": "",
    }
    found, told = imported("mr-gsm8k", tmp_path, SOLVED, program, right)
    assert not told
    assert [case.answer for case in found[:2]] == ["2 + 2 = 4\nSo 4 + 1 = 6, really.\n#### 6", "2 + 3 = 5\n#### 5"]
    assert [marked(case) for case in found] == [["6"], [], ["2 + 2 = 4"], [], []]
    assert found[0].errors[0][0] == len("2 + 2 = 4\nSo 4 + 1 = ")  # not the 6 at the end
    assert [case.correct for case in found] == [False, True, False, True, True]
    assert [case.source for case in found] == [
        "mr-gsm8k: false equation", "mr-gsm8k: right", "mr-gsm8k: wrong step", "mr-gsm8k: right", "mr-gsm8k: right",
    ]  # fmt: skip
    model, people = "mr-gsm8k: model", "mr-gsm8k: people"
    assert [case.writer for case in found] == [model, people, model, people, model]
    asks = "How many?\nWrite a Python program that prints the answer."
    assert [case.question for case in found] == ["How many?", "How many?", asks, "How many?", "How many?"]
    (reversal,) = {
        case.writer for case in imported("mr-gsm8k", tmp_path, SOLVED | {"question_type": "reversed"})[0][1:]
    }
    assert reversal == "mr-gsm8k: reversed questions"


def test_bigbench_mistake_as_published(tmp_path: Path) -> None:
    sums = {"input": "((1 + 2) * -3) =", "steps": ["(1 + 2) = 4", "4 * -3 = -12"], "mistake_index": 0}
    others = [
        TRACE | {"input": text}
        for text in (
            "rock o'hara at&t",
            "Alice and Bob swap books.\nOptions:\n(A) x.",
            "Three birds.\nOptions:\n(A) x.",
        )
    ]
    clean = TRACE | {"mistake_index": None, "answer": " ] )"}
    found, told = imported("bigbench-mistake", tmp_path, TRACE, sums, *others, clean)
    assert not told
    dyck = "Complete the rest of the sequence, making sure that the parentheses are closed properly. Input: ( ["
    assert [case.question for case in found] == [
        dyck, sums["input"], "Sort the following words alphabetically: List: rock o'hara at&t", others[1]["input"],
        others[2]["input"], dyck,
    ]  # fmt: skip
    assert [case.source.removeprefix("bigbench-mistake/") for case in found] == [
        "dyck_languages: wrong step", "multistep_arithmetic: false equation", "word_sorting: wrong step",
        "tracking_shuffled_objects: wrong step", "logical_deduction: wrong step", "dyck_languages: right",
    ]  # fmt: skip
    assert found[0].answer == "( ; stack: (\n\n[ ; stack: ["
    assert [marked(case) for case in found[:2]] == [["[ ; stack: ["], ["4"]]
    assert [case.correct for case in found] == [False, None, False, False, False, True]
    assert {case.writer for case in found} == {"PaLM 2-L"}


@pytest.mark.parametrize(
    ("name", "row", "phrase"),
    [
        ("mr-gsm8k", {"model_output_steps": []}, "has no steps; give those of the answer"),
        ("mr-gsm8k", {"model_output_steps": None}, "model_output_steps: Input should be a valid"),
        ("mr-gsm8k", {"model_output_steps": [1]}, "model_output_steps.0: Input should be a valid string"),
        ("mr-gsm8k", {"model_output_solution_first_error_step": 4}, "in step 4, but its steps are 1 to 3; correct"),
        ("mr-gsm8k", {"model_output_solution_first_error_step": 0}, "in step 0, but its steps are 1 to 3; correct"),
        ("mr-gsm8k", {"model_output_solution_first_error_step": "2"}, "model_output_solution_first_error_step"),
        (
            "mr-gsm8k",
            {"model_output_solution_first_error_step": "N/A"},
            "is wrong and the first error step N/A; correct",
        ),
        ("mr-gsm8k", {"model_output_solution_correctness": "maybe"}, "Input should be 'correct' or 'wrong'"),
        ("mr-gsm8k", {"model_output_steps": ["a", "Step 2: "]}, "first error in step 2, which is empty; remove"),
        ("bigbench-mistake", {"steps": [""]}, "has no steps; give those of the answer"),
        ("bigbench-mistake", {"mistake_index": 3}, "in step 3, but its steps are 0 to 2; correct the number"),
        ("bigbench-mistake", {"mistake_index": -1}, "in step -1, but its steps are 0 to 2; correct the number"),
        ("bigbench-mistake", {"mistake_index": True}, "mistake_index: Input should be a valid integer"),
        ("bigbench-mistake", {"mistake_index": 1}, "first error in step 1, which is empty; remove the row"),
        ("bigbench-mistake", {"input": 3}, "input: Input should be a valid string; correct or remove it"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_imported(
    name: str, row: dict[str, Any], phrase: str, tmp_path: Path
) -> None:
    good = {"mr-gsm8k": SOLVED, "bigbench-mistake": TRACE}[name]
    found, (told,) = imported(name, tmp_path, good, good | row, good)
    assert found == imported(name, tmp_path, good, good)[0]
    assert phrase in told
    assert ", line 2 " in told
    assert told.endswith(".")
    assert "\n" not in told


def test_what_is_only_read_is_not_exported(court: Run, tmp_path: Path) -> None:
    write_cases(tmp_path / "cases.jsonl", [Case(question="q", answer="a")])
    for name in ("mr-gsm8k", "bigbench-mistake"):
        result = court("export", tmp_path / "cases.jsonl", "-o", tmp_path / "new", "-f", name)
        is_one_sentence(result, f"{name} can only be imported")
        assert not (tmp_path / "new").exists()


def test_what_is_in_the_set() -> None:
    """The figures of its README."""
    cases = starter_cases()
    assert (len(cases), sum(bool(case.errors) for case in cases)) == (2336, 1647)
    text = (module.STARTER_FILE.parent / "README.md").read_text(encoding="utf-8")
    counts = Counter((case.source, case.writer) for case in cases)
    assert all(f"| {source} | {writer} | {count} |" in text for (source, writer), count in counts.items())
    assert sum(line.startswith(("| bigbench-mistake/", "| mr-gsm8k: ")) for line in text.splitlines()) == len(counts)
    assert len({(case.question, case.answer) for case in cases}) == len(cases)
    assert all(case.located and case.writer and len(case.answer) <= LONGEST for case in cases)
    assert all(end > start for case in cases for start, end in case.errors)
    gsm8k = [case.answer for case in cases if case.source.startswith("mr-gsm8k")]
    assert not any("<<" in answer or answer.startswith("Step 1") for answer in gsm8k)
    assert module.STARTER_FILE.stat().st_size < 10**6
    for name in ("LICENSE-MR-GSM8K", "LICENSE-BIG-Bench-Mistake"):
        assert name in text
        assert (module.STARTER_FILE.parent / name).stat().st_size > 1000


def test_the_set_is_made_the_same_whatever_the_order() -> None:
    cases = starter_cases()
    assert chosen(cases[::-1]) == cases
    long = Case(question="q", answer="a" * (LONGEST + 1))
    lost = Case(question="q", answer="a", correct=False)
    some = [cases[0], cases[-1]]
    assert chosen([cases[-1], long, lost, *some]) == some
    assert packed(some) == packed(chosen(some[::-1]))


def test_the_name_stands_for_the_set(court: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = court("starter", "-o", "cases.jsonl")
    assert code == 0, err
    assert out == "2336 cases, 1647 of them wrong, written to cases.jsonl.\n"
    assert read_cases("cases.jsonl") == read_cases("starter") == read_cases(Path("starter")) == starter_cases()
    assert court("check", "starter")[:2] == (0, "2336 good cases, 0 bad lines.\n")


def test_a_file_of_that_name_makes_it_ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = [Case(question="q", answer="a")]
    write_cases("starter", own)
    with pytest.raises(JudgeDecodingError, match="rename the file, or give its full path") as refusal:
        read_cases("starter")
    assert "\n" not in str(refusal.value)
    assert read_cases(tmp_path / "starter") == own
    assert len(starter_cases()) == 2336


def test_plain_questions_are_asked_as_the_target_is() -> None:
    case = Case(question="one two", answer="three four", errors=((6, 10),), judged=((0, 10),))
    chat = word_tokenizer()
    (asked,) = ask_cases([case], chat)
    assert asked.question == chat.apply_chat_template(
        [{"role": "user", "content": "one two"}], tokenize=False, add_generation_prompt=True
    )
    assert (asked.answer, asked.errors, asked.judged) == (case.answer, case.errors, case.judged)
    assert ask_cases([asked], chat) == [asked]
    (plain,) = ask_cases([case], chat, chat=False)
    assert (plain.question, plain.answer) == ("Question: one two\nAnswer:", " three four")
    assert (plain.errors, plain.judged) == (((7, 11),), ((1, 11),))
    assert ask_cases([case], word_tokenizer(chat=False)) == [plain]
    given = case.model_copy(update={"token_ids": (4, 5)})
    assert ask_cases([given], chat) == [given]
    with pytest.raises(JudgeDecodingError, match="has no chat template; leave --chat out"):
        ask_cases([case], word_tokenizer(chat=False), chat=True)


@pytest.fixture
def head_of(run: Run, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Train on files and give the head's configuration and what was said on stderr."""

    def call(*args: object) -> tuple[dict[str, Any], str]:
        code, out, err = run(
            "train", folders["target"], *args, "-o", tmp_path / "head", "--overwrite", "--json", "--no-plots",
            "--cache", tmp_path / "cache",
        )  # fmt: skip
        assert code == 0, err
        return json.loads(out), err

    return call


def test_a_head_from_the_set_and_the_chat_template(
    head_of: Callable[..., Any], target: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, packaged = tmp_path / "own.jsonl", tmp_path / "packaged.jsonl"
    long = Case(question="one", answer="two " * (target.config.max_position_embeddings + 1))
    write_cases(packaged, [*word_cases(), long])
    write_cases(own, word_cases())
    monkeypatch.setattr(module, "STARTER_FILE", packaged)
    chat = word_tokenizer()
    rendered, plain = (data_hash(ask_cases(word_cases(), chat, chat=on)) for on in (True, False))
    config, err = head_of("starter")
    assert config["data"]["sha256"] == rendered
    assert "Left out: 1 answers that are longer than the target's context" in err
    assert head_of("starter", "--no-chat")[0]["data"]["sha256"] == plain
    assert head_of(own, "--chat")[0]["data"]["sha256"] == rendered
    assert head_of(own)[0]["data"]["sha256"] == data_hash(word_cases())
    both = [*ask_cases(word_cases(), chat), *word_cases()]
    assert head_of("starter", own)[0]["data"]["sha256"] == data_hash(both)
