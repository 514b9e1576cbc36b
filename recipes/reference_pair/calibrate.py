"""Choose the judge's threshold by what counts: decoding calibration problems.

The lowest threshold is taken at which the accuracy is at most ``--margin`` below the target's own, on problems that
are neither trained nor tested on; then the draft length with most tokens per second. The head is written with both.

    python recipes/reference_pair/calibrate.py HEAD --target TARGET --draft DRAFT --out JUDGE
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from judge_decoding import Judge, JudgeDecoder, JudgeHead
from judge_decoding.cli.demo import JUDGE_LENGTHS
from judge_decoding.decoding.loading import load_model, load_tokenizer
from judge_decoding.reference.problems import draw_many
from judge_decoding.reference.trial import Method, best_draft_length, count

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)


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
    problems = draw_many(0, "calibration", args.problems)
    own = count(Method(JudgeDecoder(target, tokenizer)), problems).accuracy
    outcomes = {
        t: count(Method(decoder, Judge(head, t), args.num_draft_tokens), problems)
        for t in tqdm(THRESHOLDS, leave=False)
    }
    rows = [
        {"threshold": t, "accuracy": o.accuracy, "accepted_per_round": o.stats.accepted_per_round}
        for t, o in outcomes.items()
    ]
    print(f"target {own:.3f}", *rows, sep="\n")
    good = [row["threshold"] for row in rows if row["accuracy"] >= own - args.margin]
    if not good:
        sys.exit(
            f"No threshold keeps the accuracy within {args.margin} of the target's {own}; the head is not good enough."
        )
    threshold = min(good)
    tuned = best_draft_length(Method(decoder, Judge(head, threshold)), JUDGE_LENGTHS, draw_many(1, "calibration", 30))
    head.config.threshold, head.config.num_draft_tokens = threshold, tuned.num_draft_tokens
    head.config.target.name_or_path = "the embedded reference target"
    head.config.calibration |= {
        "rule": f"lowest threshold with an accuracy at most {args.margin:g} below the target's on calibration problems",
        "threshold": threshold,
        "problems": args.problems,
        "target_accuracy": own,
        "curve": rows,
    }
    head.save_pretrained(args.out)
    print(f"threshold {threshold}, draft length {tuned.num_draft_tokens} -> {args.out}")


if __name__ == "__main__":
    main()
