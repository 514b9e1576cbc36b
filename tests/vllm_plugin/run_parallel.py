"""Answers of vLLM, the target divided over two processes of a CPU, as JSON: ``python run_parallel.py DRAFT FILE``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engines import engine
from pair import MAX_NEW_TOKENS, PROMPTS
from vllm import SamplingParams

from judge_decoding.reference import pair

COUNT = 12


def main(draft: Path) -> dict[str, object]:
    """The answers to some prompts, by the head's own threshold and at 0, and over how many ranks."""
    with engine(draft, {"head": str(pair.JUDGE)}, tensor_parallel_size=2, distributed_executor_backend="mp") as llm:
        ranks = llm.llm_engine.vllm_config.parallel_config.world_size
        shapes = llm.collective_rpc(lambda worker: list(worker.model_runner.get_model().lm_head.weight.shape))
        found = {}
        for name, extra in (("own", None), ("all", {"judge_threshold": 0.0})):
            params = SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS, extra_args=extra)
            outputs = llm.generate(PROMPTS[:COUNT], params, use_tqdm=False)
            found[name] = [(list(one.prompt_token_ids), list(one.outputs[0].token_ids)) for one in outputs]
    return {"ranks": ranks, "shapes": shapes, "answers": found}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(Path(sys.argv[1]))))
