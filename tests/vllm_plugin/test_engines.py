"""Other rules, heads and drafters than the embedded ones, each in an engine of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from drafters import eagle, recording
from engines import answers, engine
from pair import PROMPTS, Answers, are_ours

from judge_decoding.core.rounds import Cause
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules.judge import Judge
from judge_decoding.rules.spelling import parse_rule
from judge_decoding.serving.server_rules import ServerRules, ServerSettings
from tiny import random_head


def test_without_a_judge_vllm_is_as_ever(draft: Path, plain: Answers) -> None:
    with engine(draft) as llm:
        assert answers(llm, PROMPTS) == plain


RULES = (
    "typical(epsilon=0.09, delta=0.3)", "top_k(k=2)", "margin_ratio(k=3, ratio=0.1)", "relaxed(n=4, delta=0.9)",
    "running_surprise(epsilon=3)", "entropy_gate(entropy=0.05, window=2)", "lenience(factor=0.05)",
    "cascade(alpha=0.9)", "exact",
)  # fmt: skip


def test_other_rules_do_what_they_do_in_our_own_loop(draft: Path, decoder: JudgeDecoder, plain: Answers) -> None:
    with engine(draft, {"rule": RULES[0]}) as llm:
        core: Any = llm.llm_engine.engine_core
        runner = core.engine_core.model_executor.driver_worker.worker.model_runner
        assert str(runner.judge_decoding.rules.rule) == RULES[0]
        for spelling in RULES:
            # As if it had been started with this rule: a start takes some seconds.
            runner.judge_decoding.rules = ServerRules.of(ServerSettings.read({"rule": spelling}))
            made = answers(llm, PROMPTS[:20])
            are_ours(made, decoder, parse_rule(spelling))
            assert (made == plain[:20]) == (spelling == "exact")


@pytest.mark.parametrize("place", [{"norm": "before"}, {"norm": "before", "layer": -3}])
def test_a_head_can_read_before_the_final_norm_and_lower_layers(
    draft: Path, decoder: JudgeDecoder, plain: Answers, tmp_path: Path, place: dict[str, Any]
) -> None:
    head = random_head(decoder.target, scale=0.1, **place)
    head.save_pretrained(tmp_path)
    rule = Judge(JudgeHead.from_pretrained(tmp_path), 0.5)
    with engine(draft, {"head": str(tmp_path), "threshold": 0.5}) as llm:
        made = answers(llm, PROMPTS[:20])
    are_ours(made, decoder, rule)
    assert made != plain[:20]


SHORT = 30


@pytest.mark.parametrize(
    ("method", "place"),
    [("ngram", {"norm": "after"}), ("eagle", {"norm": "after"}), ("eagle3", {"norm": "before", "layer": -3})],
)
def test_any_drafter_is_judged(
    decoder: JudgeDecoder, plain: Answers, tmp_path: Path, method: str, place: dict[str, Any]
) -> None:
    """Also one that reads the target's lower layers itself, as EAGLE-3 does, beside a judge that reads another."""
    speculative: dict[str, Any] = {"method": method, "num_speculative_tokens": 4}
    if method == "ngram":
        speculative |= {"prompt_lookup_max": 2, "prompt_lookup_min": 1}
    else:
        folder = eagle(tmp_path / method, decoder.target, states=3 if method == "eagle3" else 1)
        speculative["model"] = str(folder)
    head = random_head(decoder.target, scale=0.1, **place)
    head.save_pretrained(tmp_path / "head")
    with engine(None, {"head": str(tmp_path / "head")}, speculative_config=speculative) as llm:
        drafter = recording(llm)
        found = {t: answers(llm, PROMPTS[:5], SHORT, judge_threshold=t) for t in (0.0, 0.5, 1.0)}
    assert found[1.0] == [(prompt, answer[:SHORT]) for prompt, answer in plain[:5]]
    ours = JudgeDecoder(decoder.target, decoder.tokenizer, drafter)
    for threshold in (0.0, 0.5):
        rule = Judge(JudgeHead.from_pretrained(tmp_path / "head"), threshold)
        ids = [torch.tensor([[*prompt, answer[0]]]) for prompt, answer in found[threshold]]
        # More budget than there: near its end our loop drafts less.
        made = ours.generate_batch(ids, SHORT + 8, rule=rule, num_draft_tokens=4)
        for (_, answer), one in zip(found[threshold], made, strict=True):
            assert answer == [answer[0], *one.token_ids][:SHORT]
        assert sum(one.stats.causes[Cause.RESCUED] for one in made) > 10
    assert found[0.0] != found[0.5] != found[1.0]
