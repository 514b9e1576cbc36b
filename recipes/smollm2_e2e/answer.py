"""Describe places with a model, or with judge decoding: texts whose errors `make_cases.py` then locates.

python recipes/smollm2_e2e/answer.py --target draft --data data/fit.jsonl --out texts/draft.jsonl
python recipes/smollm2_e2e/answer.py --target target --draft draft --judge head --rule "judge(threshold=0.5)" \
        --data data/fit.jsonl --out texts/judged.jsonl
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

from command import running
from judge_decoding import JudgeDecoder
from judge_decoding.io.files import write_text
from judge_decoding.rules import parse_rule
from judge_decoding.tasks.base import read_items
from judge_decoding.tasks.e2e import E2E, find_errors
from judge_decoding.tasks.prompt_format import PromptFormat


def main() -> None:
    """Write the texts as JSON lines of mr, text and system, and print how many are right."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft")
    parser.add_argument("--judge")
    parser.add_argument("--rule", help="for instance judge(threshold=0.5) or top_k(k=2); exact if not given")
    parser.add_argument("--num-draft-tokens", type=int, default=6)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines with mr")
    parser.add_argument("--limit", type=int, help="so many of them, drawn by a seed")
    parser.add_argument("--system", help="the name of the writer; the file's name if not given")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with running(parser):
        decoder = JudgeDecoder.from_pretrained(args.target, args.draft, args.judge)
        asking = PromptFormat(E2E(), chat=True)
        items = read_items(asking.task, args.data, limit=args.limit)
        options = {} if args.draft is None else {"num_draft_tokens": args.num_draft_tokens}
        if args.rule is not None:
            options["rule"] = parse_rule(args.rule, decoder.judge)
        with tqdm(total=len(items)) as bar:
            answers = decoder.generate_batch(
                [asking.prompt(item) for item in items], asking.budget, batch_size=args.batch_size,
                temperature=args.temperature, seed=0, progress=bar.update, **options,
            )  # fmt: skip
    rows = [
        {"mr": item.key, "text": answer.text.strip(), "system": args.system or args.out.stem}
        for item, answer in zip(items, answers, strict=True)
    ]
    write_text(args.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    right = sum(not find_errors(row["mr"], row["text"]) for row in rows)
    rounds, accepted = (sum(getattr(one.stats, name) for one in answers) for name in ("rounds", "accepted"))
    print(f"{right} of {len(rows)} right, {accepted / max(rounds, 1):.2f} accepted per round -> {args.out}")


if __name__ == "__main__":
    main()
