"""Engines of vLLM in this process, one at a time."""

from __future__ import annotations

import os

# Before vLLM is imported: no network, no second process where none is wanted, little memory.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # threads that wait for each other by spinning are slow on a busy machine
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pair import MAX_NEW_TOKENS, NUM_DRAFT_TOKENS, Answers
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.platforms import current_platform

from judge_decoding.reference import pair

torch.set_num_threads(1)


@contextmanager
def engine(
    draft: Path | None, judge: dict[str, Any] | None = None, *, model: Path = pair.TARGET, **options: Any
) -> Iterator[LLM]:
    """vLLM with the embedded target or another and, perhaps, a draft and a judge."""
    if draft is not None:
        options.setdefault(
            "speculative_config",
            {"method": "draft_model", "model": str(draft), "num_speculative_tokens": NUM_DRAFT_TOKENS},
        )
    llm = LLM(
        model=str(model), enforce_eager=True, max_num_seqs=8,
        additional_config={} if judge is None else {"judge": judge},
        **{"dtype": "float32", "max_model_len": 256, **options},
    )  # fmt: skip
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
        # It has been done, and a second time in one process fails.
        type(current_platform).register_triton_kernel_overrides = classmethod(lambda cls: None)


def answers(llm: LLM, texts: list[str], max_tokens: int = MAX_NEW_TOKENS, **extra: Any) -> Answers:
    """Prompt and answer of each, as token ids."""
    params = SamplingParams(temperature=0, max_tokens=max_tokens, extra_args=extra or None)
    made = llm.generate(texts, params, use_tqdm=False)
    return [(list(one.prompt_token_ids or ()), list(one.outputs[0].token_ids)) for one in made]
