"""How many wrong answers labelling by arithmetic locates, and how many right ones it accuses.

    python benchmarks/arithmetic_labels.py example_model_solutions.jsonl

The file is the one of https://github.com/openai/grade-school-math: 660 questions, each with the solutions of four
models and whether their final answer is right. ``--show`` prints what was accused.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from judge_decoding.labelling.labels.arithmetic import false_equation


def main() -> None:
    """Print a table by model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.file.read_text(encoding="utf-8").splitlines()]
    models = [name for name in rows[0] if name not in ("question", "ground_truth")]
    print("| model | wrong answers | located | right answers | accused |\n|---|---|---|---|---|")
    total = [0, 0, 0, 0]
    for model in [*models, "ground truth"]:
        counts = [0, 0, 0, 0]
        for row in rows:
            text = row["ground_truth"] if model == "ground truth" else row[model]["solution"]
            right = model == "ground truth" or row[model]["is_correct"]
            span = false_equation(text)
            counts[2 * right] += 1
            counts[2 * right + 1] += span is not None
            if span and right and args.show:
                print(f"  {model}: ...{text[max(0, span[0] - 60) : span[0]]}[{text[slice(*span)]}]")
        if model != "ground truth":
            total = [a + b for a, b in zip(total, counts, strict=True)]
        print(f"| {model} | " + " | ".join(map(str, counts)) + " |")
    print("| all models | " + " | ".join(map(str, total)) + " |")


if __name__ == "__main__":
    main()
