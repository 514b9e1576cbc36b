"""What README and docs show is what happens: every block of code runs here, or says before it why it does not.

A block that cannot run here stands after ``<!-- not run: REASON -->``; its commands must still exist with their
options. The others of a page run one after the other, in a folder with the models and files that they name.
"""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

import judge_decoding
from commands import Run, find
from judge_decoding import Case, JudgeDecoder, JudgeHead, PromptFormat, parse_task, read_items, write_cases
from judge_decoding.cli.command import spell_out
from judge_decoding.names import EMBEDDED
from tiny import run_uncompiled

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
# What runs; what is only parsed; what is shown. Anything else is a misspelt fence.
LANGUAGES = {"bash", "python", "json", "jsonl", "toml", "xml", "text"}
# What a command gets besides, where it has such an option: answers to its questions, and less to do.
EXTRA = ("--overwrite", "--yes", "--max-new-tokens=8", "--num-draft-tokens=4", "--tune=1", "--limit=2")


class Block(NamedTuple):
    """A fenced block of a page."""

    why: str | None
    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [Block(match["why"], match["language"] or "none", match["code"]) for match in BLOCK.finditer(text)]
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE)), f"{page.name}: a fence without its end"
    return found


def commands(code: str) -> list[list[str]]:
    """The words of each command, comments left out and continued lines joined."""
    lines = re.sub(r"(?m)(^|\s)# .*$", "", code.replace("\\\n", " "))
    # A quoted argument may have line ends in it, so the whole is split at once.
    split = shlex.shlex(lines, posix=True, punctuation_chars="\n;&")
    split.whitespace, split.whitespace_split, split.commenters = " \t", True, ""
    found: list[list[str]] = [[]]
    for word in split:
        if word.strip("\n;&"):
            found[-1].append(word)
        else:
            found.append([])
    return [words for words in found if words]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def having(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(b.language in languages and not b.why for b in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_runs_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        if block.why:
            continue
        assert block.language in LANGUAGES, block.code
        if block.language == "bash":
            assert {words[0] for words in commands(block.code)} == {"judge-decoding"}, block.code
        elif block.language == "json":
            json.loads(block.code)
        elif block.language == "jsonl":
            [json.loads(line) for line in block.code.splitlines()]
        elif block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "xml":
            ElementTree.fromstring(block.code)
        elif block.language == "text":
            assert not re.search(r"^(judge-decoding|python|make|pip|vllm) ", block.code, re.MULTILINE), block.code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_with_their_options(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for block in blocks(page):
        if block.language not in ("bash", "none"):
            continue
        for words in commands(block.code):
            if words[0] == "judge-decoding":
                command, rest = find(words[1:])
                if command.name == "lm-eval" or "..." in rest:
                    continue
                context = command.context_class(command, info_name=command.name)
                path = " ".join(words[1 : len(words) - len(rest)])
                rest = spell_out(path, rest, command.params)
                values, extra, _ = command.make_parser(context).parse_args(rest)
                assert not extra or command.name == "serve", (words, extra)
                missing = [p.name for p in command.params if p.required and values.get(p.name or "") is None]
                assert not missing, (words, missing)
            elif words[0] == "python" and words[1].endswith(".py"):
                assert (ROOT / words[1]).is_file(), words
            elif words[0] == "make" and len(words) > 1:
                assert f"\n{words[1]}:" in makefile, words


def test_scripts_in_sentences_exist() -> None:
    for page in PAGES:
        for script in re.findall(r"`python ((?:benchmarks|docs|recipes)/\S+?\.py)", page.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file(), (page.name, script)


# Words that were a habit here where English has others: print, report, continue, after, at, fix.
HABITS = re.compile(r"\b(tells?|told|telling|go(?:es|ing)? on|went on|behind|mend(?:s|ed|ing)?)\b", re.IGNORECASE)


def prose() -> Iterator[tuple[str, str]]:
    """Where people read: pages, notebooks, and the strings and public docstrings of the package."""
    for page in [*PAGES, *ROOT.glob("recipes/*/README.md"), *(ROOT / "src").rglob("*.md")]:
        yield page.name, re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield notebook.name, "".join(cell["source"])
    for module in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield module.name, node.value


def test_prose_is_free_of_habits() -> None:
    found = [(where, text[max(0, match.start() - 40) : match.end() + 40])
             for where, text in prose() for match in HABITS.finditer(text)]  # fmt: skip
    # Idioms of files, and a sentence to a grading model, with which its grades were measured.
    idioms = ("comes before it tells you", "leaves nothing behind", "nothing is left behind", "lags behind")
    allowed = re.compile("|".join(idioms).replace(" ", r"\s+"))
    assert [one for one in found if not allowed.search(one[1])] == []


def test_every_public_name_is_in_the_reference() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    listed = re.findall(r"^::: judge_decoding\.(\w+)$", pages, re.MULTILINE)
    assert sorted(listed) == sorted(set(dir(judge_decoding)) - {"__version__"})


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for page in (ROOT / "docs").rglob("*.md"):
        assert re.search(rf"[ :]{re.escape(page.relative_to(ROOT / 'docs').as_posix())}$", menu, re.MULTILINE), (
            page.name
        )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: models, a head, and files of every kind."""
    root = tmp_path_factory.mktemp("docs")
    for name in ("TARGET", "DRAFT"):
        shutil.copytree(EMBEDDED[name.lower()], root / name)  # type: ignore[index]
        template = "{% for m in messages %}Q: {{ m['content'] }}\nA:{% endfor %}"
        (root / name / "chat_template.jinja").write_text(template, encoding="utf-8")
        for file in EMBEDDED["target"].glob("tokenizer*"):
            shutil.copy(file, root / name)
    for name in ("HEAD", "my-judge"):
        shutil.copytree(EMBEDDED["judge"], root / name)
    for name, model in (("SMALL", "DRAFT"), ("LARGE", "TARGET")):
        (root / name).symlink_to(root / model)
    items = read_items(parse_task("arithmetic(count=24)"))
    rows = [{"question": item.turns[0], "prompt": item.turns[0], "reference": item.reference} for item in items[:12]]
    # Calibration asks other questions than those that are trained on.
    task = [{"question": f"Q: {item.turns[0]}\nA:", "reference": item.reference} for item in items[12:]]
    text = "Solution: 3 plus 4 equals 7 shells, and 7 plus 5 equals {} shells. The answer is {} shells."
    wrong = text.index("{}")
    cases = [
        Case(question=f"Q: {row['question']}\nA:", answer=" " + text.format(n, n),
             errors=((wrong + 1, wrong + 3),) if n == 13 else (), correct=n == 12)
        for row in rows
        for n in (12, 13)
    ]  # fmt: skip
    answers = [{"question": case.question, "answer": case.answer, "correct": case.correct} for case in cases]
    steps = ["3 plus 4 equals 7", "7 plus 5 equals 13"]
    ratings = [{"problem": row["question"], "steps": steps, "label": 1} for row in rows]
    for names, lines in (
        (("questions", "prompts"), rows), (("mine",), rows[:3]), (("task",), task), (("answers",), answers),
        (("ratings",), ratings),
    ):  # fmt: skip
        for name in names:
            (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for name, part in (
        ("cases", cases[:16]), ("scored", cases), ("human", cases[:8]), ("mined", cases[8:]), ("train", cases[:12]),
        ("test", cases[12:]), ("more", cases[16:]),
    ):  # fmt: skip
        write_cases(root / f"{name}.jsonl", part)
    # What was measured with this very head.
    for name, results in (("gsm8k", "ood_collection"), ("other-task", "ood_comparison")):
        shutil.copy(ROOT / "benchmarks/results/sweep" / f"{results}.json", root / f"{name}.json")
    shutil.copy(ROOT / "src/judge_decoding/recipes/smollm2-135m-1.7b.yaml", root / "my.yaml")
    return root


@pytest.fixture
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same for one page, which may write there; the current folder."""
    shutil.copytree(models, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run_uncompiled(monkeypatch)
    return tmp_path


def ran(run: Run, words: list[str]) -> None:
    """Run a command with what it can take of `EXTRA`; some options are refused where they would have no effect."""
    command, rest = find(words[1:])
    options = {option for param in command.params for option in param.opts}
    extra = [word for word in EXTRA if word.split("=")[0] in options - set(rest)]
    if command.name == "collect":  # answers that are cut off are not checked, and what follows needs right ones
        extra.remove("--max-new-tokens=8")
    code, out, err = run(*words[1:], *extra)
    while code and (useless := re.search(r"no use for (--[\w-]+)", err)):
        extra = [word for word in extra if word.split("=")[0] != useless[1]]
        code, out, err = run(*words[1:], *extra)
    # `plan` says by its exit code that a recipe does not fit.
    assert code == 0 or command.name == "plan", f"{shlex.join(words)}\n{out}\n{err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", having("bash"), ids=name_of)
def test_commands_run(page: Path, run: Run, folder: Path) -> None:
    if page.stem == "report":
        evaluate = "judge-decoding evaluate --task jsonl(checker=number) --data mine.jsonl --target TARGET --out first"
        ran(run, evaluate.split())
        for name in ("home.jsonl", "away.jsonl"):
            shutil.copy("first/samples.jsonl", name)
    for block in blocks(page):
        if block.language == "bash" and not block.why:
            for words in commands(block.code):
                ran(run, words)


@pytest.fixture(scope="module")
def names(models: Path) -> dict[str, Any]:
    """What the blocks of Python on all pages take for given."""
    decoder = JudgeDecoder.from_pretrained(models / "TARGET", draft=str(models / "DRAFT"), judge=str(models / "HEAD"))
    task = parse_task("arithmetic(count=2)")
    prompt_format = PromptFormat(task)
    return {
        "TARGET": "TARGET", "DRAFT": "DRAFT", "HEAD": "HEAD", "decoder": decoder, "target": decoder.target,
        "tokenizer": decoder.tokenizer, "model": decoder.target, "items": read_items(task),
        "prompt_format": prompt_format,
        "prompt": "Q: Ann has 6 shells. Tom gives Ann 2 shells. How many shells does Ann have now?\nA:",
        "prompts": ["Q: Ann has 6 shells. Ann buys 2 shells. How many shells does Ann have now?\nA:"] * 2,
        "head": JudgeHead.from_pretrained("reference"),
        "cases": list(judge_decoding.read_cases(models / "cases.jsonl")),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", having("python"), ids=name_of)
def test_python_runs(page: Path, folder: Path, names: dict[str, Any]) -> None:
    space: dict[str, Any] = dict(names)
    for block in blocks(page):
        if block.language == "python" and not block.why:
            with redirect_stdout(io.StringIO()):
                exec(compile(block.code, str(page), "exec"), space)


@pytest.mark.slow
def test_the_steps_of_how_it_works_are_those_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_how_it_works as made

    texts, drawn = made.sections()
    page = made.PAGE.read_text(encoding="utf-8")
    assert made.filled(page, texts) == page
    assert drawn == made.PICTURE.read_text(encoding="utf-8")
    assert sys.modules.pop("make_how_it_works") is made
