"""Tasks: rows as their data sets have them become questions, bad rows are named, and answers are judged."""

from __future__ import annotations

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import Run
from judge_decoding import JudgeDecodingError
from judge_decoding.io.sandbox import sandbox_of
from judge_decoding.tasks import HubDataset, Item, Task, available_tasks, parse_task, read_items
from judge_decoding.tasks.choices import LETTERS, choice_item
from judge_decoding.tasks.humaneval import HumanEval
from judge_decoding.tasks.jsonl import JSONL
from judge_decoding.tasks.mmlu import MMLU
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.tasks.results import last_choice
from test_checkers import BODY, CHECK, STUB, WHOLE
from test_rule_spelling import install

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"

HUMANEVAL = {
    "task_id": "Test/0", "prompt": STUB, "canonical_solution": BODY, "entry_point": "coprime",
    "test": "\n\nMETADATA = {}\n\n\n" + CHECK.removesuffix("check(coprime)"),
}  # fmt: skip
GSM8K = {"question": "2 + 3?", "answer": "It is <<2+3=5>>5.\n#### 5"}
ANATOMY = {"question": "Which bone?", "subject": "anatomy", "choices": ["Ulna", "Tibia", "Rib", "Atlas"], "answer": 1}
LAW = {"question": "Whose law?", "subject": "jurisprudence", "choices": ["Mine", "Yours", "His", "Ours"], "answer": 3}
NUMBERED = {
    "id": "NYSEDREGENTS_1", "question": "What melts ice?", "answerKey": "3",
    "choices": {"text": ["Cold", "Wind", "Heat"], "label": ["1", "2", "3"]},
}  # fmt: skip
LETTERED = {
    "id": "Mercury_7", "question": "Which is a gas?", "answerKey": "E",
    "choices": {"text": ["Iron", "Salt", "Ice", "Oil", "Air"], "label": ["A", "B", "C", "D", "E"]},
}  # fmt: skip
ON_THE_HUB = {"prompt": ["Who came second?", "And last?"], "category": "reasoning", "prompt_id": 15896981,
              "reference": ["You did.", "Uncertain."]}  # fmt: skip
WITHOUT_REFERENCE = {**ON_THE_HUB, "prompt_id": 3, "category": "writing", "reference": []}
IN_ITS_FILE = {"question_id": 81, "category": "writing", "turns": ["Write a post.", "Shorter."]}
TRANSLATION = {"question_id": 161, "category": "translation", "turns": ["Translate: ja"], "reference": ["yes"]}


