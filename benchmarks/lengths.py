"""Draft-length policies against fixed lengths, on the embedded pair: is the cost-optimal one ever much worse?

    python benchmarks/lengths.py --out benchmarks/results

Three situations by how much is accepted: the judge, standard verification, and a draft of random weights, of which next
to nothing is accepted. All lengths and policies side by side, problem by problem, in one process on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from judge_decoding import Confident, CostOptimal, DraftLength, Exact, Fixed, Heuristic, JudgeDecoder
from judge_decoding.io.files import write_json, write_text
from judge_decoding.models.provenance import machine
from judge_decoding.reference.pair import load_pair, prompt_of
from judge_decoding.reference.problems import MAX_NEW_TOKENS, draw_many

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
POLICIES: dict[str, type[DraftLength]] = {"heuristic": Heuristic, "confident": Confident, "cost optimal": CostOptimal}


def main() -> None:
    """Measure and write ``lengths.json`` and ``lengths.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    pair, _ = load_pair()
    torch.manual_seed(0)
    hopeless = type(pair.draft)(pair.draft.config).eval().requires_grad_(False)
    cases = {
        "judge": (pair, None),
        "standard": (pair, Exact()),
        "hardly ever accepted": (JudgeDecoder(pair.target, pair.tokenizer, hopeless), Exact()),
    }
    prompts = [prompt_of(problem) for problem in draw_many(2, "calibration", args.problems)]
    result: dict[str, dict[str, list[float]]] = {}
    for name, (decoder, rule) in cases.items():
        ways: dict[str, dict[str, object]] = {"plain": {"plain": True}}
        ways |= {str(n): {"num_draft_tokens": n, "draft_length": Fixed} for n in LENGTHS}
        ways |= {each: {"num_draft_tokens": 8, "draft_length": policy} for each, policy in POLICIES.items()}
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for repetition in tqdm(range(args.repetitions + 1), desc=name):
            spent, made = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
            for prompt in prompts if repetition else prompts[:2]:
                for way, options in ways.items():
                    used = JudgeDecoder(pair.target, pair.tokenizer) if "plain" in options else decoder
                    chosen = {} if "plain" in options else {"rule": rule, **options}
                    begin = time.perf_counter()
                    answer = used.generate(prompt, MAX_NEW_TOKENS, **chosen)
                    spent[way] += time.perf_counter() - begin
                    made[way] += len(answer.token_ids)
            if repetition:  # the first is warm-up
                for way in ways:
                    speeds[way].append(made[way] / spent[way])
        result[name] = speeds
    told = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "tokens_per_second": result}
    write_json(args.out / "lengths.json", told)
    write_text(args.out / "lengths.md", table(told))
    print(table(told))


def table(told: dict[str, object]) -> str:
    """The results as Markdown."""
    lines = [
        f"Made by `{told['command']}` on {told['machine']}. Tokens per second, median [min, max].",
        "",
        "| text | plain | best fixed length | heuristic | confident | cost optimal | over the best fixed or plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, speeds in told["tokens_per_second"].items():
        best = max(map(str, LENGTHS), key=lambda way: statistics.median(speeds[way]))
        bar = max(("plain", best), key=lambda way: statistics.median(speeds[way]))
        ratios = [a / b for a, b in zip(speeds["cost optimal"], speeds[bar], strict=True)]
        cells = [
            f"{statistics.median(speeds[way]):.0f} [{min(speeds[way]):.0f}, {max(speeds[way]):.0f}]"
            for way in ("plain", best, *POLICIES)
        ]
        cells[1] = f"M = {best}: {cells[1]}"
        lines.append(
            f"| {name} | {' | '.join(cells)} | {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
