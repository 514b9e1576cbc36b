"""A compiled forward over few tokens, with MKL's matrix products and with sums in plain loops, side by side.

    python benchmarks/few_tokens.py reference SMOLLM2-135M-INSTRUCT --threads 1

Where the second stops being the faster one is `judge_decoding.decoding.static.lm.FEW`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.decoding.loading import load_model
from judge_decoding.decoding.static.compiling import compile_target, default_folder
from judge_decoding.decoding.static.memory import Memory
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
        times: dict[str, list[float]] = {name: [] for name in forwards}
        for _ in range(repetitions + 2):
            for name, forward in forwards.items():
                times[name].append(1e3 * seconds(forward, *inputs))
        row: dict[str, object] = {"tokens": count}
        for name, found in times.items():
            kept = found[2:]
            row[f"{name}_ms"] = [round(value, 3) for value in (median(kept), min(kept), max(kept))]
        row["faster"] = round(median(times["mkl"][2:]) / median(times["few"][2:]), 2)
        print(json.dumps(row), flush=True)


def seconds(forward: Callable[..., list[Tensor]], *inputs: object) -> float:
    """How long one call takes."""
    start = perf_counter()
    forward(*inputs)
    return perf_counter() - start


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
