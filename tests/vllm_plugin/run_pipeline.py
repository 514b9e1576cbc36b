"""Answers of vLLM, the target's layers divided over two processes of a CPU: ``python run_pipeline.py EAGLE FILE``.

vLLM gives a pipeline's first rank its drafts only in model runner V2, and only where it schedules asynchronously, which
it turns off on CPUs: here it is turned on again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import run_v2  # noqa: F401  (before vllm: makes its model runner V2 run here)
from drafters import PIPELINE, PIPELINE_SETTINGS, PIPELINE_TOKENS, eagle3
from engines import answers, engine
from vllm.platforms.cpu import CpuPlatform

from judge_decoding.reference import pair

_check = CpuPlatform.check_and_update_config


def _asynchronously(vllm_config: Any) -> None:
    _check(vllm_config)
    vllm_config.scheduler_config.async_scheduling = True


def main(folder: str) -> dict[str, Any]:
    """The answers to some prompts by each setting, and which ranks have a judge."""
    with engine(
        None, {"head": str(pair.JUDGE)}, speculative_config=eagle3(folder), pipeline_parallel_size=2,
        distributed_executor_backend="mp",
    ) as llm:  # fmt: skip
        judges = llm.collective_rpc(lambda worker: hasattr(worker.model_runner, "judge_decoding"))
        made = {name: answers(llm, PIPELINE, PIPELINE_TOKENS, **extra) for name, extra in PIPELINE_SETTINGS.items()}
    return {"judges": judges, "answers": made}


if __name__ == "__main__":
    CpuPlatform.check_and_update_config = staticmethod(_asynchronously)
    Path(sys.argv[2]).write_text(json.dumps(main(sys.argv[1])))
