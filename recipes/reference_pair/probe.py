"""Tell a trained head by what its target is known, without changing what it says of tokens.

python recipes/reference_pair/probe.py HEAD --target TARGET --out HEAD
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import PreTrainedModel

from judge_decoding import JudgeHead, save_head
from judge_decoding.judge.target import target_info
from judge_decoding.loading.models import load_model


def head_and_target() -> tuple[argparse.Namespace, JudgeHead, PreTrainedModel]:
    """Read the command line ``HEAD --target TARGET --out HEAD``, and load the head and its target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("head", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_model(args.target)
    return args, JudgeHead.from_pretrained(args.head, target), target


def main() -> None:
    """Look at the target, which must be the head's own as far as the head can tell, and write the head with that."""
    args, head, target = head_and_target()
    found = target_info(target, head.config.source)
    head.config.target = found.model_copy(update={"name_or_path": head.config.target.name_or_path})
    head.store_scores(target)
    save_head(head, args.out)
    print(f"{head.config.target} -> {args.out}")


if __name__ == "__main__":
    main()
