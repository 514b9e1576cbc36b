"""A judge on a real LLM: does it find a slipped number in human solutions of grade-school problems?

    python benchmarks/gsm8k_slips.py MODEL train.jsonl --questions 400 --out benchmarks/results

``train.jsonl`` is the training part of GSM8K (https://github.com/openai/grade-school-math). To every human solution
there is a copy in which one result number is another one, and nothing else. Wrong is the first token of the slipped
number that differs; the tokens before it, and all of the human's, are correct; what follows a slip does not count.
Every figure is out of fold: a token is scored by a head that was fitted on other questions. The baselines are the
target's log-probability and rank of the token. ``--cache`` keeps what the model says, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from judge_decoding import Case, TrainingConfig, train_head
from judge_decoding.io.files import lines, write_json, write_text
from judge_decoding.loading.models import load_model, load_tokenizer
from judge_decoding.models.provenance import machine

_ANNOTATION = re.compile(r"<<[^>]*>>")
_RESULT = re.compile(r"(?<==)(\s*\$?\s*)(\d+)(?![\d.,]\d|\d)")


def cases_of(question: str, solution: str, rng: random.Random) -> list[Case]:
    """The human's solution and, where it has an equation, a copy with one slipped result."""
    body, _, final = solution.partition("####")
    text = " " + _ANNOTATION.sub("", body).strip() + f"\nThe answer is {final.strip()}."
    prompt = f"Question: {question.strip()}\nAnswer:"
    right = Case(question=prompt, answer=text, source="human")
    results = list(_RESULT.finditer(text))
    if not results:
        return [right]
    start, end = rng.choice(results).span(2)
    slip = slipped(text[start:end], rng)
    same = next(i for i, (a, b) in enumerate(zip(slip, text[start:end] + " ", strict=False)) if a != b)
    wrong = text[:start] + slip + text[end:]
    return [right, Case(question=prompt, answer=wrong, errors=((start + same, start + len(slip)),), source="slip")]


def slipped(number: str, rng: random.Random) -> str:
    """Another number of the kind people write by mistake: one digit changed, or off by one, ten or a half."""
    value, others = int(number), set[int]()
    for place in range(len(number)):
        others |= {int(number[:place] + digit + number[place + 1 :]) for digit in "0123456789"}
    others |= {value + 1, value - 1, value + 10, value - 10, value * 2}
    return str(rng.choice(sorted(other for other in others if other > 0 and not number.startswith(str(other)))))


def main() -> None:
    """Train, and write ``gsm8k_slips.json`` and ``gsm8k_slips.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("file", type=Path)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--layers", type=int, nargs="+", default=(-1, -4, -8, -12))
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    rng = random.Random(0)
    rows = [json.loads(line) for _, line in lines(args.file, "the solutions")]
    rng.shuffle(rows)
    cases = [case for row in rows[: args.questions] for case in cases_of(row["question"], row["answer"], rng)]
    tokenizer, model = load_tokenizer(args.model), load_model(args.model)
    config = TrainingConfig(labels="error", norm="both", layers=tuple(args.layers), baseline=True)
    bar, begin = tqdm(total=None), time.time()

    def tell(what: str, done: int, total: int) -> None:
        bar.set_description(what)
        bar.total, bar.n = total, done
        bar.refresh()

    head = train_head(model, tokenizer, cases, config, cache=args.cache, progress=tell)
    bar.close()
    told = {
        "command": " ".join(["python", Path(sys.argv[0]).as_posix(), "MODEL", "train.jsonl", *sys.argv[3:]]),
        "model": Path(args.model).name, "machine": machine(), "seconds": round(time.time() - begin),
        "data": head.config.data, "calibration": head.config.calibration,
    }  # fmt: skip
    write_json(args.out / "gsm8k_slips.json", told)
    write_text(args.out / "gsm8k_slips.md", table(told))
    print(table(told))


def table(told: dict[str, Any]) -> str:
    """The results as Markdown."""
    data = told["data"]
    out = [
        f"Made by `{told['command']}` on {told['machine']}, target {told['model']}: {data['cases']} solutions of "
        f"{data['questions']} questions, {data['tokens']:,} tokens, {data['wrong_tokens']} of them wrong.",
        "",
        "| detector | AUC, all tokens | AUC, number tokens | correct tokens kept where 95% of the wrong are caught |",
        "|---|---|---|---|",
    ]
    out += [
        f"| {row['detector']} | {row['auc']:.3f} | {row['auc_numbers']:.3f} | {row['kept_correct']:.1%} |"
        for row in told["calibration"]["comparison"]
    ]
    out += ["", "AUC of the best head by share of the questions: " + ", ".join(
        f"{row['share']:g}: {row['auc']:.3f}" for row in told["calibration"]["learning_curve"]
    ) + "."]  # fmt: skip
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    main()
