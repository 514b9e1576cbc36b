"""A compiled forward over few tokens, with MKL's matrix products and with sums in plain loops, side by side.

    python benchmarks/few_tokens.py reference SMOLLM2-135M-INSTRUCT --threads 1

Where the second stops being the faster one is `judge_decoding.decoding.static.lm.FEW`.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from statistics import median

import torch
from torch import nn
from transformers import PreTrainedModel

from judge_decoding.decoding.loading import load_model
from judge_decoding.decoding.static.compiling import compile_target, default_folder
from judge_decoding.decoding.static.memory import Memory
from judge_decoding.evaluation.bench.limits import times
from judge_decoding.evaluation.provenance import machine
from judge_decoding.reference.pair import TARGET

TOKENS = (1, 2, 3, 4, 5, 7, 9, 13, 17, 21, 25, 33)
CONTEXT = 200


@torch.inference_mode()
def compared(model: PreTrainedModel, repetitions: int) -> None:
    """Print a JSON line for each number of tokens: milliseconds, [least, most] of them, and the ratio of medians."""
    make = partial(compile_target, model, (("after", -1),), lambda line: print(line, file=sys.stderr), default_folder())
    forwards = {"mkl": make(), "few": make(few=True)}
    weight, bias = torch.zeros(1, model.config.get_text_config().hidden_size), torch.zeros(1)
    memory = Memory(model, 1, CONTEXT + max(TOKENS))
    columns = memory.columns(CONTEXT + max(TOKENS))
    for count in TOKENS:
        tokens = nn.functional.pad(torch.ones(1, count, dtype=torch.long), (1, 0), value=CONTEXT)
        inputs = (tokens, columns, torch.arange(count), weight, bias, memory.cache)
        found = times([partial(forward, *inputs) for forward in forwards.values()], model.device, 0.0, repetitions)
        row: dict[str, object] = {"tokens": count}
        for name, seconds in zip(forwards, found, strict=True):
            row[f"{name}_ms"] = [round(1e3 * value, 3) for value in (median(seconds), min(seconds), max(seconds))]
        row["faster"] = round(median(found[0]) / median(found[1]), 2)
        print(json.dumps(row), flush=True)


def main() -> None:
    """Compare the models that are named; `reference` is the embedded target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repetitions", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.models:
        model = load_model(str(TARGET) if name == "reference" else name, dtype=torch.float32)
        print(json.dumps({"model": name, "machine": machine(model.device)}), flush=True)
        compared(model, args.repetitions)


if __name__ == "__main__":
    main()
