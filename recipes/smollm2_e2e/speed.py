"""How fast the rules are: the static back end, each rule at its own best draft length, all in turns.

    python recipes/smollm2_e2e/speed.py --target TARGET --draft DRAFT --head HEAD --data data/test.jsonl --out speed

The items are drawn at random from the data. The draft lengths are chosen on ``--tune`` of them, which are in no row of
the table. A stopped run resumes.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from command import load_pair, running
from judge_decoding import JudgeDecoder, JudgeHead
from judge_decoding.core.results import ItemResult, ResultRow
from judge_decoding.evaluation.record import ResultRecord
from judge_decoding.evaluation.sweep import sweep
from judge_decoding.io.files import write_json, write_text
from judge_decoding.markdown import plain, table
from judge_decoding.models.provenance import machine
from judge_decoding.report.card_results import measured_table
from judge_decoding.tasks import Item, read_items
from judge_decoding.tasks.e2e import E2E
from judge_decoding.tasks.prompt_format import PromptFormat

RULES = ("exact", "judge", "min_probability(p=0.3)", "min_probability(p=0.2)", "kl_judge(tau=0.3)")
"""Standard verification, the judge at its own threshold, and the best rules without training."""


def main() -> None:
    """Write ``speed.json`` and ``speed.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--head", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--lengths", type=int, nargs="+", default=(2, 4, 6, 8, 12))
    parser.add_argument("--limit", type=int, default=80, help="items, those that choose the draft lengths included")
    parser.add_argument("--tune", type=int, default=20)
    parser.add_argument("--margin", type=float, default=1.5, help="percentage points of accuracy that may be lost")
    args = parser.parse_args()
    with running(parser):
        run(args)


@contextlib.contextmanager
def bar(title: str, names: Sequence[str], items: Sequence[Item]) -> Iterator[Callable[[str, ItemResult], None]]:
    """Show the progress of a step of the sweep."""
    with tqdm(desc=title, total=len(names) * len(items)) as shown:

        def advance(_name: str, _result: ItemResult) -> None:
            shown.update()

        yield advance


def run(args: argparse.Namespace) -> None:
    """Measure, and write the table."""
    tokenizer, target, draft = load_pair(args.target, args.draft, torch.float32)
    head = JudgeHead.from_pretrained(args.head, target)
    prompt_format = PromptFormat(E2E(), chat=True)
    items = read_items(prompt_format.task, args.data, limit=args.limit)
    settings = {
        "target": args.target, "draft": args.draft, "head": args.head, "lengths": list(args.lengths),
        "items": len(items), "tune": args.tune, "threads": torch.get_num_threads(),
    }  # fmt: skip
    found = sweep(
        JudgeDecoder(target, tokenizer, draft, head, backend="static"), prompt_format, items, args.rules,
        lengths=args.lengths, tuning_items=args.tune, margin=args.margin / 100,
        record=ResultRecord(args.out / "speed.json", settings), running=bar,
    )  # fmt: skip
    told = {
        **settings, "target": Path(args.target).name, "draft": Path(args.draft).name, "head": Path(args.head).name,
        "machine": machine(),
    }  # fmt: skip
    text = (
        f"{args.limit - args.tune} items on {told['machine']}, float32, the static back end, all methods in turns.\n\n"
        f"{measured_table(found.rows).strip()}\n\n"
        "Accepted draft tokens per round, and tokens per second, by draft length, on the "
        f"{args.tune} items that chose it:\n\n{by_length(found.tuning, args.lengths).strip()}\n"
    )
    write_text(args.out / "speed.md", text)
    write_json(
        args.out / "speed.json",
        {
            "settings": told,
            "rows": [row.model_dump(exclude_none=True) for row in found.rows],
            "tuning": [row.model_dump(exclude_none=True) for row in found.tuning],
        },
    )
    print(text)


def by_length(rows: Sequence[ResultRow], lengths: Sequence[int]) -> str:
    """A line for each method, a column for each draft length."""
    found = {(row.name, row.num_draft_tokens): row for row in rows}
    lines = [
        [plain(name), *(f"{row.accepted_per_round:.2f}, {row.tokens_per_second:.1f}" for row in own)]
        for name in dict.fromkeys(row.name for row in rows)
        if (own := [found[name, length] for length in sorted(lengths)])
    ]
    return table(["method", *(f"M = {length}" for length in sorted(lengths))], lines)


if __name__ == "__main__":
    main()
