"""The judge head's files: what is saved comes back, and nothing else gets in."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from judge_decoding import JudgeDecodingError, JudgeHead
from tiny import VOCAB_SIZE, llama, mistral, perturbed, random_head

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def folder(head: JudgeHead, tmp_path: Path) -> Path:
    """A saved head, free to be damaged."""
    head.save_pretrained(tmp_path / "judge")
    return tmp_path / "judge"


@pytest.fixture(scope="module")
def scratch(head: JudgeHead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As ``folder``, for tests that write many times."""
    path = tmp_path_factory.mktemp("fuzz") / "judge"
    head.save_pretrained(path)
    yield path
    shutil.rmtree(path)


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of the saved configuration; ``target__x`` is a field of its target."""
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        place = config["target"] if name.startswith("target__") else config
        place[name.removeprefix("target__")] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_a_head_comes_back_bit_by_bit(target: LlamaForCausalLM, tmp_path: Path) -> None:
    head = random_head(
        target, norm="after", threshold=0.123456789, labels="x", num_draft_tokens=7,
        data={"cases": 3}, calibration={"auc": 0.1}, versions={"torch": "é"},
    )  # fmt: skip
    head.linear.bias.fill_(1 / 3)
    head.save_pretrained(tmp_path / "new" / "judge")
    back = JudgeHead.from_pretrained(tmp_path / "new" / "judge", target)
    assert back.config == head.config
    assert back.state_dict().keys() == head.state_dict().keys()
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in back.state_dict().items())
    states = torch.randn(3, 5, 32)
    assert torch.equal(back.probability(states), head.probability(states))


def test_the_probability_is_the_sigmoid_of_one_dot_product(target: LlamaForCausalLM) -> None:
    head = random_head(target)
    head.linear.bias.fill_(0.25)
    states = torch.randn(2, 3, 32)
    weight = head.linear.weight[0]
    expected = [[1 / (1 + math.exp(-float(h @ weight) - 0.25)) for h in row] for row in states]
    assert head.probability(states).tolist() == [pytest.approx(row, rel=1e-4) for row in expected]
    assert head.probability(states.bfloat16()).dtype == torch.float32


def test_saving_again_replaces_the_old_head(folder: Path, target: LlamaForCausalLM) -> None:
    other = random_head(target, seed=5, threshold=0.9)
    other.save_pretrained(str(folder))
    back = JudgeHead.from_pretrained(str(folder))
    assert back.config.threshold == 0.9
    assert torch.equal(back.linear.weight, other.linear.weight)
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "custom_generate",
        "model.safetensors",
    ]


def test_the_bare_card_says_what_the_head_is_and_how_to_load_it(target: LlamaForCausalLM, tmp_path: Path) -> None:
    head = random_head(target, layer=-2, threshold=0.25)
    head.config.target.name_or_path = "org/Model_1"
    head.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "# Judge head for org/Model\\_1\n" in card
    assert "33 numbers on the hidden state after layer -2 of `LlamaForCausalLM`" in card
    assert "JudgeDecoder.from_pretrained('org/Model_1', draft='THE-DRAFT-MODEL', judge=\"THIS-REPOSITORY\")" in card
    for line in ("* Target: `org/Model_1`", "* Layer: -2, before the final norm", "* Polarity: correct"):
        assert line in card.splitlines()
    assert "* Threshold: 0.25 (" in card
    assert ModelCard(card).data.to_dict() == {
        "base_model": "org/Model_1",
        "library_name": "judge-decoding", "tags": ["judge-decoding", "speculative-decoding", "custom_generate"],
    }  # fmt: skip


def test_the_same_target_in_bfloat16_fits(folder: Path, folders: dict[str, Path]) -> None:
    half = LlamaForCausalLM.from_pretrained(folders["target"], dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    JudgeHead.from_pretrained(folder, half)


def test_the_same_target_under_another_name_fits(folder: Path) -> None:
    again = llama(0)
    again.config.name_or_path = "elsewhere"
    JudgeHead.from_pretrained(folder, again)


def gpt2() -> GPT2LMHeadModel:
    """Hidden size and depth of the target, another architecture."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=4))


@pytest.mark.parametrize(
    ("build", "phrase"),
    [
        (lambda: llama(0, hidden_size=64), "hidden size 32"),
        (lambda: llama(0, layers=3), "number of layers 2"),
        (mistral, "architecture LlamaForCausalLM"),
        (gpt2, "architecture LlamaForCausalLM"),
        (lambda: llama(1), "same shape but other weights"),
        (lambda: perturbed(llama(0), 0.1), "same shape but other weights"),
    ],
    ids=["hidden size", "depth", "mistral", "gpt2", "weights", "tuned further"],
)
def test_another_target_is_refused(folder: Path, build: Any, phrase: str) -> None:
    JudgeHead.from_pretrained(folder)
    with pytest.raises(JudgeDecodingError, match=phrase):
        JudgeHead.from_pretrained(folder, build())


def test_a_target_of_broken_weights_is_refused(folder: Path) -> None:
    broken = llama(0)
    broken.lm_head.weight.fill_(torch.nan)
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(folder, broken)


@pytest.mark.parametrize("where", ["nothing", "no/thing", "a/b/c", "/no/such/place", ""])
def test_a_missing_head_is_refused(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JudgeDecodingError, match=r"no judge head at|Cannot read"):
        JudgeHead.from_pretrained(where)


def test_a_missing_path_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(JudgeDecodingError, match="no judge head at"):
        JudgeHead.from_pretrained(Path("some/where"))


def test_a_file_for_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(folder / "config.json")


