"""The embedded pair: two tiny models, a judge for them, and how a problem is put to them."""

from __future__ import annotations

from pathlib import Path

from judge_decoding.decoding.decoder import JudgeDecoder
from judge_decoding.decoding.loading import load_model, load_tokenizer
from judge_decoding.judge.head import JudgeHead
from judge_decoding.reference.problems import Problem

FOLDER = Path(__file__).parent
TARGET = FOLDER / "target"
DRAFT = FOLDER / "draft"
JUDGE = FOLDER / "judge"

MAX_NEW_TOKENS = 140
"""Token budget of one answer; the longest right ones have about 100 tokens."""


def prompt_of(problem: Problem) -> str:
    """The text after which the pair writes its answer to ``problem``."""
    return f"Q: {problem.question.strip()}\nA:"


def load_pair() -> tuple[JudgeDecoder, JudgeDecoder]:
    """The target with its draft and judge, and the draft by itself."""
    tokenizer = load_tokenizer(str(TARGET))
    target, draft = load_model(str(TARGET)), load_model(str(DRAFT))
    judge = JudgeHead.from_pretrained(JUDGE, target)
    return JudgeDecoder(target, tokenizer, draft, judge), JudgeDecoder(draft, tokenizer)