def read(task: Task, *rows: Any, folder: Path, on_bad: Any = None) -> list[Item]:
    """The items of these rows, written to a file."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_items(task, path, on_bad=on_bad or pytest.fail)


def test_all_tasks_are_there_and_spell_themselves() -> None:
    assert list(available_tasks()) == [
        "arithmetic", "e2e", "gsm8k", "humaneval", "mmlu", "arc", "mt_bench", "spec_bench", "jsonl",
    ]  # fmt: skip
    for spelling in (
        "gsm8k", "humaneval", "mmlu", "mmlu(subject=anatomy)", "spec_bench(category=rag)", "jsonl",
        r"jsonl(checker='regex:\\boxed\{(\d+)\}', question=q)", 'jsonl(checker="regex:it\'s (.*)")',
    ):  # fmt: skip
        assert str(parse_task(spelling, allow_code=True, sandbox="none")) == spelling


@pytest.mark.parametrize("spelling", ["humaneval", "jsonl(checker=tests)"])
def test_what_runs_code_wants_leave(spelling: str) -> None:
    with pytest.raises(JudgeDecodingError, match=r"runs the code that the models write.*--allow-code-execution"):
        parse_task(spelling)
    task = parse_task(spelling, allow_code=True, sandbox="none")
    assert task.runs_code
    assert str(task.sandbox) == "none"
    assert not parse_task("jsonl(checker=number)").runs_code


def test_where_the_data_is() -> None:
    assert {name: task.source for name, task in available_tasks().items()} == {
        "arithmetic": None,
        "e2e": HubDataset("tuetschek/e2e_nlg", None, "test"),
        "gsm8k": HubDataset("openai/gsm8k", "main", "test"),
        "humaneval": HubDataset("openai/openai_humaneval", None, "test"),
        "mmlu": HubDataset("cais/mmlu", "all", "test"),
        "arc": HubDataset("allenai/ai2_arc", "ARC-Challenge", "test"),
        "mt_bench": HubDataset("HuggingFaceH4/mt_bench_prompts", None, "train"),
        "spec_bench": None,
        "jsonl": None,
    }


@pytest.mark.parametrize("spelling", ["spec_bench", "jsonl(checker=number)"])
def test_tasks_without_data_want_a_file(spelling: str) -> None:
    with pytest.raises(JudgeDecodingError, match="has no data of its own; give a file with --data"):
        read_items(parse_task(spelling))


@pytest.mark.parametrize(
    ("spelling", "row", "item"),
    [
        ("gsm8k", GSM8K, Item("line 1", ("2 + 3?",), GSM8K["answer"])),
        ("mt_bench", ON_THE_HUB, Item("15896981", ("Who came second?", "And last?"),
                                      "To turn 1:\nYou did.\n\nTo turn 2:\nUncertain.", "reasoning")),
        ("mt_bench", {**ON_THE_HUB, "reference": ["", "No."]},
         Item("15896981", ("Who came second?", "And last?"), "To turn 2:\nNo.", "reasoning")),
        ("mt_bench", WITHOUT_REFERENCE, Item("3", ("Who came second?", "And last?"), "", "writing")),
        ("mt_bench", IN_ITS_FILE, Item("81", ("Write a post.", "Shorter."), "", "writing")),
        ("spec_bench", IN_ITS_FILE, Item("81", ("Write a post.", "Shorter."), "", "writing")),
        ("spec_bench", TRANSLATION, Item("161", ("Translate: ja",), "yes", "translation")),
        ("spec_bench", {**TRANSLATION, "reference": [["yes", "yeah"]]},
         Item("161", ("Translate: ja",), "yes; or: yeah", "translation")),
        ("jsonl", {"prompt": "Why?"}, Item("line 1", ("Why?",))),
        ("jsonl(checker=exact)", {"question": "Why?", "reference": 7}, Item("line 1", ("Why?",), "7")),
        ("jsonl(checker=exact, question='q.0', reference=a)", {"q": ["Why?"], "a": "so"},
         Item("line 1", ("Why?",), "so")),
    ],
)  # fmt: skip
def test_rows_become_items(spelling: str, row: Any, item: Item, tmp_path: Path) -> None:
    assert read(parse_task(spelling), row, folder=tmp_path) == [item]


@pytest.mark.parametrize(
    ("spelling", "row", "why"),
    [
        ("gsm8k", {"question": "2 + 3?"}, "has no text in a field answer"),
        ("gsm8k", {"question": " ", "answer": "5"}, "has no text in a field question"),
        ("gsm8k", ["no", "object"], "has no text in a field answer"),
        ("humaneval", {**HUMANEVAL, "test": None}, "has no text in a field test"),
        ("gsm8k", {"question": "2 + \ud800?", "answer": "5"},
         "is not JSON: it has half a surrogate pair, which is not valid text; correct or remove the line"),
        ("mmlu", {**ANATOMY, "answer": 4}, "has 4 choices, and none of them is number 5, the right one"),
        ("mmlu", {**ANATOMY, "answer": -1}, "has 4 choices, and none of them is number 0, the right one"),
        ("mmlu", {**ANATOMY, "answer": True}, "has neither a number nor a letter in its field answer"),
        ("mmlu", {**ANATOMY, "answer": "none"}, "has neither a number nor a letter in its field answer"),
        ("mmlu", {**ANATOMY, "choices": ["one"]}, "has 1 choices; there must be 2 to 8"),
        ("mmlu", {**ANATOMY, "choices": list("123456789")}, "has 9 choices; there must be 2 to 8"),
        ("mmlu", {**ANATOMY, "choices": "abcd"}, "has no list of texts as its choices"),
        ("mmlu", {**ANATOMY, "choices": ["a", 2]}, "has no list of texts as its choices"),
        ("arc", {**LETTERED, "answerKey": "F"}, "has no choice with the label F"),
        ("arc", {**LETTERED, "choices": ["Iron", "Salt"]}, "has no choice with the label E"),
        ("arc", {**LETTERED, "choices": {"label": ["E"]}}, "has no list of texts as its choices"),
        ("mt_bench", {**IN_ITS_FILE, "category": None}, "has no text in a field category"),
        ("mt_bench", {**ON_THE_HUB, "reference": "No."}, "has no list of texts in its field reference"),
        ("mt_bench", {**ON_THE_HUB, "reference": [["a", 1]]}, "has no list of texts in its field reference"),
        ("mt_bench", {**IN_ITS_FILE, "turns": None}, "has no list of texts in its field turns"),
        ("mt_bench", {**IN_ITS_FILE, "turns": []}, "has no text, or an empty one, in its field turns"),
        ("mt_bench", {**ON_THE_HUB, "prompt": "one"}, "has no list of texts in its field prompt"),
        ("mt_bench", {**ON_THE_HUB, "reference": [1]}, "has no list of texts in its field reference"),
        ("spec_bench", {**TRANSLATION, "question_id": None}, "has no question_id"),
        ("spec_bench", {**TRANSLATION, "turns": ["a", " "]}, "has no text, or an empty one, in its field turns"),
        ("jsonl", {"text": "Why?"}, "has no field question; it has text"),
        ("jsonl(checker=number)", {"question": "Why?"},
         "has no reference to check answers with; give its field as in jsonl(reference=answer)"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(spelling: str, row: Any, why: str, tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(JudgeDecodingError, match="has no questions for the task"):
        read(parse_task(spelling, allow_code=True, sandbox="none"), row, folder=tmp_path, on_bad=told.append)
    assert told == [f"{tmp_path / 'rows.jsonl'}, line 1 {why}."]


def test_settings_choose_rows(tmp_path: Path) -> None:
    def keys(spelling: str, *rows: Any) -> list[str]:
        return [item.key for item in read(parse_task(spelling), *rows, folder=tmp_path)]

    assert keys("mmlu", ANATOMY, LAW) == ["line 1", "line 2"]
    assert keys("mmlu(subject=jurisprudence)", ANATOMY, LAW) == ["line 2"]
    spec = (IN_ITS_FILE, TRANSLATION, {**TRANSLATION, "question_id": 401, "category": "math_reasoning"})
    assert keys("spec_bench", *spec) == ["81", "161", "401"]
    assert keys("spec_bench(category=translation)", *spec) == ["161"]
    assert keys("spec_bench(category=mt_bench)", *spec) == keys("mt_bench", *spec) == ["81"]
    with pytest.raises(JudgeDecodingError, match=r"no questions for the task mmlu\(subject=anatomi\); check"):
        keys("mmlu(subject=anatomi)", ANATOMY)


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    for name, content in (("a.jsonl.gz", json.dumps(GSM8K)), ("b.txt.gz", "{a set of questions}?")):
        (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert [item.turns for item in read_items(parse_task("gsm8k"), tmp_path / "a.jsonl.gz")] == [("2 + 3?",)]
    assert [item.turns for item in read_items(JSONL(), tmp_path / "b.txt.gz")] == [("{a set of questions}?",)]
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"x" * 9)[:-4])
    with pytest.raises(JudgeDecodingError, match=r"c\.gz: it is a damaged gzip file; download it again"):
        read_items(JSONL(), tmp_path / "c.gz")


def test_rows_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the library datasets gives them, lists inside columns and all."""
    import datasets

    answers = datasets.Features(
        {"question": datasets.Value("string"), "subject": datasets.Value("string"),
         "choices": datasets.List(datasets.Value("string")), "answer": datasets.ClassLabel(names=list("ABCD"))}
    )  # fmt: skip
    saved = {
        "mmlu": datasets.Dataset.from_list([ANATOMY, LAW], features=answers),
        "arc": datasets.Dataset.from_list([NUMBERED, LETTERED]),
        "mt_bench": datasets.Dataset.from_list([ON_THE_HUB, WITHOUT_REFERENCE]),
    }
    found = {}
    for name, data in saved.items():
        data.save_to_disk(tmp_path / name)
        task = parse_task(name)
        monkeypatch.setattr(type(task), "source", HubDataset(str(tmp_path / name)))
        found[name] = [(item.key, item.reference) for item in read_items(task, on_bad=pytest.fail)]
    assert found == {
        "mmlu": [("row 0", "B"), ("row 1", "D")],
        "arc": [("NYSEDREGENTS_1", "C"), ("Mercury_7", "E")],
        "mt_bench": [("15896981", "To turn 1:\nYou did.\n\nTo turn 2:\nUncertain."), ("3", "")],
    }


