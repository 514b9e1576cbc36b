"""``judge-decoding train`` as a user meets it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import LlamaModel

from commands import Run
from judge_decoding import Case, JudgeDecoder, JudgeHead, write_cases
from judge_decoding.cli import main as cli
from judge_decoding.evaluation.thresholds import calibrate
from judge_decoding.judge.config import PROBE_IDS
from judge_decoding.judge.head import PROMPT_LENGTH, PROMPTS
from test_training import word_cases

Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(run: Run, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], tmp_path: Path) -> Train:
    """Run ``train`` on the saved target, the head going to ``tmp_path/head``."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return run("train", folders["target"], *args, "-o", tmp_path / "head", "--overwrite")

    return call


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    path = tmp_path / "cases.jsonl"
    write_cases(path, word_cases())
    return path


def refused(result: tuple[int, str, str], phrase: str) -> None:
    """One sentence on stderr, exit code 2."""
    code, out, err = result
    assert code == 2
    assert phrase in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert out == ""


def test_the_report_has_table_reliability_curve_and_warning(train: Train, cases: Path, tmp_path: Path) -> None:
    code, out, err = train(cases, "--layers", "-1 -2", "--norm", "both", "--plots")
    assert code == 0, err
    for line in ("last layer, before the norm", "last layer, after the norm", "layer -2", "log-probability", "rank"):
        assert line in out
    assert "Reliability, out of fold" in out
    assert "AUC as the data grows: 2 questions" in out
    assert "Warning: There are only 20 wrong tokens, in 20 questions" in err
    assert {path.name for path in (tmp_path / "head").iterdir()} - {"run.yaml"} == {
        "config.json", "model.safetensors", "README.md", "custom_generate", "reliability.svg", "roc.svg",
    }  # fmt: skip
    card = (tmp_path / "head" / "README.md").read_text()
    assert "roc.svg" in card
    assert "[`run.yaml`](run.yaml) has the options that made this head; `--config` repeats it." in card


def test_json_is_all_there_is_on_stdout(train: Train, cases: Path, tmp_path: Path) -> None:
    code, out, err = train(
        cases, "--layers", "-1,-2", "--json", "--no-plots", "--labels", "error", "--after-error", "correct",
        "--class-weights", "none", "--wrong-weight", 3, "--l2", "0.1 0.01", "--folds", 4,
        "--aim", "keep=0.9", "--seed", 5,
    )  # fmt: skip
    assert code == 0, err
    config = json.loads(out)
    assert config == json.loads((tmp_path / "head" / "config.json").read_text())
    assert config["labels"] == "error, after the error: correct"
    figures = config["calibration"]
    assert (figures["class_weights"], figures["wrong_weight"], figures["folds"], figures["seed"]) == ("none", 3, 4, 5)
    assert figures["aim"] == "keep=0.9"
    assert figures["kept_correct"] >= 0.9
    assert figures["l2"] in (0.1, 0.01)
    assert [row["detector"] for row in figures["comparison"]] == [
        "last layer, after the norm", "layer -2", "log-probability", "rank",
    ]  # fmt: skip
    assert not list((tmp_path / "head").glob("*.svg"))


@pytest.mark.slow
def test_the_answers_are_read_once(train: Train, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards: list[int] = []
    original = LlamaModel.forward

    def counting(self: LlamaModel, *args: object, **kwargs: object) -> object:
        ids = kwargs["input_ids"]
        assert isinstance(ids, torch.Tensor)
        # Fewer tell which model it is, and a batch of this shape has the prompts whose scores are stored.
        if ids.numel() > PROBE_IDS and ids.shape != (PROMPTS, PROMPT_LENGTH):
            forwards.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "forward", counting)
    assert train(cases)[0] == 0
    assert forwards
    forwards.clear()
    assert train(cases, "--labels", "from_error")[0] == 0
    assert forwards == []
    assert list((tmp_path / "cache" / "judge-decoding" / "features").glob("*/*.safetensors"))
    assert train(cases, "--cache", tmp_path / "elsewhere")[0] == 0
    assert forwards
    assert list((tmp_path / "elsewhere").glob("*/*.safetensors"))


