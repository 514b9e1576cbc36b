"""The plugin's tokens are those of our own loop, whatever the threshold; at its strict setting they are plain."""

from __future__ import annotations

from typing import Any

import pytest
from engines import answers
from pair import MAX_NEW_TOKENS, PROMPTS, Answers, are_ours, judged_by
from vllm import LLM, SamplingParams

from judge_decoding.decoder import JudgeDecoder


@pytest.mark.parametrize("threshold", [0.0, 0.5, None, 1.0])
def test_the_tokens_are_those_of_our_own_loop(
    judged: LLM, decoder: JudgeDecoder, plain: Answers, threshold: float | None
) -> None:
    rule = judged_by(decoder, threshold)
    extra: dict[str, Any] = {} if threshold is None else {"judge_threshold": threshold}
    made = answers(judged, PROMPTS, **extra)
    are_ours(made, decoder, rule)
    differing = sum(a != b for a, b in zip(made, plain, strict=True))
    assert differing == 0 if threshold == 1 else differing > 25


def test_turned_off_for_a_request_it_is_the_target_alone(judged: LLM, plain: Answers) -> None:
    for value in ("off", False, 0):
        assert answers(judged, PROMPTS[:10], judge=value) == plain[:10]


def test_log_probabilities_are_of_the_targets_own_tokens(judged: LLM, plain: Answers) -> None:
    wanted = SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS, logprobs=0)
    made = judged.generate(PROMPTS[:8], wanted, use_tqdm=False)
    assert [list(one.outputs[0].token_ids) for one in made] == [answer for _, answer in plain[:8]]
