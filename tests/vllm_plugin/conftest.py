"""What the tests of the vLLM plugin share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import answers, engine  # before vllm: it sets what vllm reads
from pair import PROMPTS, Answers
from vllm import LLM

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.reference import pair
from judge_decoding.reference.wide import wide_draft

SLOWEST = ("test_runner_v2", "test_parallel", "test_server", "test_engines")
"""The files that take minutes, the slowest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They come first, so that no process is left with one of them when the other is done."""
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))


@pytest.fixture(scope="session")
def decoder() -> JudgeDecoder:
    return pair.load_pair()[0]


@pytest.fixture(scope="session")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide_draft(tmp_path_factory.mktemp("wide") / "draft")


@pytest.fixture(scope="session")
def plain() -> Answers:
    """What the target says without a draft."""
    with engine(None) as llm:
        return answers(llm, PROMPTS)


@pytest.fixture(scope="module")
def judged(draft: Path, plain: Answers) -> Iterator[LLM]:
    """An engine with the embedded judge, once that of ``plain`` has ended."""
    with engine(draft, {"head": str(pair.JUDGE)}) as llm:
        yield llm
