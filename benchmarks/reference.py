"""The embedded pair measured on the test problems: quality, acceptance, speed.

    make benchmark-reference            # or: python benchmarks/reference.py --out benchmarks/results

Quality and acceptance do not depend on the machine and are counted once over all problems, the settings spread over
the cores and decoded in batches, whose answers are those of one at a time. Speed is measured afterwards, one process
and one thread, one answer at a time, the methods side by side, and told as the median of several repetitions with their
spread. Draft lengths are tuned on calibration problems.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from tqdm import tqdm

from judge_decoding import Exact, Judge, JudgeDecoder, MinProbability, TopK, VerificationRule
from judge_decoding.cli.run.demo import EXACT_LENGTHS, JUDGE_LENGTHS
from judge_decoding.evaluation.draft_lengths import best_draft_lengths
from judge_decoding.evaluation.trial import Method, Outcome, compare
from judge_decoding.io.files import write_json, write_text
from judge_decoding.models.provenance import machine
from judge_decoding.reference.pair import load_pair
from judge_decoding.statistics import mcnemar, wilson
from judge_decoding.tasks import read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
TOP_K = (2, 4, 8)
ASKING = PromptFormat(Arithmetic())

MIN_PROBABILITY = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


def method(kind: str, value: float | None, length: int) -> Method:
    """The method of a setting, made from names so that it can be made in any process."""
    pair, draft = load_pair()
    rule: VerificationRule | None = None
    if kind == "judge":
        rule = Judge(pair.judge, value)
    elif kind == "top_k":
        rule = TopK(int(value))
    elif kind == "min_probability":
        rule = MinProbability(value)
    elif kind == "exact":
        rule = Exact()
    elif kind == "target":
        return Method(JudgeDecoder(pair.target, pair.tokenizer))
    elif kind == "draft":
        return Method(draft)
    return Method(pair, rule, length)


def count(
    setting: tuple[str, float | None, int], problems: int, family: str
) -> tuple[tuple[str, float | None, int], Outcome]:
    """One setting over all test problems."""
    torch.set_num_threads(1)
    items = read_items(Arithmetic(family, count=problems))
    return setting, compare({"": method(*setting)}, ASKING, items, batch_size=32)[""]


def quality(settings: list[tuple[str, float | None, int]], problems: int, family: str) -> list[dict[str, object]]:
    """Accuracy and acceptance of every setting."""
    found: dict[tuple[str, float | None, int], Outcome] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(count, setting, problems, family) for setting in settings]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=f"{problems} {family} problems"):
            setting, outcome = job.result()
            found[setting] = outcome
    target = found["target", None, 0]
    rows: list[dict[str, object]] = []
    for kind, value, length in settings:
        outcome = found[kind, value, length]
        low, high = wilson(sum(outcome.right), problems)
        rows.append(
            {
                "method": kind, "value": value, "num_draft_tokens": length,
                "accuracy": outcome.accuracy, "accuracy_low": low, "accuracy_high": high,
                "mcnemar_p": mcnemar(outcome.right, target.right),
                "tokens_per_answer": outcome.tokens_per_answer,
                **outcome.stats.to_dict(),
            }
        )  # fmt: skip
    return rows


def speed(methods: dict[str, Method], problems: int, repetitions: int) -> dict[str, object]:
    """Tokens per second side by side; ratios are taken within a repetition."""
    test = read_items(Arithmetic(count=problems))
    compare(methods, ASKING, test[:3])  # warm-up
    runs = [
        {name: outcome.tokens_per_second for name, outcome in compare(methods, ASKING, test).items()}
        for _ in tqdm(range(repetitions), desc="speed")
    ]

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": statistics.median(values), "min": min(values), "max": max(values)}

    return {
        "machine": machine(),
        "problems": problems,
        "repetitions": repetitions,
        "tokens_per_second": {name: spread([run[name] for run in runs]) for name in methods},
        "judge_over_exact": spread([run["judge"] / run["exact"] for run in runs]),
        "judge_over_target": spread([run["judge"] / run["target"] for run in runs]),
        "exact_over_target": spread([run["exact"] / run["target"] for run in runs]),
    }


def table(result: dict[str, object]) -> str:
    """The results as Markdown."""
    lines = [f"Made by `{result['command']}` on {result['machine']}.", ""]
    for family in ("collection", "comparison"):
        rows = result["quality"].get(family)
        if not rows:
            continue
        seen = "the family the judge was trained on" if family == "collection" else "a family the judge never saw"
        lines += [
            f"## {result['problems'][family]} {family} problems ({seen})",
            "",
            "| method | draft length | accuracy [95%] | McNemar p | accepted draft tokens per round "
            "| tokens per target forward | tokens per answer |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            name = row["method"] + (f" {row['value']:g}" if row["value"] is not None else "")
            own = row["method"] in ("target", "draft")
            lines.append(
                f"| {name} | {row['num_draft_tokens'] or '-'} | {row['accuracy']:.1%} "
                f"[{100 * row['accuracy_low']:.1f}, {100 * row['accuracy_high']:.1f}] | {row['mcnemar_p']:.2g} | "
                f"{'-' if own else format(row['accepted_per_round'], '.2f')} | "
                f"{'-' if row['method'] == 'draft' else format(row['tokens_per_forward'], '.2f')} | "
                f"{row['tokens_per_answer']:.1f} |"
            )
        lines.append("")
    lines += equal_accuracy(result["quality"]["collection"])
    measured = result["speed"]
    lines += [
        f"## Speed, {measured['problems']} problems, median of {measured['repetitions']} [min, max]",
        "",
        *([f"Measured by `{measured['command']}` on {measured['machine']}.", ""] if "command" in measured else []),
        "| | |",
        "|---|---|",
    ]
    for name, value in measured["tokens_per_second"].items():
        lines.append(f"| {name}, tokens per second | {value['median']:.0f} [{value['min']:.0f}, {value['max']:.0f}] |")
    for name in ("exact_over_target", "judge_over_target", "judge_over_exact"):
        value = measured[name]
        lines.append(f"| {name.replace('_', ' ')} | {value['median']:.2f} [{value['min']:.2f}, {value['max']:.2f}] |")
    return "\n".join(lines) + "\n"


def equal_accuracy(rows: list[dict[str, object]]) -> list[str]:
    """For every setting of a rival, the judge's setting that is at least as accurate and accepts most."""
    judges = [row for row in rows if row["method"] == "judge"]
    lines = [
        "## At equal accuracy",
        "",
        "For each setting of a rule that looks at one figure of the target (top_k: the token's rank, min_probability: "
        "its probability), the judge's threshold that is at least as accurate and accepts most, at one draft length.",
        "",
        "| rule | accuracy | accepted draft tokens per round | judge's threshold | accuracy | accepted |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["method"] not in ("exact", "top_k", "min_probability"):
            continue
        name = row["method"] + (
            f" {row['value']:g}" if row["value"] is not None else f", M = {row['num_draft_tokens']}"
        )
        as_good = [judge for judge in judges if judge["accuracy"] >= row["accuracy"]]
        best = max(as_good, key=lambda judge: judge["accepted_per_round"], default=None)
        cells = ["none", "-", "-"]
        if best is not None:
            cells = [f"{best['value']:g}", f"{best['accuracy']:.1%}", f"{best['accepted_per_round']:.2f}"]
        lines.append(
            f"| {name} | {row['accuracy']:.1%} | {row['accepted_per_round']:.2f} | " + " | ".join(cells) + " |"
        )
    return [*lines, ""]


def main() -> None:
    """Measure and write ``reference.json`` and ``reference.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--unseen", type=int, default=100, help="problems of the family the judge never saw")
    parser.add_argument("--speed-problems", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--speed-only", action="store_true", help="keep the counts that --out has: they do not change")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    pair, _ = load_pair()
    read_items(Arithmetic("comparison", count=args.unseen))  # too many are refused before anything is counted
    threshold = pair.judge.config.threshold
    tuning = read_items(Arithmetic(split="calibration", count=30))
    drafted = {"exact": method("exact", None, 1), "judge": method("judge", threshold, 1)}
    lengths = {"exact": EXACT_LENGTHS, "judge": JUDGE_LENGTHS}
    best, _ = best_draft_lengths(drafted, lengths, ASKING, tuning)
    exact, judge = best["exact"], best["judge"]
    m, n = exact.num_draft_tokens, judge.num_draft_tokens
    print(f"best draft length: standard {m}, judge {n}", flush=True)

    command = " ".join(["python", *sys.argv])
    four = {"target": method("target", None, 0), "draft": method("draft", None, 0), "exact": exact, "judge": judge}
    if args.speed_only:
        result = json.loads((args.out / "reference.json").read_text(encoding="utf-8"))
        counted_at = {(row["method"], row["num_draft_tokens"]) for row in result["quality"]["collection"][:4]}
        if not {("exact", m), ("judge", n)} <= counted_at:
            parser.error(f"the best draft lengths are now {m} and {n}, which were not counted; leave out --speed-only")
        write(args.out, result | {"speed": speed(four, args.speed_problems, args.repetitions) | {"command": command}})
        return

    main_four = [("target", None, 0), ("draft", None, 0), ("exact", None, m), ("judge", threshold, n)]
    rivals = [("exact", None, n)] * (m != n)
    rivals += [("judge", value, n) for value in THRESHOLDS]
    rivals += [("top_k", value, n) for value in TOP_K] + [("min_probability", value, n) for value in MIN_PROBABILITY]
    result = {
        "command": command,
        "machine": machine(),
        "problems": {"collection": args.problems, "comparison": args.unseen},
        "quality": {"collection": quality([*main_four, *rivals, ("judge", 0.0, n)], args.problems, "collection")},
    }
    if args.unseen:
        result["quality"]["comparison"] = quality(main_four, args.unseen, "comparison")
    result["speed"] = speed(four, args.speed_problems, args.repetitions)
    write(args.out, result)


def write(out: Path, result: dict[str, object]) -> None:
    """Write both files, and print the page."""
    write_json(out / "reference.json", result)
    write_text(out / "reference.md", table(result))
    print(table(result))


if __name__ == "__main__":
    main()
