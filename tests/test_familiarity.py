"""A judge tells how unlike its training questions a prompt is: the statistics and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from judge_decoding import (
    Case,
    JudgeDecodingError,
    JudgeHead,
    save_head,
    train_head,
)
from judge_decoding.judge.familiarity import LEAST, Familiarity
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.training.labels import question_examples
from test_training import word_cases
from tiny import WORDS, byte_level_tokenizer, llama, random_head, word_tokenizer


def gaussian(count: int, size: int = 16, seed: int = 0) -> Tensor:
    """Draws of one Gaussian: other means and scales from 3 down to 0.01 along mixed directions."""
    mixed = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(99)))[0]
    draws = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return draws * torch.logspace(0.5, -2, size) @ mixed + torch.arange(size)


def fitted(states: Tensor) -> Familiarity:
    familiarity = Familiarity.fit(states)
    assert familiarity is not None
    return familiarity


def knowing(target: PreTrainedModel, **config: Any) -> JudgeHead:
    """A head that knows questions of random states."""
    head = random_head(target, **config)
    states = torch.randn(80, target.config.hidden_size, generator=torch.Generator().manual_seed(3))
    head.set_familiarity(fitted(states))
    return head


# The statistics


def test_more_of_the_same_is_above_1_one_time_in_twenty() -> None:
    """Over 40 samples of 80 questions: the share is that of the quantile, within four standard errors (0.4% each)."""
    shares = [
        float((fitted(gaussian(80, seed=seed))(gaussian(500, seed=1000 + seed)) > 1).float().mean())
        for seed in range(40)
    ]
    assert sum(shares) / len(shares) == pytest.approx(0.05, abs=0.016)


def test_a_planted_shift_is_caught_and_a_usual_difference_is_not() -> None:
    """A step along the narrowest direction is tiny beside the spread of the questions, and still nothing like them."""
    states = gaussian(400)
    familiarity = fitted(states)
    _, _, directions = torch.linalg.svd(states - states.mean(0))
    others = gaussian(300, seed=1)
    usual = states.mean(0) + 1.5 * directions[0]
    assert float(familiarity(usual)) < 1
    assert bool((familiarity(others + directions[-1]) > 1).all())
    assert bool((familiarity(others + 30 * directions[0]) > 1).all())
    assert float((familiarity(others) > 1).float().mean()) < 0.1


def test_the_distance_is_that_of_the_covariance() -> None:
    familiarity = fitted(gaussian(100))
    along, rest = familiarity.components, familiarity.variances[-1]
    rank = len(along)
    assert rank == 8  # half of the directions
    assert torch.allclose(along @ along.T, torch.eye(rank), atol=1e-5)
    covariance = along.T @ torch.diag(familiarity.variances[:-1] - rest) @ along + rest * torch.eye(16)
    apart = (gaussian(7, seed=4) - familiarity.mean).double()
    squares = torch.einsum("ni,ij,nj->n", apart, torch.linalg.inv(covariance.double()), apart)
    expected = (squares / 16).sqrt() / familiarity.config.limit
    assert familiarity(gaussian(7, seed=4)).tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_the_limit_is_not_that_of_the_questions_it_was_fitted_on() -> None:
    """They lie nearer than others: the limit must let fewer than 5% of them above it."""
    states = gaussian(64)
    assert float((fitted(states)(states) > 1).float().mean()) < 0.03


def test_few_questions_tell_nothing() -> None:
    assert Familiarity.fit(gaussian(LEAST - 1)) is None
    assert fitted(gaussian(LEAST)).config.questions == LEAST
    assert Familiarity.fit(torch.empty(0, 1)) is None


def test_at_most_two_thousand_questions_are_looked_at() -> None:
    assert fitted(gaussian(2100)).config.questions == 2000


@pytest.mark.parametrize("states", [torch.ones(50, 8), torch.zeros(50, 8), 1e4 * torch.ones(50, 1).expand(50, 8)])
def test_questions_without_any_difference_give_finite_distances(states: Tensor) -> None:
    familiarity = fitted(states)
    assert float(familiarity(states[0])) <= 1
    assert 1 < float(familiarity(states[0] + 100)) < float("inf")


def test_states_may_be_of_16_bits() -> None:
    familiarity = fitted(gaussian(100))
    states = gaussian(5, seed=2)
    assert familiarity(states.bfloat16()).dtype == torch.float32
    assert familiarity(states[None]).shape == (1, 5)


# The questions


def test_each_question_counts_once_at_its_last_token() -> None:
    tokenizer = word_tokenizer()
    cases = [
        Case(question="one two ", answer="three"),
        Case(question="one two ", answer="four five"),
        Case(question="red", answer=" three"),
        Case(question="<s> cat", answer=" three"),
    ]
    found = question_examples([case.question for case in cases], tokenizer)
    assert [one.ids for one in found] == [
        tuple(tokenizer(question)["input_ids"]) for question in ("one two ", "red", "<s> cat")
    ]
    assert all(one.judged == (len(one.ids) - 1,) for one in found)


def test_a_question_that_runs_into_the_answer_is_read_as_decoding_reads_it() -> None:
    """The tokenizer has one token for ``ab``, and the prompt ``xa`` ends in another."""
    tokenizer = byte_level_tokenizer("ab")
    cases = [Case(question="xa", answer="b"), Case(question=" ", answer="b")]
    (found,) = question_examples([case.question for case in cases], tokenizer)
    assert tokenizer.convert_ids_to_tokens(list(found.ids)) == ["x", "a"]


def many_cases() -> list[Case]:
    """Two answers to each of 60 questions."""
    words = [word for word in WORDS if word not in ("good", "bad")]
    questions = [f"{words[i % 18]} {words[(i // 18 + 5 * i) % 18]} " for i in range(60)]
    return [
        case
        for question in questions
        for case in (
            Case(question=question, answer="good cat"),
            Case(question=question, answer="bad", errors=((0, 3),)),
        )
    ]


def test_training_learns_what_its_questions_look_like() -> None:
    target, tokenizer = llama(0), word_tokenizer()
    cases = many_cases()
    head = train_head(target, tokenizer, cases)
    assert head.familiarity is not None
    assert head.config.familiarity is head.familiarity.config
    distinct = list(dict.fromkeys(case.question for case in cases))
    assert head.familiarity.config.questions == len(distinct) == 60
    states = hidden_states(target, [tokenizer(question)["input_ids"] for question in distinct], "after")
    expected = torch.stack([state[-1] for state in states]).mean(0)
    torch.testing.assert_close(head.familiarity.mean, expected, atol=1e-4, rtol=1e-4)
    assert train_head(target, tokenizer, word_cases()).familiarity is None  # too few questions


def test_prompts_that_gave_no_case_are_familiar_too() -> None:
    """Half of the questions have cases, all of them are asked: the statistics are those of all."""
    target, tokenizer, cases = llama(0), word_tokenizer(), many_cases()
    everything = [case.question for case in cases]
    part = train_head(target, tokenizer, cases[:60], prompts=everything)
    assert part.familiarity is not None
    assert part.familiarity.config.questions == 60
    whole = train_head(target, tokenizer, cases).familiarity
    assert whole is not None
    torch.testing.assert_close(part.familiarity.mean, whole.mean)
    assert part.config.data["questions"] == 30


def test_a_head_on_both_models_knows_the_targets_states() -> None:
    head = train_head(llama(0), word_tokenizer(), many_cases(), draft=llama(7, hidden_size=16))
    assert head.familiarity is not None
    assert head.familiarity.mean.shape == (32,)


def test_what_a_head_says_of_tokens_does_not_change(target: LlamaForCausalLM, head: JudgeHead) -> None:
    states = torch.randn(5, 32)
    assert torch.equal(knowing(target).probability(states), head.probability(states))


# Files


def test_it_comes_back_with_its_head(target: LlamaForCausalLM, tmp_path: Path) -> None:
    head = knowing(target)
    save_head(head, tmp_path)
    back = JudgeHead.from_pretrained(tmp_path, target)
    assert back.config == head.config
    assert back.state_dict().keys() == head.state_dict().keys()
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in back.state_dict().items())
    assert "below 1 for 95% of 80 questions" in (tmp_path / "README.md").read_text()


def test_a_head_of_before_loads(head: JudgeHead, target: LlamaForCausalLM, tmp_path: Path) -> None:
    save_head(head, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("familiarity") is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = JudgeHead.from_pretrained(tmp_path, target)
    assert back.familiarity is None
    assert "training questions: not known" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"familiarity.mean": torch.zeros(31)},
        {"familiarity.mean": None},
        {"familiarity.components": torch.zeros(3, 32)},
        {"familiarity.variances": torch.zeros(1)},
        {"familiarity.more": torch.zeros(1)},
    ],
    ids=str,
)
def test_statistics_of_something_else_are_refused(
    target: LlamaForCausalLM, tmp_path: Path, change: dict[str, Tensor | None]
) -> None:
    knowing(target).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, value in change.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(JudgeDecodingError, match=r"^[^\n]*32 weights and a bias, and the statistics[^\n]*again\.$"):
        JudgeHead.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("mean", torch.nan, "not finite"),
        ("variances", 0.0, "variances that are not above 0"),
        ("variances", -1.0, "not above"),
    ],
)
def test_statistics_that_cannot_be_are_refused(
    target: LlamaForCausalLM, tmp_path: Path, name: str, value: float, phrase: str
) -> None:
    knowing(target).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[f"familiarity.{name}"][2] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(JudgeDecodingError, match=phrase):
        JudgeHead.from_pretrained(tmp_path)


def test_truncated_statistics_are_refused(target: LlamaForCausalLM, tmp_path: Path) -> None:
    knowing(target).save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 9, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(JudgeDecodingError):
            JudgeHead.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 0}, {"rank": 10**9}, {"rank": 3}, {"questions": 0}, {"limit": 0}, {"limit": float("inf")},
        {"limit": float("nan")}, {"limit": None}, {"quantile": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_figures_out_of_range_are_refused(target: LlamaForCausalLM, tmp_path: Path, change: dict[str, object]) -> None:
    knowing(target).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["familiarity"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeDecodingError, match=r"does not describe a judge head: familiarity|is damaged"):
        JudgeHead.from_pretrained(tmp_path)


def test_tensors_without_their_figures_are_refused(target: LlamaForCausalLM, tmp_path: Path) -> None:
    knowing(target).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["familiarity"] = None
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeDecodingError, match="32 weights and a bias; save or download"):
        JudgeHead.from_pretrained(tmp_path)
