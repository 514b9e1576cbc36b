"""How often the embedded judge warns of fresh problems of its own family, by their length.

    python benchmarks/false_alarms.py --out benchmarks/results

Writes ``false_alarms.md``. The problems are of the test split, on which nothing was trained. The limit promises 5%
of problems as they are drawn.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from pathlib import Path

import torch

from judge_decoding.intervals import share
from judge_decoding.io.files import write_text
from judge_decoding.markdown import table
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.reference.pair import load_pair, prompt_of
from judge_decoding.reference.problems import STEPS, Problem, draw_from
from judge_decoding.statistics import wilson

COUNT = 1000


def kind(problem: Problem) -> str:
    """The length of a problem: its gains and losses, and whether one is a product."""
    steps = len(problem.terms) - 1
    product = "with" if any(term.derivation for term in problem.terms) else "no"
    return f"{steps} step{'s' if steps > 1 else ''}, {product} product"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    decoder, _ = load_pair()
    judge = decoder.judge
    assert judge is not None
    assert judge.familiarity is not None
    rng = random.Random(2026)  # of problems that the statistics were not chosen on
    sets = {
        "as drawn (2 and 3 steps)": [draw_from(rng, "test", "collection", STEPS) for _ in range(COUNT)],
        "1 step": [draw_from(rng, "test", "collection", (1,)) for _ in range(COUNT)],
        "4 steps": [draw_from(rng, "test", "collection", (4,)) for _ in range(COUNT // 2)],
        "comparisons": [draw_from(rng, "test", "comparison") for _ in range(COUNT // 2)],
    }
    lines = []
    for name, problems in sets.items():
        ids = [decoder.encode(prompt_of(problem))[0].tolist() for problem in problems]
        states = torch.stack([state[-1] for state in hidden_states(decoder.target, ids, judge.config.norm)])
        groups: dict[str, list[bool]] = defaultdict(list)
        for problem, above in zip(problems, (judge.familiarity(states) > 1).tolist(), strict=True):
            groups[name].append(above)
            if name.startswith(("as drawn", "1 step")):
                groups[kind(problem)].append(above)
        for group, warned in sorted(groups.items(), key=lambda item: -len(item[1])):
            lines.append([group, str(len(warned)), share(sum(warned) / len(warned), *wilson(sum(warned), len(warned)))])
    text = table(["problems of the test split", "problems", "warned [95%]"], lines)
    print(text)
    write_text(args.out / "false_alarms.md", f"# False alarms of the embedded judge, by length\n\n{text}")


if __name__ == "__main__":
    main()
