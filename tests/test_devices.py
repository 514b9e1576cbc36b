"""Where models are loaded to; ``auto`` divides a large target over all devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import Run, is_one_sentence
from judge_decoding import Case, JudgeHead, write_cases
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.loading import models as loading
from judge_decoding.reference import pair
from judge_decoding.serving.recipe import load, packaged

PROMPT = "Q: Tom has 3 bags with 4 coins each. How many coins are there?\nA:"


def test_a_divided_target_says_the_same(tmp_path: Path) -> None:
    """Divided over this machine's memory and its disk, as it has no GPUs."""
    own = pair.load_pair()[0]
    target: Any = loading.load_model(
        str(pair.TARGET), device="auto", max_memory={"cpu": 4_000_000}, offload_folder=str(tmp_path)
    )
    assert set(target.hf_device_map.values()) == {"cpu", "disk"}
    divided = JudgeDecoder(target, own.tokenizer, own.draft, JudgeHead.from_pretrained(pair.JUDGE, target))
    for threshold in (None, 0.3):
        texts = [decoder.generate(PROMPT, 60, threshold=threshold).token_ids for decoder in (divided, own)]
        assert texts[0] == texts[1]


def test_auto_puts_the_draft_on_one_device_and_changes_no_token() -> None:
    divided = JudgeDecoder.from_pretrained(str(pair.TARGET), str(pair.DRAFT), pair.JUDGE, device="auto")
    own = pair.load_pair()[0]
    assert divided.generate(PROMPT, 60).token_ids == own.generate(PROMPT, 60).token_ids


def test_auto_without_accelerate_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(JudgeDecodingError, match="needs accelerate; install it with"):
        loading.load_model(str(pair.TARGET), device="auto")
    is_one_sentence(run("generate", "reference", PROMPT, "--device", "auto"), "pip install accelerate")


Loads = list[tuple[str, str | None]]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    """What is loaded to where, as asked for; nothing is."""
    seen: Loads = []

    def stop(name: str, *, device: str | None = None, **kwargs: Any) -> None:
        seen.append((name, device))
        if name == str(pair.TARGET):
            raise JudgeDecodingError("enough.")

    for module in ("decoder", "cli.run.train"):  # wherever the name is bound
        monkeypatch.setattr(f"judge_decoding.{module}.load_model", stop)
    return seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Prompts, labelled answers and texts to read, one of each."""
    rows = [{"question": f"{PROMPT} {i}", "answer": "12", "reference": "12"} for i in range(9)]
    (tmp_path / "prompts").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_cases(tmp_path / "cases", [Case(question=PROMPT, answer="It is 13.", errors=((6, 8),))])
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "reference", PROMPT),
        ("fit", "--target", "reference", "--prompts", "{folder}/prompts", "--out", "{folder}/head"),
        ("train", str(pair.TARGET), "{folder}/cases", "-o", "{folder}/head"),
        ("evaluate", "--target", "reference", "--task", "arithmetic", "--limit", 2, "--out", "{folder}/out"),
        ("sweep", "--target", "reference", "--task", "arithmetic", "--limit", 2, "--out", "{folder}/out"),
        ("score", "{folder}/prompts", "--target", "reference"),
    ],
    ids=lambda command: command[0],
)
def test_each_command_that_loads_a_large_target_can_divide_it(
    run: Run, loads: Loads, command: tuple[object, ...], folder: Path
) -> None:
    code, out, err = run(*(str(one).format(folder=folder) for one in command), "--device", "auto")
    assert code == 2, out + err
    assert "enough" in err, err
    assert loads[-1] == (str(pair.TARGET), "auto")
    assert all(device == loading.default_device() for name, device in loads[:-1])


@pytest.mark.parametrize("name", packaged())
def test_a_recipe_for_several_gpus_fits_its_head_on_all(name: str) -> None:
    recipe = load(name)
    assert ("auto" in recipe.fit_command()) == (recipe.gpus.count > 1)
