"""Which labels make the better judge: heads trained on different labels, held to the draft's tokens of new questions.

    python recipes/smollm2_e2e/labels_compared.py --target target --cases swaps_calibration.jsonl \
        --head equivalence=HEAD --head likelihood=HEAD --out labels_compared

The cases come from `label_swaps.py` and say what the target makes of each token. No head may be trained on their
questions. Intervals are of a bootstrap over questions: the tokens of one answer are not independent.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from command import running
from judge_decoding import JudgeHead
from judge_decoding.data.cases import read_cases
from judge_decoding.data.leaks import same_question
from judge_decoding.io.files import write_json, write_text
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.markdown import table
from judge_decoding.models.provenance import machine
from judge_decoding.models.tokenize import end_ids
from judge_decoding.training.calibration import auc
from judge_decoding.training.features import LOG_PROBABILITY, RANK, Column, FeatureCache
from judge_decoding.training.labels import IGNORED, encode

RESAMPLES = 1000


def interval(scores: Tensor, correct: Tensor, questions: Sequence[str]) -> tuple[float, float]:
    """The 95% interval of the AUC of ``scores`` [N] for ``correct`` [N], over resampled ``questions`` [N]."""
    rows: dict[str, list[int]] = {}
    for row, question in enumerate(questions):
        rows.setdefault(question, []).append(row)
    drawing, groups = random.Random(0), list(rows.values())
    found = []
    for _ in range(RESAMPLES):
        chosen = torch.tensor([row for group in drawing.choices(groups, k=len(groups)) for row in group])
        if 0 < int(correct[chosen].sum()) < len(chosen):
            found.append(auc(scores[chosen], correct[chosen]))
    low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def kept(scores: Tensor, correct: Tensor, caught: float) -> float:
    """The share of correct tokens above the threshold at which the share ``caught`` of the wrong ones is below it."""
    return float((scores[correct] > scores[~correct].quantile(caught)).float().mean())


def main() -> None:
    """Write ``labels.json`` and ``labels.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--head", action="append", default=[], help="NAME=FOLDER; another name for another head")
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with running(parser):
        run(args)


def run(args: argparse.Namespace) -> None:
    """Read the states once, score them with every head, and write the figures."""
    tokenizer, model = load_tokenizer(args.target), load_model(args.target, dtype=torch.float32)
    cases = read_cases(args.cases)
    examples = [encode(case, tokenizer, "span", "ignore", end_ids(model, tokenizer)) for case in cases]
    heads = {
        name: JudgeHead.from_pretrained(folder, model) for name, _, folder in (h.partition("=") for h in args.head)
    }
    columns: dict[str, Column] = {f"the target's {name}": name for name in (LOG_PROBABILITY, RANK)}
    columns |= {f"{name} ({head.config.source})": head.config.source for name, head in heads.items()}
    cache = FeatureCache(args.cache, model)
    with tqdm(total=len(examples), desc="reading") as bar:
        cache.add(examples, sorted(set(columns.values()), key=str), progress=bar.update)
    used = [torch.tensor([e.labels[i] != IGNORED for i in e.judged], dtype=torch.bool) for e in examples]
    correct = torch.tensor([e.labels[i] for e in examples for i in e.judged if e.labels[i] != IGNORED]).bool()
    groups = [same_question(case.question) for case in cases]
    questions = [group for group, mask in zip(groups, used, strict=True) for _ in range(int(mask.sum()))]

    rows = []
    for (name, column), head in zip(columns.items(), [None, None, *heads.values()], strict=True):
        width = () if head is None else (head.config.input_size,)
        scores = torch.empty(len(correct), *width)
        cache.fill(scores, column, examples, used)
        if head is not None:
            with torch.inference_mode():
                scores = head.log_odds(scores)
        low, high = interval(scores, correct, questions)
        rows.append((name, auc(scores, correct), low, high, kept(scores, correct, 0.95)))
    result = {
        "command": " ".join(["python", *(Path(one).name if "/" in one else one for one in sys.argv)]),
        "machine": machine(), "questions": len(set(questions)), "tokens": len(correct),
        "wrong": int((~correct).sum()),
        "rows": [dict(zip(("detector", "auc", "low", "high", "kept"), row, strict=True)) for row in rows],
    }  # fmt: skip
    text = (
        f"Made by `{result['command']}` on {result['machine']}: {result['tokens']} labelled tokens, {result['wrong']} "
        f"of them wrong, of {result['questions']} questions that no head was trained on.\n\n"
        + table(
            ["detector", "AUC [95%]", "correct tokens kept where 95% of the wrong ones are caught"],
            [[name, f"{value:.3f} [{low:.3f}, {high:.3f}]", f"{share:.0%}"] for name, value, low, high, share in rows],
        )
        + "\n"
    )
    write_json(args.out / "labels.json", result)
    write_text(args.out / "labels.md", text)
    print(text)


if __name__ == "__main__":
    main()
