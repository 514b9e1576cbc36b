"""vLLM takes the draft lengths by load as `sweep --batch-size` prints them, beside a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engines import answers, engine
from pair import PROMPTS, Answers
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.spec_decode.dynamic.utils import build_dynamic_sd_schedule_lookup

from judge_decoding.evaluation.loads import vllm_option
from judge_decoding.reference import pair


def test_vllm_reads_the_schedule_as_it_is_meant() -> None:
    option = json.loads(json.dumps(vllm_option({1: 8, 4: 3, 16: 0})))
    longest = option["num_speculative_tokens"]
    lookup = build_dynamic_sd_schedule_lookup(option["num_speculative_tokens_per_batch_size"], 20, longest)
    assert lookup[1:] == [8] * 3 + [3] * 12 + [0] * 5


def test_a_judge_works_with_drafts_by_load(draft: Path, plain: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    drafted: list[tuple[int, int]] = []
    update = Scheduler.update_from_output

    def watch(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        drafts = scheduler_output.scheduled_spec_decode_tokens.values()
        drafted.append((len(scheduler_output.num_scheduled_tokens), max(map(len, drafts), default=0)))
        return update(self, scheduler_output, model_runner_output)

    monkeypatch.setattr(Scheduler, "update_from_output", watch)
    watch.__wrapped__ = update  # type: ignore[attr-defined]  # what the plugin compares
    speculative = {"method": "draft_model", "model": str(draft), **vllm_option({1: 6, 4: 2})}
    with engine(draft, {"head": str(pair.JUDGE)}, speculative_config=speculative) as llm:
        assert answers(llm, PROMPTS[:8], judge="off") == plain[:8]
        assert max(length for requests, length in drafted if requests >= 4) == 2
        assert answers(llm, PROMPTS[:1], judge="off") == plain[:1]
        assert max(length for requests, length in drafted if requests == 1) == 6
        assert answers(llm, PROMPTS[:8]) != plain[:8]
