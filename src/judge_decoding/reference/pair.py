"""The embedded pair: where its files are, and how a problem is put to it."""

from __future__ import annotations

from pathlib import Path

from judge_decoding.reference.problems import Problem

FOLDER = Path(__file__).parent
TARGET = FOLDER / "target"
DRAFT = FOLDER / "draft"
JUDGE = FOLDER / "judge"

PROMPT = "Q: {question}\nA:"


def prompt_of(problem: Problem) -> str:
    """The text after which the pair writes its answer to ``problem``."""
    return PROMPT.format(question=problem.question.strip())
