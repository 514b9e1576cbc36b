"""Label the draft's tokens by what the target makes of them: does it still state the same facts?

A wrong word is not the only error of a description. After "a pub located in" this target does not come back to the
food, so the words that skip it are errors, too, and no checker of finished texts finds them. These labels do: the
target finishes the description behind each of the draft's tokens (AutoJudge's search, arXiv 2504.20039).

    python recipes/smollm2_e2e/label_swaps.py --target target --draft draft --data data/fit.jsonl --limit 160 \
        --out cases_swaps.jsonl
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from tqdm import tqdm

from command import running
from judge_decoding import JudgeDecoder
from judge_decoding.data.cases import Case, write_cases
from judge_decoding.labelling.labels.equivalence import label_by_equivalence
from judge_decoding.tasks.base import read_items
from judge_decoding.tasks.e2e import E2E
from judge_decoding.tasks.e2e_facts import mentions

SAME = {
    "less than £20": "cheap", "low": "cheap", "£20-25": "moderate", "more than £30": "high",
    "1 out of 5": "1", "3 out of 5": "3", "5 out of 5": "5", "average": "3",
}  # fmt: skip
"""Values that say the same, whatever their slot."""
REPEATED = ("name", "eatType", "food")
"""Slots whose words may be repeated."""


def facts(text: str) -> str:
    """The facts that a description states, each once, or as often as it does where that is an error."""
    found = [(one.slot, SAME.get(one.value, one.value)) for one in mentions(text) if one.sure]
    once = {fact for fact in found if fact[0] in REPEATED}
    return "; ".join(sorted(f"{slot}={value}" for slot, value in [*once, *(f for f in found if f[0] not in REPEATED)]))


def main() -> None:
    """Write the cases; questions are whole prompts, so that `judge-decoding train` reads them with ``--no-chat``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=160)
    parser.add_argument("--skip", type=int, default=0, help="of those that are drawn")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with running(parser):
        decoder = JudgeDecoder.from_pretrained(args.target, args.draft, dtype=getattr(torch, args.dtype))
        items = random.Random(0).sample(read_items(E2E(), args.data), args.skip + args.limit)[args.skip :]
        prompts = [
            decoder.tokenizer.apply_chat_template(
                [{"role": "user", "content": item.turns[0]}], tokenize=False, add_generation_prompt=True
            )
            for item in items
        ]
        made: list[Case] = []
        with tqdm(total=len(prompts)) as bar:

            def keep(_question: str, cases: list[Case], _forwards: int) -> None:
                made.extend(cases)
                write_cases(args.out, made)
                bar.update()

            label_by_equivalence(decoder, prompts, facts, max_new_tokens=96, batch_size=args.batch_size, done=keep)
    print(f"{len(made)} cases -> {args.out}")


if __name__ == "__main__":
    main()
