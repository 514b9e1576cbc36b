"""Choose the judge's threshold by what counts: decoding calibration problems.

The lowest threshold is taken at which the accuracy is at most ``--margin`` below the target's own, on problems that
are neither trained nor tested on; then the draft length with most tokens per second. The head is written with both.

    python recipes/reference_pair/calibrate.py HEAD --target TARGET --draft DRAFT --out JUDGE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from judge_decoding import Judge, JudgeDecoder, JudgeHead, save_head
from judge_decoding.cli.run.demo import JUDGE_LENGTHS
from judge_decoding.evaluation.draft_lengths import best_draft_lengths
from judge_decoding.evaluation.thresholds import THRESHOLDS, calibrate
from judge_decoding.evaluation.trial import Method
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.tasks import read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat


def main() -> None:
    """Calibrate and write the head."""
    parser = argparse.ArgumentParser()
    parser.add_argument("head", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--margin", type=float, default=0.005)
    parser.add_argument("--num-draft-tokens", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, target, draft = load_tokenizer(args.target), load_model(args.target), load_model(args.draft)
    head = JudgeHead.from_pretrained(args.head, target)
    decoder = JudgeDecoder(target, tokenizer, draft, head)
    task = Arithmetic(split="calibration", count=args.problems)
    with tqdm(total=(len(THRESHOLDS) + 1) * args.problems, leave=False) as bar:
        calibrate(
            decoder, head, PromptFormat(task), read_items(task), 100 * args.margin,
            num_draft_tokens=args.num_draft_tokens, batch_size=32,
            part=args.out / "calibration.part", progress=bar.update,
        )  # fmt: skip
    threshold = head.config.threshold
    print(f"target {head.config.calibration['target_accuracy']:.3f}", *head.config.calibration["curve"], sep="\n")
    others = Arithmetic(split="calibration", count=30, seed=1)
    method = {"judge": Method(decoder, Judge(head, threshold))}
    tuned, _ = best_draft_lengths(method, {"judge": JUDGE_LENGTHS}, PromptFormat(others), read_items(others))
    head.config.num_draft_tokens = tuned["judge"].num_draft_tokens
    head.config.target.name_or_path = "reference"
    save_head(head, args.out)
    print(f"threshold {threshold}, draft length {head.config.num_draft_tokens} -> {args.out}")


if __name__ == "__main__":
    main()
