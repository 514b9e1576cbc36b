"""Structured outputs by a JSON schema are valid even where a judge accepts all that it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from engines import engine
from json_pair import COMPACT, JSON_PROMPTS, MAX_TOKENS, SCHEMAS, check_json, make_json_pair
from torch import Tensor
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output import StructuredOutputManager

from judge_decoding.integrations.vllm.runner import FlatVerification


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = make_json_pair(tmp_path_factory.mktemp("json"))
    judge = {"head": str(folder / "head")}
    with engine(folder / "draft", judge, model=folder / "target", structured_outputs_config=COMPACT) as llm:
        yield llm


@pytest.mark.parametrize("trimmed", [True, False])
@pytest.mark.parametrize("schema", SCHEMAS)
def test_json_is_valid_where_every_draft_token_is_accepted(
    writer: LLM, monkeypatch: pytest.MonkeyPatch, schema: dict[str, Any], trimmed: bool
) -> None:
    """On a CPU vLLM cuts drafts where the grammar forbids them; where it schedules asynchronously, as it does on GPUs,
    they are verified whole, and nothing but what the grammar left of the logits stands against the judge.
    """
    if not trimmed:
        monkeypatch.setattr(StructuredOutputManager, "validate_tokens", lambda self, request, tokens: tokens)
    rescued = 0
    count = FlatVerification.count

    def watched(self: FlatVerification, output: Tensor) -> None:
        nonlocal rescued
        count(self, output)
        rescued += 0 if self.rescued_counts is None else int(self.rescued_counts.sum())

    monkeypatch.setattr(FlatVerification, "count", watched)

    def texts(**extra: Any) -> list[str]:
        params = SamplingParams(
            temperature=0, max_tokens=MAX_TOKENS, extra_args=extra,
            structured_outputs=StructuredOutputsParams(json=schema),
        )  # fmt: skip
        return [one.outputs[0].text for one in writer.generate(JSON_PROMPTS, params, use_tqdm=False)]

    strict = texts(judge="off")
    check_json(strict, schema)
    assert rescued == 0
    for extra in ({}, {"judge_threshold": 0.0}):
        rescued = 0
        judged = texts(**extra)
        check_json(judged, schema)
        assert rescued > 0
        assert judged != strict
