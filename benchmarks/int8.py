"""A target with weights of 8 bits against the same in float32, both compiled, side by side in one run.

    python benchmarks/int8.py TARGET --draft DRAFT --out benchmarks/results

The weights are quantised by torchao, one scale a row (`Int8WeightOnlyConfig`); activations stay in float32. The draft
is the same for both. What bounds both is the time to read the weights once a forward: the floor in the table.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from judge_decoding import Exact, JudgeDecoder
from judge_decoding.io.files import write_json, write_text
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.markdown import table
from judge_decoding.models.first_layers import first_layers
from judge_decoding.models.provenance import machine
from limits import measure_machine

PROMPTS = (
    "name[The Punter], eatType[pub], food[Italian], priceRange[cheap], area[riverside]",
    "name[Zizzi], eatType[coffee shop], food[Chinese], customer rating[5 out of 5]",
    "name[Aromi], eatType[restaurant], food[French], area[city centre], familyFriendly[no]",
    "name[Loch Fyne], food[Indian], priceRange[high], near[The Rice Boat]",
)


def quantized(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with weights of 8 bits."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_  # noqa: PLC0415  (needed here alone)

    other = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_(other, Int8WeightOnlyConfig(set_inductor_config=False))
    return other


def bytes_read(model: PreTrainedModel) -> int:
    """Bytes of weights that a forward of one token reads: all but the table of embeddings, and the head whole."""
    table_of = id(model.get_input_embeddings().get_parameter("weight"))
    weights: dict[int, Any] = {id(weight): weight for weight in model.parameters() if id(weight) != table_of}
    head: Any = model.get_output_embeddings()
    weights[id(head.weight)] = head.weight
    parts = [
        part
        for weight in weights.values()
        for part in ((weight.qdata, weight.scale) if hasattr(weight, "qdata") else (weight,))
    ]
    return sum(part.numel() * part.element_size() for part in parts)


def answers(decoder: JudgeDecoder, options: dict[str, Any], tokens: int) -> tuple[float, list[list[int]], list[float]]:
    """Decode all prompts one by one; the seconds, the token ids, and the seconds of each round but an answer's first.

    The first round of an answer reads the prompt.
    """
    prompts = [decoder.encode([{"role": "user", "content": text}]) for text in PROMPTS]
    found: list[list[int]] = []
    laps = []
    begin = time.perf_counter()
    for prompt in prompts:
        found.append([])
        before = None
        for event in decoder.rounds(prompt, tokens, **options):
            found[-1] += event.token_ids
            now = time.perf_counter()
            if before is not None:
                laps.append(now - before)
            before = now
    return time.perf_counter() - begin, found, laps


def main() -> None:
    """Measure and write ``int8.json`` and ``int8.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--draft")
    parser.add_argument("--layers", type=int, help="only the target's first layers, which compile sooner")
    parser.add_argument("--num-draft-tokens", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, tokenizer = load_model(args.target, dtype=torch.float32), load_tokenizer(args.target)
    if args.layers:
        model = first_layers(model, args.layers)
    models = {"float32": model, "int8": quantized(model)}
    draft = load_model(args.draft, dtype=torch.float32) if args.draft else None
    options: dict[str, dict[str, Any]] = {"no draft": {}}
    if draft is not None:
        options[f"exact, M = {args.num_draft_tokens}"] = {
            "rule": Exact(), "num_draft_tokens": args.num_draft_tokens
        }  # fmt: skip
    decoders = {
        (way, name): JudgeDecoder(one, tokenizer, draft if chosen else None, backend="static")
        for way, chosen in options.items()
        for name, one in models.items()
    }
    for decoder in decoders.values():
        decoder.compile(lambda line: print(line, file=sys.stderr))
        if decoder.fallbacks:
            sys.exit(". ".join(decoder.fallbacks))
    eager = {name: answers(JudgeDecoder(one, tokenizer), {}, args.max_new_tokens)[1] for name, one in models.items()}
    bandwidth = measure_machine(model.device, torch.float32).bandwidth
    speeds: dict[tuple[str, str], list[float]] = {key: [] for key in decoders}
    laps: dict[tuple[str, str], list[float]] = {key: [] for key in decoders}
    same = dict.fromkeys(decoders, True)
    for repetition in tqdm(range(args.repetitions + 1)):
        for way, chosen in options.items():
            for name in sorted(models, reverse=repetition % 2 == 0):
                seconds, ids, rounds = answers(decoders[way, name], chosen, args.max_new_tokens)
                same[way, name] &= ids == eager[name]
                if repetition:  # the first is warm-up
                    speeds[way, name].append(sum(map(len, ids)) / seconds)
                    laps[way, name].append(median(rounds))
    rows = []
    for way in options:
        ratios = sorted(a / b for a, b in zip(speeds[way, "int8"], speeds[way, "float32"], strict=True))
        shorter = sorted(b / a for a, b in zip(laps[way, "int8"], laps[way, "float32"], strict=True))
        for name, one in models.items():
            found = speeds[way, name]
            rows.append(
                {
                    "way": way, "weights": name, "tokens_per_second": [median(found), min(found), max(found)],
                    "round_ms": 1e3 * median(laps[way, name]), "bytes": bytes_read(one),
                    "floor_ms": 1e3 * bytes_read(one) / bandwidth, "same_tokens_as_eager": same[way, name],
                    "over_float32": [median(ratios), ratios[0], ratios[-1]] if name == "int8" else None,
                    "round_over_float32": [median(shorter), shorter[0], shorter[-1]] if name == "int8" else None,
                }
            )  # fmt: skip
    result = {
        "command": " ".join(["python", *sys.argv]), "machine": machine(), "threads": args.threads,
        "bandwidth": bandwidth, "prompts": len(PROMPTS), "repetitions": args.repetitions, "rows": rows,
    }  # fmt: skip
    write_json(args.out / "int8.json", result)
    write_text(args.out / "int8.md", page(result))
    print(page(result))


def page(result: dict[str, Any]) -> str:
    """The results in Markdown."""
    head = ["decoding", "weights", "tokens per second [least, most]", "over float32", "round, ms", "shorter by",
            "target's floor, ms", "tokens of eager"]  # fmt: skip
    lines = [
        [
            row["way"], row["weights"], "{:.1f} [{:.1f}, {:.1f}]".format(*row["tokens_per_second"]),
            "{:.2f}x [{:.2f}, {:.2f}]".format(*row["over_float32"]) if row["over_float32"] else "",
            f"{row['round_ms']:.1f}",
            "{:.2f}x [{:.2f}, {:.2f}]".format(*row["round_over_float32"]) if row["round_over_float32"] else "",
            f"{row['floor_ms']:.1f} ({row['bytes'] / 1e6:.0f} MB)",
            "yes" if row["same_tokens_as_eager"] else "no",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    told = (
        f"Tokens per second on {result['machine']}, {result['threads']} thread(s), {result['prompts']} prompts, medians"
        f" of {result['repetitions']} alternating repetitions; of rounds, those that read no prompt. The floor is the"
        f" time to read the target's weights once at the {result['bandwidth'] / 1e9:.1f} GB/s measured here; with a"
        " draft a round reads the draft's, too."
    )
    return f"{told}\n\n{table(head, lines)}\n"


if __name__ == "__main__":
    main()
