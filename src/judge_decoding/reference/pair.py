"""The embedded pair: two tiny models, a judge for them, and how a problem is put to them."""

from __future__ import annotations

from pathlib import Path

from judge_decoding.decoding.decoder import JudgeDecoder
from judge_decoding.decoding.loading import load_model, load_tokenizer
from judge_decoding.errors import JudgeDecodingError
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
    """The target with its draft and judge, and the draft by itself.

    Raises:
        JudgeDecodingError: this copy of the package holds no trained pair.
    """
    for folder in (TARGET, DRAFT, JUDGE):
        if not folder.is_dir():
            raise JudgeDecodingError(
                f"The reference pair is not in this copy ({folder.name} is missing); "
                "make it as recipes/reference_pair/README.md tells, or use `judge-decoding generate` with your models."
            )
    tokenizer = load_tokenizer(str(TARGET))
    target, draft = load_model(str(TARGET)), load_model(str(DRAFT))
    judge = JudgeHead.from_pretrained(JUDGE, target)
    return JudgeDecoder(target, tokenizer, draft, judge), JudgeDecoder(draft, tokenizer)