def test_several_files_and_a_bad_line(train: Train, tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_cases(first, word_cases()[:20])
    write_cases(second, word_cases()[20:])
    code, out, _ = train(first, second, "--json")
    assert code == 0
    assert json.loads(out)["data"]["cases"] == 40
    second.write_text(second.read_text() + "nonsense\n")
    refused(train(first, second), f"{second}, line 21 is not a case")


def test_answers_whose_error_is_not_located_are_left_out(train: Train, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    write_cases(path, [*word_cases(), Case(question="one", answer=" two", correct=False)])
    code, out, err = train(path, "--json")
    assert code == 0
    assert json.loads(out)["data"]["cases"] == 40
    assert "Left out: 1 answers that are known to be wrong, but not where." in err


@pytest.fixture
def questions(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A task whose references are what the target says."""
    target = JudgeDecoder.from_pretrained(folders["target"])
    path = tmp_path / "task.jsonl"
    prompts = ("eight nine", "ten eight", "red blue red", "down up")
    rows = [{"question": prompt, "reference": target.generate(prompt, 12).text} for prompt in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_the_threshold_by_a_task(
    train: Train, cases: Path, questions: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    code, out, err = train(
        cases, "--aim", "accuracy", "--margin", "0", "--draft", folders["draft"], "--calibrate-on", questions,
        "--checker", "exact", "--max-new-tokens", 12, "--json",
    )  # fmt: skip
    assert code == 0, err
    config = json.loads(out)
    assert config["draft"] is None
    assert config["calibration"]["aim"] == "accuracy=0"
    assert config["calibration"]["target_accuracy"] == 1.0
    curve = config["calibration"]["curve"]
    assert len(curve) == 13
    assert config["threshold"] == min(row["threshold"] for row in curve if row["accuracy"] == 1.0)
    assert curve[0]["accuracy"] < 1.0
    assert JudgeHead.from_pretrained(tmp_path / "head").config.threshold == config["threshold"]
    assert not (tmp_path / "head" / "calibration.part").exists()


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """A curve of three thresholds instead of thirteen."""
    monkeypatch.setattr("judge_decoding.cli.run.train.calibrate", partial(calibrate, thresholds=(0.05, 0.5, 0.99)))


def test_a_task_all_thresholds_fulfil_has_the_lowest(
    train: Train, three: None, cases: Path, questions: Path, folders: dict[str, Path]
) -> None:
    code, out, err = train(
        cases, "--aim", "accuracy", "--margin", "100", "--draft", folders["draft"], "--calibrate-on", questions,
        "--checker", "exact", "--max-new-tokens", 12, "--json",
    )  # fmt: skip
    assert code == 0, err
    config = json.loads(out)
    assert config["threshold"] == config["calibration"]["threshold"] == 0.05
    assert config["calibration"]["problems"] == 4
    assert config["calibration"]["target_accuracy"] == 1.0


@pytest.mark.slow
def test_the_threshold_by_a_task_by_name(
    train: Train, three: None, cases: Path, questions: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    code, out, err = train(
        cases, "--aim", "accuracy", "--margin", "100", "--draft", folders["draft"], "--calibrate-on",
        "jsonl(checker=exact)", "--calibrate-data", questions, "--max-new-tokens", 12, "--json",
    )  # fmt: skip
    assert code == 0, err
    calibration = json.loads(out)["calibration"]
    # By hand: put in the task's own plain form.
    target = JudgeDecoder.from_pretrained(folders["target"])
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    own = [target.generate(f"Question: {row['question']}\nAnswer:", 12, stop="\nQuestion:").text for row in rows]
    right = [text.split() == row["reference"].split() for text, row in zip(own, rows, strict=True)]
    assert calibration["target_accuracy"] == sum(right) / 4
    assert (calibration["problems"], len(calibration["curve"])) == (4, 3)
    args = ("--aim", "accuracy", "--draft", folders["draft"], "--calibrate-on")
    for task, phrase in (
        ("gsm9k", "There is no task gsm9k"),
        ("jsonl", "The task jsonl cannot be used for calibration"),
        ("humaneval", "runs the code that the models write"),
    ):
        refused(train(cases, *args, task, "--calibrate-data", questions), phrase)
    few = train(cases, *args, questions, "--margin", 100, "--checker", "exact", "--max-new-tokens", 12,
                "--calibrate-limit", 2, "--json")  # fmt: skip
    assert json.loads(few[1])["calibration"]["problems"] == 2


def test_calibration_questions_that_are_trained_on_are_refused(
    train: Train, cases: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "task.jsonl"
    rows = [{"question": word_cases()[0].question.upper(), "reference": "4"}, {"question": "new", "reference": "4"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = ("--aim", "accuracy", "--draft", folders["draft"], "--calibrate-on", path)
    refused(train(cases, *task), "1 of the 2 questions were also used for training")
    assert not (tmp_path / "head").exists()


def test_a_head_on_both_models(train: Train, cases: Path, folders: dict[str, Path]) -> None:
    code, out, err = train(cases, "--draft", folders["draft"], "--draft-states", "--json")
    assert code == 0, err
    assert json.loads(out)["draft"]["name_or_path"] == str(folders["draft"])


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("--labels", "wrong"), "labels is wrong; it must be one of error, span, from_error"),
        (("--after-error", "wrong"), "after_error is wrong; it must be one of correct, ignore"),
        (("--norm", "middle"), "norm is middle; it must be one of before, after, both"),
        (("--class-weights", "even"), "class_weights is even"),
        (("--wrong-weight", "0"), "--wrong-weight is 0.0; it must be above 0"),
        (("--layers", "first"), "--layers is 'first'; it must be numbers"),
        (("--layers", "2"), "layers is 2; it must be -1, the last, or below"),
        (("--layers", "-9"), "layer is -9, and LlamaForCausalLM has 2 layers"),
        (("--l2", "a"), "--l2 is 'a'; it must be numbers"),
        (("--l2", "-1"), "l2 is -1.0; it must be 0 or more"),
        (("--folds", "1"), "folds is 1; it must be 2 or more"),
        (("--aim", "best"), "The aim is 'best'; it must be keep=SHARE"),
        (("--aim", "accuracy"), "give --draft and --calibrate-on"),
        (("--aim", "accuracy=1.5"), "give --aim accuracy --margin 1.5"),
        (("--calibrate-on", "{cases}"), "--calibrate-on is for --aim accuracy, and the aim is catch=0.95"),
        (("--aim", "accuracy", "--draft", "{draft}", "--calibrate-on", "{cases}"), "has a reference with a result"),
        (("--aim", "accuracy", "--draft", "{draft}", "--calibrate-on", "{missing}"), "Cannot read the questions"),
        (("--draft", "{draft}"), "--draft is given, and nothing needs it"),
        (("--draft-states",), "--draft-states needs the draft model"),
        (("--dtype", "int8"), "dtype is int8"),
        (("--cache", "{cases}"), "Cannot write"),
    ],
)  # fmt: skip
def test_what_a_user_can_do_wrong(
    train: Train, cases: Path, args: tuple[str, ...], phrase: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    rows = [case.model_copy(update={"reference": "none"}) for case in word_cases()]
    write_cases(cases, rows)
    places = {"cases": cases, "draft": folders["draft"], "missing": tmp_path / "nothing"}
    refused(train(cases, *(arg.format(**places) for arg in args)), phrase)
    assert not (tmp_path / "head").exists()


def test_plots_without_matplotlib_are_refused_before_the_work(
    train: Train, cases: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("judge_decoding.report.head_pictures.find_spec", lambda _: None)
    refused(train(cases, "--plots"), "--plots needs matplotlib; install it with: pip install 'judge-decoding[eval]'")
    assert not (tmp_path / "head").exists()
    assert train(cases)[0] == 0
    assert not list((tmp_path / "head").glob("*.svg"))


def test_info_of_a_trained_head_shows_figures_and_no_curves(
    train: Train, cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(cases, "--norm", "before", "--layers", "-2")[0] == 0
    monkeypatch.setattr(sys, "argv", ["judge-decoding", "info", str(tmp_path / "head")])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert "hidden state after layer -2" in out
    assert "caught wrong" in out
    assert "wrong_kept" not in out
