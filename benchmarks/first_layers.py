"""A real model with its own first layers as the draft, which is hardly ever right: a few ways of decoding.

    python benchmarks/first_layers.py SMOLLM2-135M-INSTRUCT --layers 20

The hard case of speculative decoding: a draft that costs two thirds of the target and is nearly always wrong. It takes
minutes where `judge-decoding bench --draft-layers 20`, which has every way, takes more than half an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from statistics import median

import torch

from judge_decoding import JudgeDecoder
from judge_decoding.evaluation.bench.bench import alone
from judge_decoding.evaluation.bench.measure import measure
from judge_decoding.evaluation.bench.plan import DEFAULTS, EQUAL, Assistance, Models
from judge_decoding.evaluation.bench.results import ratio
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.models.first_layers import first_layers
from judge_decoding.models.provenance import machine
from limits import Shape
from rounds import Watched

PROMPTS = (
    "Write a short story about a lighthouse keeper.",
    "Explain what a hash table is and list three uses.",
)
LENGTHS = (1, 3)


def main() -> None:
    """Print tokens per second of each way, and the ratios, as JSON lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    model = load_model(args.model, dtype=torch.float32)
    decoder = JudgeDecoder(model, load_tokenizer(args.model), first_layers(model, args.layers))
    models, reasons = Models.of(decoder, args.max_new_tokens, lambda line: print(line, file=sys.stderr))
    if reasons:
        sys.exit(reasons)
    prompts = [decoder.encode([{"role": "user", "content": text}])[0] for text in PROMPTS]
    generate, plain, policy = models.generate(), models.plain(), models.policy(max(LENGTHS))
    defaults = models.assisted(Assistance(), DEFAULTS)
    assisted = [models.assisted(Assistance(length, 0.0), EQUAL) for length in LENGTHS]
    exact = [models.exact(length, EQUAL) for length in LENGTHS]
    ways = [generate, plain, defaults, *assisted, *exact, policy]
    watched = [
        Watched(way, Shape(1, way.label.num_draft_tokens, 0), None, len(prompts)) for way in (plain, *exact, policy)
    ]
    timed = {way.label.name: way for way in watched}
    ways = [timed.get(way.label.name, way) for way in ways]
    found = measure(ways, prompts, alone(models, prompts), repetitions=args.repetitions)
    print(json.dumps({"machine": machine(model.device), "layers": args.layers}))
    for name, one in found.items():
        row = {"way": name, "median": one.speed, "least": min(one.speeds), "most": max(one.speeds)}
        laps = [steady.lap for steady in timed[name].steady if steady] if name in timed else []
        print(
            json.dumps(
                row
                | {"accepted_per_round": one.stats.accepted_per_round if one.stats.rounds else None}
                | {"round_ms": 1e3 * median(laps) if laps else None, "other_tokens": sorted(one.unlike)}
            )
        )
    pairs = [
        *zip(exact, assisted, strict=True),
        *((one, defaults) for one in exact),
        (policy, plain),
        (plain, generate),
    ]
    for one, other in pairs:
        names = one.label.name, other.label.name
        print(ratio(*names, 1, found[names[0]].speeds, found[names[1]].speeds).model_dump_json())


if __name__ == "__main__":
    main()
