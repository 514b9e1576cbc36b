"""Run vLLM in its own process: batches of token ids in, answers and seconds out, one line of JSON each.

This file is run by its path, possibly by another interpreter, so it imports nothing of this package; vLLM itself loads
the judge's plugin.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Load the engine given by the first argument, then answer each line of standard input until its end."""
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    # vLLM and its libraries print to stdout and stderr; the answers use a separate channel.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        from vllm import LLM, SamplingParams  # noqa: PLC0415  (imported after its output is redirected)

        llm = LLM(**wanted["engine"])
        params = SamplingParams(
            temperature=0, max_tokens=wanted["max_new_tokens"], stop_token_ids=wanted["end_ids"], detokenize=False
        )

        def send(value: object) -> None:
            answers.write(json.dumps(value) + "\n")
            answers.flush()

        send("ready")
        for line in sys.stdin:
            prompts = [{"prompt_token_ids": ids} for ids in json.loads(line)]
            begin = time.perf_counter()
            made = llm.generate(prompts, params, use_tqdm=False)
            seconds = time.perf_counter() - begin
            send({"tokens": [list(one.outputs[0].token_ids) for one in made], "seconds": seconds})


if __name__ == "__main__":
    main()
