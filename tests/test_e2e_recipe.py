"""The recipe on restaurant facts: its parts share nothing, labels are the checker's, packed answers see themselves."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from judge_decoding import JudgeDecodingError

FOLDER = Path(__file__).parents[1] / "recipes" / "smollm2_e2e"


def script(name: str) -> ModuleType:
    """A script of the recipe; another recipe has scripts of the same names."""
    spec = importlib.util.spec_from_file_location(f"e2e_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_test_calibration_and_training_share_no_meaning_representation() -> None:
    data = script("data")
    rows = [{"mr": f"name[{i % 936}]", "ref": "x"} for i in range(2000)]
    parts = data.divide(rows)
    assert {name: len(part) for name, part in parts.items()} == {"test": 436, "calibration": 100, "fit": 400}
    assert len({mr for part in parts.values() for mr in part}) == 936
    assert data.divide(reversed(rows)) == parts


def test_the_draft_learns_nothing_that_is_tested_or_calibrated_on() -> None:
    data = script("data")
    parts = data.divide([{"mr": f"name[{i}]"} for i in range(936)])
    systems = [{"mr": mr, "text": "t", "system": name} for part in parts.values() for mr in part
               for name in ("tgen-std", "sclstm")]  # fmt: skip
    right = [{"mr": "name[devel]", "text": text} for text in "abc"]
    found = data.draft_texts(right, systems, set(parts["fit"]))
    assert {one["mr"] for one in found} == {*parts["fit"], "name[devel]"}
    assert len(found) == 400 + 2


def test_other_values_come_into_text_and_facts_alike() -> None:
    data = script("data")
    rows = [
        {"mr": "name[Aromi], eatType[coffee shop], food[English]", "text": "An English coffee shop is Aromi."},
        {"mr": "name[Aromi], eatType[coffee shop], food[English]", "text": "Aromi is a Coffee Shop with English food."},
        {"mr": "name[Aromi], eatType[coffee shop], food[English]", "text": "Aromi is a coffee shop. It is British."},
    ]
    known = {"name": ["The Mill"], "eatType": ["pub"], "food": ["Chinese"], "near": []}
    new = "name[The Mill], eatType[pub], food[Chinese]"
    assert data.swapped(rows, known, set(), seed=0) == [
        {"mr": new, "text": "A Chinese pub is The Mill."},
        {"mr": new, "text": "The Mill is a pub with Chinese food."},
    ]  # the third says British, which would now be wrong
    assert data.swapped(rows, known, {new}, seed=0) == []


def test_labels_are_the_checkers() -> None:
    case = script("make_cases").label("name[The Mill], eatType[pub], food[French]", " The Mill is a cheap pub. ", "a")
    assert case.answer == "The Mill is a cheap pub."
    assert case.errors == ((14, 19), (24, 24))  # cheap is invented, and the food is missing at the end
    assert case.question.endswith("\nname[The Mill], eatType[pub], food[French]")
    assert (case.writer, case.source, case.ended) == ("a", "checker", True)


def test_a_line_that_is_no_description_is_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"mr": "name[Cotto]", "text": "It is Cotto."}\n{"mr": "Cotto", "text": ""}\n')
    with pytest.raises(JudgeDecodingError, match="line 2 is no description"):
        list(script("make_cases").label_file(path))


def test_packed_answers_are_read_as_if_each_stood_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.syspath_prepend(str(FOLDER))
    train = script("train_lora")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    ).eval()
    prompt, answers = [1, 2, 3, 4], [[5, 6, 7], [8, 9]]
    packed = train.Packed(
        [*prompt, 4, 5, 6, 4, 8], [0, 1, 2, 3, 3, 4, 5, 3, 4], [0, 0, 0, 0, 1, 1, 1, 2, 2], [-100] * 4 + [5, 6, 7, 8, 9]
    )
    other = train.Packed([1, 2], [0, 1], [0, 0], [-100] * 2)
    ids, positions, labels, mask = train.tensors([packed, other])
    with torch.inference_mode():
        said = model(input_ids=ids, position_ids=positions, attention_mask=mask).logits[0]
        alone = [model(torch.tensor([prompt + answer])).logits[0, 3:-1] for answer in answers]
    assert torch.allclose(said[4:7], alone[0], atol=1e-5)
    assert torch.allclose(said[7:9], alone[1], atol=1e-5)
    assert labels[1].tolist() == [-100] * 9
    sys.modules.pop("merge", None)


def test_the_checker_rejects_what_it_rejected_when_its_verdicts_were_read() -> None:
    path = FOLDER.parents[1] / "benchmarks/results/smollm2_e2e/references_read.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    checked = script("check_references").checked
    assert [checked(row["mr"], row["text"])["errors"] for row in rows] == [row["errors"] for row in rows]
    read = Counter((bool(row["errors"]), row["checker"]) for row in rows)
    page = (FOLDER.parents[1] / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert f"of the rejected ones {read[True, 'right']} do state" in page
    assert (read[True, "mistake"], read[True, "arguable"]) == (2, 2)
    assert (read[False, "right"], read[False, "mistake"], read[False, "arguable"]) == (56, 1, 3)


def test_references_to_read_are_drawn_from_both_kinds() -> None:
    rows = [{"errors": [1] * (number % 3 == 0), "number": number} for number in range(60)]
    drawn = script("check_references").draw(rows, 5, 0)
    assert [bool(row["errors"]) for row in drawn] == [True] * 5 + [False] * 5
    assert len({row["number"] for row in drawn}) == 10
    assert [row["number"] for row in rows] == list(range(60))  # those given stay in their order
