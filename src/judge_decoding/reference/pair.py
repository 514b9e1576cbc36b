"""The embedded pair: two tiny models, a judge for them, and their prompt format."""

from __future__ import annotations

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.names import EMBEDDED, REFERENCE, REFERENCE_DRAFT
from judge_decoding.reference.problems import Problem

TARGET, DRAFT, JUDGE = EMBEDDED["target"], EMBEDDED["draft"], EMBEDDED["judge"]


def prompt_of(problem: Problem) -> str:
    """Return the pair's prompt for ``problem``."""
    return f"Q: {problem.question.strip()}\nA:"


def load_pair() -> tuple[JudgeDecoder, JudgeDecoder]:
    """Return decoders for the target with its draft and judge, and for the draft alone."""
    tokenizer = load_tokenizer(REFERENCE)
    target, draft = load_model(REFERENCE), load_model(REFERENCE_DRAFT)
    judge = JudgeHead.from_pretrained(REFERENCE, target)
    return JudgeDecoder(target, tokenizer, draft, judge), JudgeDecoder(draft, tokenizer)
