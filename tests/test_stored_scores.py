"""A head's scores for stored prompts tell a quantised copy of its target from another model."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from judge_decoding import JudgeDecodingError, JudgeHead, train_head
from judge_decoding.judge.config import StoredScores
from judge_decoding.judge.head import PROMPT_LENGTH, PROMPTS, prompts_for
from judge_decoding.judge.target import target_info
from judge_decoding.models.teacher_forcing import hidden_states
from test_probe import quantized, with_delta
from test_training import word_cases
from tiny import llama, perturbed, random_head

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def storing(model: LlamaForCausalLM, **config: Any) -> JudgeHead:
    head = random_head(model, **config)
    head.store_scores(model)
    return head


def stored(head: JudgeHead) -> StoredScores:
    assert head.config.scores is not None
    return head.config.scores


def test_a_score_is_that_of_the_last_token(target: LlamaForCausalLM) -> None:
    head = storing(target, layer=-2)
    scores = stored(head)
    assert len(scores.prompts) == PROMPTS
    assert {len(prompt) for prompt in scores.prompts} == {PROMPT_LENGTH}
    for prompt, score in zip(scores.prompts, scores.scores, strict=True):
        (states,) = hidden_states(target, [prompt], "before", -2)
        own = head.linear.weight[0] @ states[-1] + head.linear.bias
        assert score == pytest.approx(float(own), abs=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 40, 243, 151_936])
def test_prompts_are_ids_of_the_lower_half(rows: int) -> None:
    found = prompts_for(rows)
    assert len(found) == PROMPTS
    assert all(0 <= one <= rows // 2 for prompt in found for one in prompt)


def test_the_difference_is_a_share_of_the_spread() -> None:
    scores = StoredScores(prompts=[[1], [2], [3], [4]], scores=[-2.0, 2.0, -2.0, 2.0])
    assert scores.difference([-2.0, 2.0, -2.0, 2.0]) == 0
    assert scores.difference([-1.0, 3.0, -3.0, 1.0]) == pytest.approx(0.5)
    assert scores.difference([2.0, -2.0, 2.0, -2.0]) == pytest.approx(2)
    assert scores.difference([math.nan, 2.0, -2.0, 2.0]) == math.inf
    # Scores that are all alike: less than a quarter of a log-odd says nothing.
    assert StoredScores(prompts=[[1], [2]], scores=[1.0, 1.0]).difference([1.1, 1.1]) == pytest.approx(0.4)
    assert "differ by 0% of their spread" in scores.check(scores.scores, "T", quantized=False)
    assert "where 50% are allowed" in scores.check([-1.2, 2.8, -2.8, 1.2], "T", quantized=True)
    with pytest.raises(JudgeDecodingError, match=r"differ by 40% of their spread.*and 25% are allowed"):
        scores.check([-1.2, 2.8, -2.8, 1.2], "T", quantized=False)
    with pytest.raises(JudgeDecodingError, match=r"On T this judge head.s scores for 4 stored prompts differ by 200%"):
        scores.check([2.0, -2.0, 2.0, -2.0], "T", quantized=True)


def test_a_quantised_target_is_told_from_another_by_its_scores(caplog: pytest.LogCaptureFixture) -> None:
    head = storing(llama(0))
    with caplog.at_level(logging.WARNING, "judge_decoding"):
        head.check_fits(quantized(llama(0)))
    (record,) = caplog.records
    assert "is quantised: the judge head's scores for 16 stored prompts differ by" in record.message
    assert "where 50% are allowed" in record.message
    other = head.scores_on(llama(1), stored(head).prompts)
    assert stored(head).difference(other) > 1


def test_scores_that_differ_too_much_are_refused_with_the_figure() -> None:
    """The layers of a quantised model are close enough, and what the head says of them is not."""
    head = storing(llama(0))
    stored(head).scores[:] = [-score for score in stored(head).scores]
    with pytest.raises(JudgeDecodingError, match=r"stored prompts differ by 2\d\d% of their spread.* train a head"):
        head.check_fits(quantized(llama(0)))


def test_the_scores_of_the_same_target_are_not_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    head = storing(llama(0))
    stored(head).scores[:] = [0.0] * PROMPTS
    head.check_fits(llama(0).bfloat16())
    with pytest.raises(JudgeDecodingError):
        head.check_fits(with_delta(llama(0), 0.1))
    assert not caplog.records


def test_a_trained_head_stores_scores_and_keeps_them(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    head = train_head(target, tokenizer, word_cases())
    assert stored(head).scores == head.scores_on(target, stored(head).prompts)
    head.save_pretrained(tmp_path)
    assert JudgeHead.from_pretrained(tmp_path).config.scores == head.config.scores


def test_a_head_that_reads_the_draft_stores_none(target: LlamaForCausalLM) -> None:
    head = random_head(target, draft=target_info(perturbed(target)))
    head.store_scores(target)
    assert head.config.scores is None


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [0.5]},
        {"scores": [0.5] * 15 + [math.nan]},
        {"prompts": [[-1]] * 16},
        {"prompts": []},
        {"prompts": [[1] * 65] * 16},
    ],
)
def test_scores_that_cannot_be_read_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    storing(llama(0)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["scores"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(tmp_path)


def test_a_head_of_an_older_version_has_none(tmp_path: Path) -> None:
    storing(llama(0)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["scores"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    head = JudgeHead.from_pretrained(tmp_path, llama(0))
    assert head.config.scores is None
    assert torch.equal(head.linear.weight, storing(llama(0)).linear.weight)
