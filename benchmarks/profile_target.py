"""What `py-spy` looks at for the flame graphs of docs/performance.md: the embedded pair decoding problem after problem.

python benchmarks/profile_target.py static &      # or eager; wait until it decodes
py-spy record --pid PID --duration 8 --function --rate 100 --output docs/pictures/flame_static.svg
"""

from __future__ import annotations

import sys
import time

import torch

from judge_decoding import JudgeDecoder
from judge_decoding.decoding.engines import Backend
from judge_decoding.reference.pair import load_pair
from judge_decoding.tasks import read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat

SECONDS = 30


def decode_for_a_while(backend: Backend) -> int:
    """Decode with the judge for `SECONDS` seconds; how many tokens that gave."""
    pair, _ = load_pair()
    decoder = JudgeDecoder(pair.target, pair.tokenizer, pair.draft, pair.judge, backend=backend)
    decoder.compile()
    prompt_format = PromptFormat(Arithmetic())
    prompts = [prompt_format.prompt(item) for item in read_items(Arithmetic(count=100))]
    tokens, end = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for prompt in prompts:
            tokens += len(decoder.generate(prompt, prompt_format.budget, stop=prompt_format.stop).token_ids)
    return tokens


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"{decode_for_a_while(sys.argv[1])} tokens in {SECONDS} s")  # type: ignore[arg-type]
