"""Metrics go to trackio or wandb, if one is asked for: what is logged, told by a module that stands in for them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from commands import Run, is_one_sentence
from judge_decoding import JudgeDecodingError, log_to, write_cases
from judge_decoding.core.tracking import log_fields
from test_drafts import PROMPTS
from test_training import word_cases
from tiny import llama, word_tokenizer

FAKE = """
calls = []

def init(*, project, name, config):
    calls.append(("init", project, name, config))

def log(metrics, step=None):
    calls.append(("log", metrics, step))

def finish():
    calls.append(("finish",))
"""
Calls = Callable[[], list[tuple[Any, ...]]]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Calls]:
    """Make a tracker importable; what is returned gives the calls of it so far."""

    def make(name: str, text: str = FAKE) -> Calls:
        folder = tmp_path / "modules"
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return lambda: list(sys.modules[name].calls)

    return make


def logged(calls: Calls) -> list[dict[str, float]]:
    """The metrics of a run that was started and finished."""
    first, *between, last = calls()
    assert (first[0], last) == ("init", ("finish",))
    assert {one[0] for one in between} == {"log"}
    return [one[1] for one in between]


def test_training_logs_each_decay_each_fold_and_the_figures(
    run: Run, install: Callable[[str], Calls], folders: dict[str, Path], tmp_path: Path
) -> None:
    calls = install("trackio")
    write_cases(tmp_path / "cases.jsonl", word_cases())
    args = ("train", "--target", folders["target"], tmp_path / "cases.jsonl", "--cache", tmp_path / "cache",
            "--folds", 3, "--l2", "1e-2 1", "--no-plots")  # fmt: skip
    code, _, err = run(*args, "-o", tmp_path / "head", "--log-to", "trackio")
    assert code == 0, err
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    about = {"target": str(folders["target"]), "cases": [str(tmp_path / "cases.jsonl")]}
    assert calls()[0] == ("init", "judge-decoding", "train head", about)
    told, figures = logged(calls), config["calibration"]
    source = next(iter(told[0])).partition("/")[0]
    decays = {one[f"{source}/l2"]: one[f"{source}/log_loss_by_l2"] for one in told if f"{source}/l2" in one}
    assert set(decays) <= {0.01, 1.0}
    assert min(decays.values()) == decays[figures["l2"]] == figures["log_loss"]
    folds = [one for one in told if f"{source}/fold" in one]
    assert [one[f"{source}/fold"] for one in folds] == [0, 1, 2]
    assert all(0 <= one[f"{source}/fold_auc"] <= 1 for one in folds)
    (best,) = (one for one in told if f"{source}/auc" in one)
    for name in ("auc", "log_loss", "threshold", "kept_correct", "caught_wrong"):
        assert best[f"{source}/{name}"] == figures[name]
    curve = [one for one in told if "learning_curve/auc" in one]
    assert [
        {f"learning_curve/{key}": value for key, value in row.items()} for row in figures["learning_curve"]
    ] == curve
    # The run's file repeats what was made, wherever it was logged; and nothing is logged unless it is asked for.
    assert "log-to" not in (tmp_path / "head" / "run.yaml").read_text()
    before = len(calls())
    assert run(*args, "-o", tmp_path / "quiet")[0] == 0
    assert len(calls()) == before


def test_a_draft_logs_its_measurements_at_their_steps(
    run: Run, install: Callable[[str], Calls], tmp_path: Path, words: PreTrainedTokenizerFast
) -> None:
    calls = install("wandb")
    target = llama(0, layers=3)
    target.save_pretrained(tmp_path / "target")
    words.save_pretrained(tmp_path / "target")
    (tmp_path / "prompts.txt").write_text("".join(f"{one}\n" for one in PROMPTS))
    code, told, err = run(
        "draft", "--target", tmp_path / "target", "--prompts", tmp_path / "prompts.txt", "-o", tmp_path / "draft",
        "--draft-layers", 1, "--epochs", 2, "--batch-size", 8, "--max-new-tokens", 12, "--yes", "--json",
        "--log-to", "wandb",
    )  # fmt: skip
    assert code == 0, err
    start, *logs, end = calls()
    assert (start[:3], end) == (("init", "judge-decoding", "draft draft"), ("finish",))
    assert (start[3]["num_layers"], start[3]["epochs"]) == (1, 2)
    found = json.loads(told)
    assert [step for _, _, step in logs] == list(range(9))
    assert set(logs[0][1]) == {"draft/loss", "draft/agreement", "draft/mean_acceptance_length"}
    assert logs[1][1]["draft/training_loss"] > 0
    for name, one in (("before", logs[0]), ("after", logs[found["after"]["step"]])):
        for figure in ("loss", "agreement", "mean_acceptance_length"):
            assert one[1][f"draft/{figure}"] == found[name][figure]


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    return word_tokenizer()


@pytest.mark.slow
def test_a_sweep_logs_each_row(run: Run, install: Callable[[str], Calls], tmp_path: Path) -> None:
    calls = install("trackio")
    code, _, err = run(
        "sweep", "--target", "reference", "--task", "arithmetic", "--limit", 3, "--tune", 1, "--num-draft-tokens", 4,
        "--threshold", 0.5, "--max-new-tokens", 12, "--out", tmp_path / "out", "--log-to", "trackio",
    )  # fmt: skip
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "results.json").read_text())["rows"]}
    told = logged(calls)
    assert len(told) == len(rows) > 5
    for name, one in zip(rows, told, strict=True):
        figures = {key.removeprefix(f"{name}/"): value for key, value in one.items()}
        assert figures.keys() >= {"accuracy", "tokens_per_forward", "tokens_per_second"}
        assert figures == pytest.approx({key: rows[name][key] for key in figures})


def test_what_is_no_number_is_not_logged(install: Callable[[str], Calls]) -> None:
    calls = install("trackio")
    with log_to("trackio", "a run", {"a": 1}) as logger:
        log_fields(logger, "x", {"one": 1, "half": 0.5, "none": None, "yes": True, "text": "t", "many": [1]}, step=7)
        log_fields(logger, "x", {"none": None})
    assert calls() == [
        ("init", "judge-decoding", "a run", {"a": 1}), ("log", {"x/one": 1, "x/half": 0.5}, 7), ("finish",),
    ]  # fmt: skip
    with log_to(None, "none") as none:
        log_fields(none, "x", {"one": 1})
    assert none is None


def test_a_run_is_finished_whatever_happens(install: Callable[[str], Calls]) -> None:
    calls = install("wandb")
    with pytest.raises(KeyboardInterrupt), log_to("wandb", "a run"):
        raise KeyboardInterrupt
    assert [one[0] for one in calls()] == ["init", "finish"]


@pytest.mark.parametrize("command", ["train", "draft", "fit", "sweep"])
def test_a_tracker_that_is_not_there_is_one_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\nb\n")
    args: dict[str, list[object]] = {
        "train": [prompts], "draft": ["--prompts", prompts], "fit": ["--prompts", prompts], "sweep": ["--task", "gsm8k"]
    }  # fmt: skip
    given = (command, "--target", "reference", *args[command], "--out", tmp_path / "out")
    is_one_sentence(run(*given, "--log-to", "nowhere"), "cannot be logged to nowhere; give trackio or wandb.")
    for name in ("trackio", "wandb"):
        if importlib.util.find_spec(name) is None:
            expected = f"{name} is not installed; install it with: pip install {name}."
            is_one_sentence(run(*given, "--log-to", name), expected)
    assert not (tmp_path / "out").exists()


def test_a_tracker_that_does_not_start_is_one_sentence(install: Callable[..., Calls]) -> None:
    install("wandb", "def init(**_):\n    raise RuntimeError('no key')\n")
    with (
        pytest.raises(JudgeDecodingError, match=r"^wandb does not start \(RuntimeError: no key\); repair it, or leave"),
        log_to("wandb", "a run"),
    ):
        raise AssertionError
