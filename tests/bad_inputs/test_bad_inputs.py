"""Bad inputs of every command: each is answered by one sentence and exit code 2, at once, and leaves nothing behind."""

from __future__ import annotations

import shlex
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bad import Bad, copy, one
from bad_endpoints import COLLECT, ENDPOINTS, MISBEHAVIOUR
from bad_files import FILES
from bad_heads import HEADS
from bad_models import MODELS
from bad_options import OPTIONS
from bad_outputs import OUTPUTS
from bad_templates import TEMPLATES
from transformers import GenerationConfig, LlamaConfig

from commands import Run, commands
from endpoint import Response, Serve
from judge_decoding import Case, JudgeDecodingError, write_cases
from judge_decoding.decoding.backends.static.compiling import default_folder as compiled
from judge_decoding.reference import pair
from judge_decoding.training.features import default_folder as features
from tiny import with_own_generate

ROWS = [*FILES, *HEADS, *MODELS, *TEMPLATES, *OPTIONS, *OUTPUTS, *ENDPOINTS]
SECONDS = 20
LONGEST = 1000
"""Characters of a sentence; paths in it may be long."""


class TooLongError(BaseException):
    """Not caught by anything in between."""


@contextmanager
def at_once() -> Iterator[None]:
    """Stop what takes too long."""

    def stop(*_: object) -> None:
        raise TooLongError

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@pytest.fixture(scope="session")
def good(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One good thing of each kind."""
    root = tmp_path_factory.mktemp("good")
    names = {
        "cases": "cases.jsonl", "scored": "scored.jsonl", "questions": "questions.jsonl", "recipe": "recipe.yaml",
        "sums": "sums.jsonl", "prompts": "prompts.jsonl",
    }  # fmt: skip
    places = {name: root / file for name, file in names.items()}
    answers = [Case(question=f"one {word}", answer=" good cat", reference="1") for word in ("two", "three", "four")]
    wrong = [Case(question=case.question, answer=" bad dog", errors=((1, 4),)) for case in answers]
    write_cases(places["cases"], [*answers, *wrong])
    write_cases(places["questions"], answers)
    write_cases(places["sums"], [Case(question="How many?", answer="2 + 2 = 5, so 5.", reference="4")])
    write_cases(places["prompts"], [Case(question=f"one {i}", answer="", reference="1") for i in range(40)])
    write_cases(places["scored"], [Case(question="one", answer=" two", judged=((0, 4),), score=0.5, token_ids=(4, 5))])
    recipes = Path(pair.__file__).parents[1] / "recipes"
    places["recipe"].write_text((recipes / "qwen3-0.6b-8b.yaml").read_text())
    return {**places, **folders, "results": pair.JUDGE / "results.json", "reference": pair.JUDGE}


def everything(*roots: Path) -> dict[Path, tuple[int, int]]:
    """All that is below, and size and time of the files."""
    found = ((path, path.lstat()) for root in roots for path in [root, *root.rglob("*")])
    return {path: (0, 0) if path.is_dir() else (facts.st_size, facts.st_mtime_ns) for path, facts in found}


def check(bad: Bad, good: dict[str, Path], run: Run, root: Path) -> None:
    """The command says one sentence, and leaves everything as it was."""
    places = {**good, "bad": root / "bad", "new": root / "new"}
    bad.make(places["bad"], good)
    before = everything(root, *good.values())
    with at_once():
        code, out, err = run(*(part.format(**places) for part in shlex.split(bad.command)), stdin="y\n" * 9)
    assert "Traceback" not in out + err
    assert code == 2, out + err
    assert bad.says.format(**places) in " ".join(err.replace("│", " ").split())
    assert len(err) < 20 * LONGEST
    if not bad.usage:
        # How prompts are put is told on the way.
        *notes, sentence = [line for line in err.splitlines() if not line.startswith("Using the chat template")]
        assert sentence.startswith("Error: ")
        assert sentence.endswith(".")
        assert len(sentence) < LONGEST
        assert bad.notes or not notes
    assert everything(root, *good.values()) == before


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that all else is in which a command may write without being told to."""
    for name in ("here", "temporary", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("bad", ROWS, ids=[f"{row.command.split(' {')[0]}: {row.name[:60]}" for row in ROWS])
def test_it_is_one_sentence(
    bad: Bad, good: dict[str, Path], run: Run, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bad.environment.items():
        monkeypatch.setenv(name, value)
    check(bad, good, run, root)


@pytest.mark.parametrize(("name", "response"), MISBEHAVIOUR, ids=[name for name, _ in MISBEHAVIOUR])
def test_an_endpoint_that_misbehaves(
    name: str, response: Response, good: dict[str, Path], run: Run, root: Path, serve: Serve
) -> None:
    serve(lambda *_: response)
    check(Bad(name, COLLECT, ""), good, run, root)


FIELDS = [
    *(("config.json", field) for field in LlamaConfig().to_dict()),
    *(("generation_config.json", field) for field in GenerationConfig().to_dict()),
    *(("tokenizer_config.json", field) for field in ("bos_token", "added_tokens_decoder", "backend")),
]


@pytest.mark.parametrize(("file", "field"), FIELDS, ids=[f"{field} in {file}" for file, field in FIELDS])
def test_a_field_that_is_an_object_is_a_sentence_or_no_matter(
    file: str, field: str, good: dict[str, Path], run: Run, root: Path
) -> None:
    copy("target", inside=file, **one(field, {"a": "b"}))(root / "model", good)
    code, out, err = run(
        "generate", root / "model", "one", "--draft", "prompt-lookup", "--max-new-tokens", 2, "--plain"
    )
    assert code in (0, 2)
    assert "Traceback" not in out + err
    assert code == 0 or (err.splitlines()[-1].startswith("Error: ") and err.endswith(".\n"))


def test_no_code_in_the_folder_of_a_head_or_beside_a_model_runs(good: dict[str, Path], run: Run, root: Path) -> None:
    head, model, recipe = root / "head", root / "model", root / "recipe.yaml"
    copy("judge", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})(head, good)
    copy("target")(model, good)
    for folder in (head, model):
        with_own_generate(folder, root / "it ran")
        (folder / "own.py").write_text(f"open({str(root / 'it ran')!r}, 'w')")
    lines = good["recipe"].read_text().splitlines()
    recipe.write_text("\n".join(f"head: {head}" if line.startswith("head:") else line for line in lines))
    for command in (
        ("generate", model, "one", "--draft", good["draft"], "--judge", head),
        ("info", head, "--target", model),
        ("card", head, "--overwrite"),
        ("plan", recipe),
        ("serve", recipe, "--dry-run"),
    ):
        code, _, err = run(*command, stdin="y\n" * 9)
        assert code == 0, err
    assert not (root / "it ran").exists()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("pwd.getpwnam", nobody)
    for folder in (compiled, features):
        with pytest.raises(JudgeDecodingError, match=r"^There is no home folder .* XDG_CACHE_HOME to a folder\.$"):
            folder()


def test_there_are_enough_of_them_and_of_every_command() -> None:
    known = {" ".join(words) for words, _ in commands()}
    tried = {command for command in known for row in ROWS if f"{row.command} ".startswith(f"{command} ")}
    assert known - tried == {"lm-eval"}  # its options are the harness's own
    assert len(ROWS) >= 150
    assert len({(row.name, row.command) for row in ROWS}) == len(ROWS)
