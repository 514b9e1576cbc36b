"""Answers of vLLM's model runner V2 on a CPU, as JSON: ``python run_v2.py DRAFT``.

V2 is written in Triton, which has no CPU back end here, but an interpreter. vLLM takes Triton for absent unless there
is such a back end, so it is told that there is one.
"""

from __future__ import annotations

import os

os.environ |= {"TRITON_INTERPRET": "1", "VLLM_USE_V2_MODEL_RUNNER": "1"}

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from triton.backends import backends

backends["cpu"] = SimpleNamespace(driver=SimpleNamespace(is_active=lambda: True))

from engines import engine
from json_pair import COMPACT, JSON_PROMPTS, MAX_TOKENS, SCHEMAS, make_json_pair
from pair import GRAMMAR, MAX_NEW_TOKENS, PROMPTS
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.structured_output import StructuredOutputManager

from judge_decoding.judge.config import StoredScores
from judge_decoding.reference import pair

SETTINGS: list[tuple[dict[str, Any] | None, dict[str, Any]]] = [
    (None, {}), ({"judge": "off"}, {}), ({"judge_threshold": 0.0}, {}), ({"judge_threshold": 0.5}, {}),
    ({"judge_threshold": 1.0}, {}), (None, {"logprobs": 0}), ({"judge_threshold": 0.3}, {}), (None, {}),
]  # fmt: skip


def main(draft: Path) -> dict[str, Any]:
    """The answers to eight prompts with eight settings, and how many tokens the scheduler was told were rescued."""
    rescued: dict[str, int] = {}
    update = Scheduler.update_from_output

    def watch(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
        for name, count in (getattr(model_runner_output, "judge_rescued", None) or {}).items():
            rescued[name] = rescued.get(name, 0) + count
        return update(self, scheduler_output, model_runner_output)

    compared: list[float] = []
    difference = StoredScores.difference

    def compare(self: StoredScores, found: Any) -> float:
        compared.append(difference(self, found))
        return compared[-1]

    StoredScores.difference = compare  # type: ignore[method-assign]
    Scheduler.update_from_output = watch
    Scheduler.update_from_output.__wrapped__ = update  # what the plugin compares
    with engine(draft, {"head": str(pair.JUDGE)}) as llm:
        runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
        params = [
            SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS, extra_args=extra, **more)
            for extra, more in SETTINGS
        ]
        made = llm.generate(PROMPTS[: len(params)], params, use_tqdm=False)
        told = sum(rescued.values())
        grammar = StructuredOutputsParams(regex=GRAMMAR)
        guided = [
            SamplingParams(
                temperature=temperature, seed=1, max_tokens=MAX_NEW_TOKENS, structured_outputs=grammar,
                extra_args={"judge_threshold": 0.0},
            )
            for temperature in (0, 0, 1, 1)
        ]  # fmt: skip
        texts = llm.generate(PROMPTS[: len(guided)], guided, use_tqdm=False)
    rescued.clear()
    folder = make_json_pair(draft.parent / "json")
    judge = {"head": str(folder / "head")}
    with engine(folder / "draft", judge, model=folder / "target", structured_outputs_config=COMPACT) as llm:
        # The drafts whole, as where vLLM schedules asynchronously.
        StructuredOutputManager.validate_tokens = lambda self, request, tokens: tokens
        asked = [
            SamplingParams(
                temperature=temperature, seed=seed, max_tokens=MAX_TOKENS,
                structured_outputs=StructuredOutputsParams(json=SCHEMAS[0]),
            )
            for seed, temperature in enumerate((0, 0, 1, 1))
        ]  # fmt: skip
        written = llm.generate(JSON_PROMPTS[: len(asked)], asked, use_tqdm=False)
    return {
        "json": [one.outputs[0].text for one in written],
        "json_rescued": sum(rescued.values()),
        "runner": type(runner).__mro__[1].__module__,
        "answers": [(list(one.prompt_token_ids or ()), list(one.outputs[0].token_ids)) for one in made],
        "rescued": told,
        "compared": compared,
        "guided": [one.outputs[0].text for one in texts],
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(Path(sys.argv[1]))))