def humaneval(folder: Path) -> tuple[HumanEval, Item]:
    task = HumanEval()
    task.sandbox = sandbox_of("none")
    (item,) = read(task, HUMANEVAL, folder=folder)
    return task, item


def test_humaneval_goes_on_with_the_program_or_asks_for_it(tmp_path: Path) -> None:
    task, item = humaneval(tmp_path)
    assert PromptFormat(task).prompt(item) == STUB
    assert PromptFormat(task, system="# Python 3").prompt(item) == f"# Python 3\n{STUB}"
    (message,) = list(PromptFormat(task, chat=True).prompt(item))
    assert isinstance(message, dict)
    assert message["content"].startswith("Complete this Python function.")
    assert f"```python\n{STUB}\n```" in message["content"]


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (BODY, True),
        (BODY.removeprefix(" "), True),  # a decoder of SentencePiece lost it
        (BODY.removeprefix("  "), False),  # that is the model's own fault
        (" " + BODY, False),
        ("    if a > b:\n        return True\n    return gcd(a, b) == 1\n", False),
        ("   return gcd(a, b) > 1\n", False),
        ("    pass\n", False),
        ("", False),
        (f"Here it is:\n```python\n{WHOLE}```\nIt uses gcd.", True),
        (f"```python\n{BODY}```", True),
        (WHOLE, True),
        (WHOLE.replace("==", ">"), False),
    ],
)
def test_humaneval_is_checked_by_its_tests(answer: str, right: bool, tmp_path: Path) -> None:
    task, item = humaneval(tmp_path)
    assert task.check(item, answer) is right