@pytest.mark.parametrize(("name", "phrase"), [("config.json", "Cannot read"), ("model.safetensors", "has no model")])
def test_a_missing_file_is_refused(folder: Path, name: str, phrase: str) -> None:
    (folder / name).unlink()
    with pytest.raises(JudgeDecodingError, match=phrase):
        JudgeHead.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_for_a_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(JudgeDecodingError, match=name):
        JudgeHead.from_pretrained(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for length in (0, 1, 7, 8, 40, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(JudgeDecodingError, match="is damaged"):
            JudgeHead.from_pretrained(folder)


@pytest.mark.parametrize(
    "tensors",
    [
        {"linear.weight": torch.zeros(1, 31), "linear.bias": torch.zeros(1)},
        {"linear.weight": torch.zeros(2, 32), "linear.bias": torch.zeros(2)},
        {"linear.weight": torch.zeros(1, 32)},
        {"weight": torch.zeros(1, 32), "bias": torch.zeros(1)},
        {"linear.weight": torch.zeros(1, 32), "linear.bias": torch.zeros(1), "more": torch.zeros(1)},
    ],
)
def test_weights_of_something_else_are_refused(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(JudgeDecodingError, match="32 weights and a bias"):
        JudgeHead.from_pretrained(folder)


def test_weights_that_are_not_numbers_are_refused(folder: Path) -> None:
    """Such a head would silently never rescue a token."""
    tensors = load_file(folder / "model.safetensors")
    tensors["linear.weight"][0, 3] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(folder)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "nonsense", "[]", "5", "null", '"judge_head"', "{}", '{"model_type": "llama"}', "\ufeff{}",
        "[" * 100_000, "9" * 10_000,
    ],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_a_configuration_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(JudgeDecodingError, match="does not describe a judge head") as refusal:
        JudgeHead.from_pretrained(folder)
    assert ": :" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama"},
        {"version": 2},
        {"polarity": "wrong"},
        {"layer": 5},
        {"norm": "between"},
        {"threshold": 1.5},
        {"threshold": math.nan},
        {"num_draft_tokens": 0},
        {"target": None},
        {"target__hidden_size": 0},
        {"target__hidden_size": 10**30},
        {"target__hidden_size": 10**12},
        {"target__fingerprint": []},
        {"target__fingerprint": [0.1]},
        {"target__fingerprint": [math.nan] * 16},
    ],
    ids=str,
)
def test_a_configuration_out_of_range_is_refused(
    folder: Path, target: LlamaForCausalLM, changes: dict[str, Any]
) -> None:
    edit(folder, **changes)
    with pytest.raises(JudgeDecodingError, match=r"does not describe a judge head|other weights"):
        JudgeHead.from_pretrained(folder, target)


def loads_or_says_why(folder: Path, target: LlamaForCausalLM) -> None:
    """Any other exception fails the test."""
    message = ""
    try:
        JudgeHead.from_pretrained(folder, target)
    except JudgeDecodingError as error:
        message = str(error)
    assert "\n" not in message


@given(content=st.binary(max_size=200))
@example(content=b"\xff\xfe")
@example(content=b"\x00")
def test_any_bytes_as_configuration(scratch: Path, target: LlamaForCausalLM, head: JudgeHead, content: bytes) -> None:
    head.save_pretrained(scratch)
    (scratch / "config.json").write_bytes(content)
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(scratch, target)


@given(value=JSON)
def test_any_json_as_configuration(scratch: Path, target: LlamaForCausalLM, head: JudgeHead, value: object) -> None:
    head.save_pretrained(scratch)
    (scratch / "config.json").write_text(json.dumps(value))
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(scratch, target)


FIELDS = [
    *(
        "model_type",
        "version",
        "target",
        "draft",
        "layer",
        "norm",
        "polarity",
        "threshold",
        "labels",
        "num_draft_tokens",
    ),
    *("data", "calibration", "familiarity", "versions"),
    *("target__name_or_path", "target__architecture", "target__hidden_size", "target__num_hidden_layers"),
    "target__fingerprint",
]


@given(field=st.sampled_from(FIELDS), value=JSON)
def test_any_json_in_a_field_of_the_configuration(
    scratch: Path, target: LlamaForCausalLM, head: JudgeHead, field: str, value: object
) -> None:
    head.save_pretrained(scratch)
    edit(scratch, **{field: value})
    loads_or_says_why(scratch, target)


@given(content=st.binary(max_size=300))
@example(content=(2).to_bytes(8, "little") + b"{}")
@example(content=(2**62).to_bytes(8, "little") + b"{}")
def test_any_bytes_as_weights(scratch: Path, target: LlamaForCausalLM, head: JudgeHead, content: bytes) -> None:
    head.save_pretrained(scratch)
    (scratch / "model.safetensors").write_bytes(content)
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(scratch, target)


@given(position=st.integers(0, 500), value=st.integers(0, 255))
def test_weights_with_one_byte_changed(
    scratch: Path, target: LlamaForCausalLM, head: JudgeHead, position: int, value: int
) -> None:
    head.save_pretrained(scratch)
    content = bytearray((scratch / "model.safetensors").read_bytes())
    content[position % len(content)] = value
    (scratch / "model.safetensors").write_bytes(bytes(content))
    loads_or_says_why(scratch, target)


def test_a_head_is_not_written_over_a_file(head: JudgeHead, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(JudgeDecodingError):
        head.save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_head_is_not_written_below_a_file(head: JudgeHead, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(JudgeDecodingError):
        head.save_pretrained(tmp_path / "taken" / "judge")
