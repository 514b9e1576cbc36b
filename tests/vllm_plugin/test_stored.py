"""A head's stored scores are compared with those on the loaded target before anything is answered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from engines import answers, engine
from pair import PROMPTS, are_ours, judged_by
from transformers import AutoModelForCausalLM
from vllm.distributed import cleanup_dist_env_and_memory

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.vllm.checks import log
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import load_model
from judge_decoding.reference import pair


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded head with scores."""
    made, folder = JudgeHead.from_pretrained(pair.JUDGE), tmp_path_factory.mktemp("scores") / "head"
    made.store_scores(load_model(str(pair.TARGET)))
    made.save_pretrained(folder)
    return folder


@contextmanager
def refused() -> Iterator[pytest.ExceptionInfo[JudgeDecodingError]]:
    """A start that must fail; what it began is ended."""
    with pytest.raises(JudgeDecodingError) as caught:
        yield caught
    cleanup_dist_env_and_memory()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(log, "info", lambda text, *args: said.append(text % args))
    return said


def merged(folder: Path, scale: float) -> Path:
    """The embedded target with an adapter merged into the layers; its embeddings are the same."""
    model = AutoModelForCausalLM.from_pretrained(pair.TARGET, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model.model.layers:
            for linear in (layer.self_attn.q_proj, layer.mlp.down_proj):
                out, into = linear.weight.shape
                up, down = torch.randn(out, 4, generator=generator), torch.randn(4, into, generator=generator)
                linear.weight += scale * up @ down
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pair.TARGET / name, folder / name)
    return folder


def test_its_own_target_is_told_by_its_scores(head: Path, draft: Path, decoder: JudgeDecoder, told: list[str]) -> None:
    with engine(draft, {"head": str(head)}) as llm:
        scheduler = llm.llm_engine.engine_core.engine_core.scheduler
        assert not scheduler.requests
        assert "judge_scores" not in vars(scheduler)
        are_ours(answers(llm, PROMPTS[:8]), decoder, judged_by(decoder))
    assert [one for one in told if "stored prompts" in one] == [
        "The judge head's scores for 16 stored prompts differ by 0% of their spread from those in its training, "
        "where 25% are allowed."
    ]


def test_another_model_with_the_same_embeddings_is_refused(head: Path, draft: Path, tmp_path: Path) -> None:
    """The fingerprint of the output embeddings cannot see that."""
    with refused() as caught, engine(draft, {"head": str(head)}, model=merged(tmp_path / "merged", 0.2)):
        pass
    assert "stored prompts differ by" in str(caught.value)
    assert "train a head on this one" in str(caught.value)


def test_scores_of_states_below_the_norm_are_compared_too(draft: Path, tmp_path: Path, told: list[str]) -> None:
    target = load_model(str(pair.TARGET))
    made = JudgeHead.from_pretrained(pair.JUDGE)
    made.set_familiarity(None)
    made.config.norm, made.config.layer = "before", -3
    made.store_scores(target)
    made.save_pretrained(tmp_path / "low")
    with engine(draft, {"head": str(tmp_path / "low")}):
        pass
    assert any("differ by 0% of their spread" in one for one in told)


def test_a_head_of_an_older_version_starts_without_a_word(draft: Path, tmp_path: Path, told: list[str]) -> None:
    folder = shutil.copytree(pair.JUDGE, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    config.pop("scores", None)
    (folder / "config.json").write_text(json.dumps(config))
    with engine(draft, {"head": str(folder)}):
        pass
    assert not any("stored prompts" in one for one in told)


def test_prompts_that_do_not_fit_are_told(head: Path, draft: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(log, "warning", lambda text, *args: warned.append(text % args))
    with engine(draft, {"head": str(head)}, max_model_len=12):
        pass
    assert any("do not fit into --max-model-len" in one for one in warned)