def test_choices_are_lettered(tmp_path: Path) -> None:
    (item,) = read(parse_task("arc"), NUMBERED, folder=tmp_path)
    assert item.turns[0].startswith("What melts ice?\n\nA. Cold\nB. Wind\nC. Heat\n\nReason briefly.")
    assert item.reference == "C"
    (item,) = read(MMLU(), {**ANATOMY, "answer": "D"}, folder=tmp_path)
    assert (item.reference, item.category) == ("D", "anatomy")


@pytest.mark.parametrize(
    ("spelling", "row"), [("mmlu", {**ANATOMY, "answer": 3}), ("arc", {**LETTERED, "answerKey": "D"})]
)
def test_choices_are_checked_by_the_named_letter(spelling: str, row: Any, tmp_path: Path) -> None:
    task = parse_task(spelling)
    (item,) = read(task, row, folder=tmp_path)
    answers = {"A or D?\nAnswer: D": True, "D is tempting.\nAnswer: A": False, "A D": True, "D A": False, "": False}
    assert {answer: task.check(item, answer) for answer in answers} == answers


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("Ice melts when warm.\nAnswer: C", "C"),
        ("Answer: A? No.\n**Answer:** (B)", "B"),
        ("The answer is D. A cold wind would not do. I am sure.", "D"),
        ("ANSWER: **C**.", "C"),
        ("The correct answer is: \n\nB", "B"),
        (" C\n", "C"),
        ("It must be (B), I think.", "B"),
        ("Answer: $\\boxed{B}$", "B"),
        ("The answer is a gas.", None),
        ("Answer: Cold", None),
        ("A's B's", None),
        ("Answer: B12", None),
        ("", None),
    ],
)
def test_the_named_letter_counts(answer: str, letter: str | None) -> None:
    assert last_choice(answer, LETTERS) == letter


