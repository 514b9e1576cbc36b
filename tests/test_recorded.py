"""Answers of the embedded pair, recorded once: whoever changes the loop sees here whether it still says the same.

``python tests/test_recorded.py`` records them anew, for a change that is meant to change them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from judge_decoding import (
    Budget,
    Confident,
    Exact,
    Generation,
    Heuristic,
    Judge,
    JudgeDecoder,
    MinProbability,
    PromptLookup,
    Stats,
    StrictStart,
    TopK,
    Typical,
)
from judge_decoding.reference.pair import load_pair, prompt_of
from judge_decoding.reference.problems import MAX_NEW_TOKENS, draw_many

pytestmark = pytest.mark.slow

RECORD = Path(__file__).with_name("recorded.json")
PROMPTS = [prompt_of(problem) for problem in draw_many(0, "test", 6)]


@cache
def pair() -> JudgeDecoder:
    return load_pair()[0]


@cache
def lookup() -> JudgeDecoder:
    return JudgeDecoder(pair().target, pair().tokenizer, PromptLookup(), pair().judge)


def settings(judged: JudgeDecoder, copying: JudgeDecoder) -> dict[str, Callable[[], list[Generation]]]:
    head = judged.judge
    assert head is not None

    def alone(decoder: JudgeDecoder, count: int = len(PROMPTS), **options: Any) -> Callable[[], list[Generation]]:
        return lambda: [decoder.generate(prompt, MAX_NEW_TOKENS, **options) for prompt in PROMPTS[:count]]

    def together(**options: Any) -> Callable[[], list[Generation]]:
        return lambda: judged.generate_batch(PROMPTS, MAX_NEW_TOKENS, batch_size=4, **options)

    return {
        "no draft": alone(JudgeDecoder(judged.target, judged.tokenizer), 4),
        "exact": alone(judged, rule=Exact(), num_draft_tokens=8),
        "judge": alone(judged, num_draft_tokens=16),
        "judge at 0.9": alone(judged, threshold=0.9, num_draft_tokens=24),
        "top-k": alone(judged, rule=TopK(2), num_draft_tokens=8),
        "typical": alone(judged, rule=Typical(), num_draft_tokens=8),
        "judge or min-probability": alone(judged, rule=Judge(head, 0.9) | MinProbability(0.1), num_draft_tokens=8),
        "guards": alone(judged, guards=(StrictStart(12), Budget(2)), num_draft_tokens=12),
        "heuristic length": alone(judged, draft_length=Heuristic, num_draft_tokens=4),
        "confident length": alone(judged, rule=Exact(), draft_length=Confident, num_draft_tokens=12),
        "prompt lookup": alone(copying, num_draft_tokens=8),
        "judge, sampled": alone(judged, temperature=0.8, seed=3, num_draft_tokens=8),
        "exact, sampled": alone(judged, rule=Exact(), temperature=0.8, seed=3, num_draft_tokens=8),
        "judge, batch": together(num_draft_tokens=16),
        "exact, batch": together(rule=Exact(), num_draft_tokens=8),
        "sampled batch": together(temperature=0.8, seeds=list(range(len(PROMPTS))), num_draft_tokens=8),
    }


def record(answers: list[Generation]) -> dict[str, object]:
    stats = Stats()
    for answer in answers:
        stats.merge(answer.stats)
    counts = {"rounds": stats.rounds, "drafted": stats.drafted, **{c.value: n for c, n in sorted(stats.causes.items())}}
    return {"counts": counts, "token_ids": [list(answer.token_ids) for answer in answers]}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


RECORDED: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}


@pytest.mark.parametrize("name", RECORDED)
def test_the_loop_says_what_it_said(name: str) -> None:
    assert record(settings(pair(), lookup())[name]()) == RECORDED[name]


def test_all_settings_are_recorded() -> None:
    assert set(RECORDED) == set(settings(pair(), lookup()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = {name: record(run()) for name, run in settings(pair(), lookup()).items()}
    RECORD.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in made.items()) + "\n}\n")
