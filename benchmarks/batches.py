"""Throughput over batch sizes: where the gain of a batch, and of speculation in it, ends.

    python benchmarks/batches.py --out benchmarks/results      # the embedded pair
    python benchmarks/batches.py --target T --draft D --judge J

Every batch size decodes the same prompts with the target alone, with standard verification and with the judge, side by
side in one process and on one thread unless told otherwise; the answers are checked to be those of batch size 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from judge_decoding import Exact, JudgeDecoder
from judge_decoding.io.files import write_json, write_text
from judge_decoding.models.provenance import machine
from judge_decoding.reference import pair
from judge_decoding.reference.problems import MAX_NEW_TOKENS, draw_many


def main() -> None:
    """Measure and write ``batches.json`` and ``batches.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default=str(pair.TARGET))
    parser.add_argument("--draft", default=str(pair.DRAFT))
    parser.add_argument("--judge", default=str(pair.JUDGE))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    both = JudgeDecoder.from_pretrained(args.target, args.draft, args.judge, device=args.device)
    assert both.judge is not None
    methods = {
        "target": (JudgeDecoder(both.target, both.tokenizer), {}),
        "exact": (both, {"rule": Exact(), "num_draft_tokens": 4}),
        "judge": (both, {}),
    }
    prompts = [pair.prompt_of(problem) for problem in draw_many(0, "test", args.prompts)]
    speeds: dict[tuple[str, int], list[float]] = {(name, size): [] for name in methods for size in args.sizes}
    alone: dict[str, list[tuple[int, ...]]] = {}
    differing = dict.fromkeys(speeds, 0)
    jobs = [(name, size) for size in args.sizes for name in methods]
    for repetition in tqdm(range(args.repetitions + 1)):
        for name, size in jobs:
            decoder, options = methods[name]
            begin = time.perf_counter()
            answers = decoder.generate_batch(prompts, MAX_NEW_TOKENS, batch_size=size, **options)
            seconds = time.perf_counter() - begin
            ids = [answer.token_ids for answer in answers]
            differing[name, size] = sum(a != b for a, b in zip(ids, alone.setdefault(name, ids), strict=True))
            if repetition:  # the first is warm-up
                speeds[name, size].append(sum(map(len, ids)) / seconds)
    rows = [
        {
            "method": name, "batch_size": size, "tokens_per_second": statistics.median(speeds[name, size]),
            "low": min(speeds[name, size]), "high": max(speeds[name, size]),
            "over_target": statistics.median(
                a / b for a, b in zip(speeds[name, size], speeds["target", size], strict=True)
            ),
            "answers_unlike_alone": differing[name, size],
        }
        for name, size in jobs
    ]  # fmt: skip
    result = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "prompts": args.prompts, "rows": rows}
    write_json(args.out / "batches.json", result)
    write_text(args.out / "batches.md", table(result, args.sizes))
    print(table(result, args.sizes))


def table(result: dict[str, object], sizes: list[int]) -> str:
    """The results as Markdown."""
    rows = {(row["method"], row["batch_size"]): row for row in result["rows"]}
    lines = [
        f"Made by `{result['command']}` on {result['machine']}: {result['prompts']} prompts, tokens per second, median "
        "[min, max].",
        "",
        "| batch size | target alone | standard, M = 4 | judge | standard over target | judge over target |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        cells = []
        for name in ("target", "exact", "judge"):
            row = rows[name, size]
            cells.append(f"{row['tokens_per_second']:.0f} [{row['low']:.0f}, {row['high']:.0f}]")
        ratios = [f"{rows[name, size]['over_target']:.2f}" for name in ("exact", "judge")]
        lines.append(f"| {size} | " + " | ".join(cells + ratios) + " |")
    unlike = sum(row["answers_unlike_alone"] for row in result["rows"])
    lines += ["", f"Answers that differ from those of batch size {sizes[0]}: {unlike}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
