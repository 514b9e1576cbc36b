"""Ways to run a compiled forward over few tokens, side by side.

With MKL's matrix products, and with sums in plain loops.

    python benchmarks/few_tokens.py reference SMOLLM2-135M-INSTRUCT --threads 1

Where the loops stop being faster is `judge_decoding.decoding.backends.static.lm.FEW`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from torch import nn
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.static.compiling import Compiled, compile_target, default_folder
from judge_decoding.decoding.backends.static.kv_cache import StaticKVCache
from judge_decoding.loading.models import load_model
from judge_decoding.models.provenance import machine
from limits import times

TOKENS = (1, 2, 3, 4, 5, 7, 9, 13, 17, 21, 25, 33)
CONTEXT = 200
BLOCK_SECONDS = 0.02


@torch.inference_mode()
def compared(model: PreTrainedModel, repetitions: int) -> None:
    """Print a JSON line for each number of tokens: milliseconds, [least, most] of them, and the ratio of medians."""
    forwards = _forwards(model)
    weight, bias = torch.zeros(1, model.config.get_text_config().hidden_size), torch.zeros(1)
    memory = StaticKVCache(model, 1, CONTEXT + max(TOKENS))
    columns = memory.columns(CONTEXT + max(TOKENS))
    for count in TOKENS:
        tokens = nn.functional.pad(torch.ones(1, count, dtype=torch.long), (1, 0), value=CONTEXT)
        inputs = (tokens, columns, torch.arange(count), weight, bias, memory.cache)
        ways = dict(zip(("mkl", "few"), forwards, strict=True))
        found = _in_blocks([partial(way, *inputs) for way in ways.values()], model.device, repetitions)
        row: dict[str, object] = {"tokens": count}
        for name, seconds in zip(ways, found, strict=True):
            row[f"{name}_ms"] = [round(1e3 * value, 3) for value in (median(seconds), min(seconds), max(seconds))]
        row["few_over_mkl"] = round(median(found[0]) / median(found[1]), 2)
        print(json.dumps(row), flush=True)


def _in_blocks(calls: Sequence[Callable[[], object]], device: torch.device, repetitions: int) -> list[list[float]]:
    """Seconds of each, called again and again for `BLOCK_SECONDS`, as in decoding: so weights stay in a cache."""
    count = max(1, round(BLOCK_SECONDS / min(map(median, times(calls, device)))))

    def block(call: Callable[[], object]) -> None:
        for _ in range(count):
            call()

    found = times([partial(block, call) for call in calls], device, 0.0, repetitions)
    return [[seconds / count for seconds in own] for own in found]


def _forwards(model: PreTrainedModel) -> list[Compiled]:
    make = partial(
        compile_target, model, (HiddenSource(),), lambda line: print(line, file=sys.stderr), default_folder()
    )
    return [make(), make(few=True)]


def main() -> None:
    """Compare the models that are named; `reference` is the embedded target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.models:
        model = load_model(name, dtype=torch.float32)
        print(json.dumps({"model": name, "machine": machine(model.device)}), flush=True)
        compared(model, args.repetitions)


if __name__ == "__main__":
    main()
