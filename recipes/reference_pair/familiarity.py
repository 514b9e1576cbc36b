"""Tell a trained head what its training questions look like, without changing what it says of tokens.

python recipes/reference_pair/familiarity.py HEAD --target TARGET --cases CASES --out HEAD
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from judge_decoding import JudgeHead, read_cases, save_head
from judge_decoding.judge.familiarity import Familiarity, question_examples
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.training.features import hidden_states
from judge_decoding.training.labels import data_hash


def main() -> None:
    """Fit the statistics on the cases that the head was trained on, and write the head with them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("head", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, target, cases = load_tokenizer(args.target), load_model(args.target), read_cases(args.cases)
    head = JudgeHead.from_pretrained(args.head, target)
    if head.config.data["sha256"] != data_hash(cases):
        sys.exit(f"{args.head} was not trained on {args.cases}; give the cases it was trained on.")
    questions = question_examples(cases, tokenizer)
    states = hidden_states(target, [question.ids for question in questions], head.config.norm, head.config.layer)
    head.know(Familiarity.fit(torch.stack([state[-1] for state in states])))
    save_head(head, args.out)
    print(f"{head.config.familiarity} -> {args.out}")


if __name__ == "__main__":
    main()
