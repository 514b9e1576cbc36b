"""vLLM in a process of its own: batches of token ids in, answers and seconds out, a line of JSON each.

Run by its path, perhaps by another interpreter, so it imports nothing of this package; the judge's plugin is loaded by
vLLM itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Load what the first argument says, then answer each line of standard input until it ends."""
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    # vLLM and the libraries below it print where they like; the answers have a channel of their own.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        from vllm import LLM, SamplingParams  # noqa: PLC0415  (its output goes elsewhere from its import on)

        llm = LLM(**wanted["engine"])
        params = SamplingParams(
            temperature=0, max_tokens=wanted["max_new_tokens"], stop_token_ids=wanted["end_ids"], detokenize=False
        )

        def tell(value: object) -> None:
            answers.write(json.dumps(value) + "\n")
            answers.flush()

        tell("ready")
        for line in sys.stdin:
            prompts = [{"prompt_token_ids": ids} for ids in json.loads(line)]
            begin = time.perf_counter()
            made = llm.generate(prompts, params, use_tqdm=False)
            seconds = time.perf_counter() - begin
            tell({"tokens": [list(one.outputs[0].token_ids) for one in made], "seconds": seconds})


if __name__ == "__main__":
    main()