@given(st.integers(0, 7), st.text(max_size=40), st.text(max_size=40))
def test_an_answer_in_the_form_that_was_asked_for_is_always_read(place: int, before: str, after: str) -> None:
    item = choice_item("1", "What?", [f"thing {n}" for n in range(8)], place)
    assert last_choice(f"{before}\nAnswer: {item.reference}", LETTERS) == LETTERS[place]
    read = last_choice(f"{before}\nAnswer: {item.reference}\n{after}", LETTERS)
    assert read in (LETTERS[place], last_choice(f"Answer: {after}", LETTERS))


@pytest.mark.parametrize(
    ("spelling", "row", "answers"),
    [
        ("jsonl(checker=number)", {"question": "2 + 3?", "reference": 5}, {"It is 5.0": True, "6": False}),
        ("jsonl(checker=choice)", {"question": "2 + 3?", "reference": "(B)"}, {"So B": True, "A": False}),
        (r"jsonl(checker='regex:<(\d+)>')", {"question": "2 + 3?", "reference": "<5>"}, {"<4><5>": True, "5": False}),
        ("jsonl", {"question": "2 + 3?", "reference": "5"}, {"5": None}),
        ("jsonl(checker=tests)", {"question": STUB, "reference": CHECK}, {BODY: True, "    pass\n": False}),
    ],
)
def test_ones_own_file_is_checked_as_one_says(spelling: str, row: Any, answers: Any, tmp_path: Path) -> None:
    task = parse_task(spelling, allow_code=True, sandbox="none")
    (item,) = read(task, row, folder=tmp_path)
    assert {answer: task.check(item, answer) for answer in answers} == answers
    assert task.scoring == ("none" if None in answers.values() else "check")


def test_a_checker_must_be_there() -> None:
    with pytest.raises(JudgeDecodingError, match=r"There is no checker numbr \(did you mean number\?\)"):
        parse_task("jsonl(checker=numbr)")


def test_what_is_not_checked_cannot_be_told() -> None:
    for spelling, scoring in (("mt_bench", "grade"), ("spec_bench", "none")):
        task = parse_task(spelling)
        assert task.scoring == scoring
        assert task.check(Item("1", ("a",), "b"), "b") is None


def test_an_installed_package_brings_a_task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one on the page."""
    page = PAGE.read_text(encoding="utf-8").partition("As a class")[2]
    source, project = (re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "toml"))
    assert source
    assert project
    install(tmp_path, source[1], project[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_tasks", raising=False)
    task = parse_task("acme_boolq")
    assert task.source == HubDataset("google/boolq", None, "validation")
    (item,) = read(task, {"question": "is ice cold", "passage": "Ice.", "answer": True}, folder=tmp_path)
    assert item == Item("line 1", ("Ice.\n\nis ice cold? End with yes or no.",), "yes")
    assert [task.check(item, answer) for answer in ("Well: Yes.\n", "No", "")] == [True, False, False]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nonsense_that_is_not_there", "cannot be imported (ModuleNotFoundError"),
        ("Bad = 5", "is not a Task of that name"),
        ("from judge_decoding.tasks.gsm8k import GSM8K as Bad", "is not a Task of that name"),
    ],
)
def test_a_package_whose_task_is_broken_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, message: str
) -> None:
    points = "[project.entry-points.'judge_decoding.tasks']\nbad='bad_tasks:Bad'\n"
    install(tmp_path, source, f"[project]\nname='bad-tasks'\nversion='1'\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bad_tasks", raising=False)
    with pytest.raises(JudgeDecodingError, match=re.escape(f"The task bad of the package bad-tasks {message}")):
        parse_task("bad")
    assert parse_task("gsm8k").name == "gsm8k"  # others are not kept from work by it


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "def item(self, row, location): return Item(location, (row['no'],))",
            "fails at line 1 (KeyError: 'no'); repair",
        ),
        ("def item(self, row, location): return row", "fails at line 1 (TypeError: item gives dict"),
        ("def rows(self, data, on_bad): return 1 / 0", "fails at its data (ZeroDivisionError"),
        ("def plain(self, messages): return messages[9]", "fails at line 1 (IndexError"),
        (
            "def check(self, item, answer): raise ValueError('a\\n\\x1b[2Jb')",
            r"fails at line 1 (ValueError: a \x1b[2Jb)",
        ),
        ("def check(self, item, answer): text_of({}, 'q')", "fails at line 1 (RowError: has no text in a field q"),
        ("def check(self, item, answer): return 1", "fails at line 1 (TypeError: check gives int, not True, False or"),
    ],
)
def test_what_another_packages_task_does_wrong_is_one_sentence(
    body: str, message: str, folders: dict[str, Path], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from judge_decoding.tasks import Item, Task, text_of\n\n\nclass Bad(Task):\n    name = 'bad'\n\n"
        "    def item(self, row, location):\n        return Item(location, (row['q'],))\n\n"
        f"    {body}\n"
    )
    points = "[project.entry-points.'judge_decoding.tasks']\nbad='bad_tasks:Bad'\n"
    install(tmp_path, source, f"[project]\nname='bad-tasks'\nversion='1'\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bad_tasks", raising=False)
    (tmp_path / "rows.jsonl").write_text('{"q": "one two"}\n')
    code, _, err = run("evaluate", "--task", "bad", "--data", tmp_path / "rows.jsonl", "--target", folders["target"],
                       "--no-chat", "--max-new-tokens", 2, "--out", tmp_path / "o")  # fmt: skip
    assert code == 2
    assert err.startswith(f"Error: The task bad {message}")
    assert err.count("\n") == 1


def test_rows_with_one_key_are_named(tmp_path: Path) -> None:
    told: list[str] = []
    again = {**IN_ITS_FILE, "turns": ["Another."]}
    assert len(read(parse_task("spec_bench"), IN_ITS_FILE, again, folder=tmp_path, on_bad=told.append)) == 1
    assert "line 2 has the key 81 of another row" in told[0]


def test_the_pair_is_told_what_the_system_says() -> None:
    item = Item("1", ("How many?",), "3")
    assert PromptFormat(parse_task("arithmetic"), system="Be brief.").prompt(item) == "Be brief.\nQ: How many?\nA:"


def test_the_page_names_all_tasks_and_where_their_data_is() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("|---")[2].partition("\n\n")[0]
    for name, task in available_tasks().items():
        assert f"| `{name}" in table
        assert task.source is None or task.source.dataset in table
    for spelling in re.findall(r"`(\w+\([^`]*\))`", table):
        assert str(parse_task(spelling)) == spelling or spelling == "arithmetic(family=comparison)"


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ("gsm", "There is no task gsm (did you mean gsm8k?); the tasks are arithmetic, e2e, gsm8k, humaneval, mmlu"),
        ("gsm8k | arc", "'gsm8k | arc' names several tasks; give one at a time"),
        ("gsm8k(subject=x)", "The task gsm8k has no parameter subject; it has none"),
        ("mmlu(subject=7)", "mmlu's subject is 7; it must be a word"),
        ("arithmetic(family=x)", "arithmetic's family is x; it must be collection or comparison"),
    ],
)
def test_tasks_that_are_not_there(spelling: str, message: str) -> None:
    with pytest.raises(JudgeDecodingError, match=re.escape(message)):
        parse_task(spelling)
