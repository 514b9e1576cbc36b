"""Speed and answers of two versions of this package, side by side in one run on the embedded pair.

    git worktree add /tmp/before COMMIT
    python benchmarks/two_versions.py /tmp/before/src src --out benchmarks/results

Each version has a process of its own that keeps its decoders; the two decode the same prompts in turns, first one and
then the other ahead, so that a slow minute of the machine meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from judge_decoding.io.files import write_json, write_text
from judge_decoding.markdown import table
from judge_decoding.models.provenance import machine

# It uses nothing but what both versions have.
WORKER = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
from judge_decoding import Exact, JudgeDecoder
from judge_decoding.reference import pair
from judge_decoding.reference.problems import draw_many
torch.set_num_threads(1)
folders = [str(one) for one in (pair.TARGET, pair.DRAFT, pair.JUDGE)]
known = {name: JudgeDecoder.from_pretrained(*folders, backend=name) for name in ("eager", "static")}
for line in sys.stdin:
    backend, rule, batch, count = json.loads(line)
    prompts = [pair.prompt_of(one) for one in draw_many(0, "test", count)]
    options = {"rule": Exact(), "num_draft_tokens": 4} if rule == "exact" else {}
    begin = time.perf_counter()
    answers = known[backend].generate_batch(prompts, max_new_tokens=160, batch_size=batch, **options)
    seconds = time.perf_counter() - begin
    ids = [list(map(int, one.token_ids)) for one in answers]
    accepted = [[one.stats.rounds, one.stats.drafted, one.stats.accepted] for one in answers]
    print("answer", json.dumps([seconds, ids, accepted]), flush=True)
"""


class Version:
    """A process with one version of the package."""

    def __init__(self, source: Path) -> None:
        """Start it.

        Args:
            source: the folder that contains the package ``judge_decoding``.
        """
        environment = os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            cwd=source,
        )  # fmt: skip

    def run(self, *job: str | int) -> tuple[float, list[list[int]], list[list[int]]]:
        """Decode; the seconds, each answer's token ids, and its rounds, drafted and accepted tokens."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("answer "):
                seconds, ids, counts = json.loads(line.removeprefix("answer "))
                return seconds, ids, counts
        raise SystemExit("A version stopped; its message is above.")


def main() -> None:
    """Measure and write ``two_versions.json`` and ``two_versions.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("before", type=Path, help="the folder src of the version to compare with")
    parser.add_argument("after", type=Path)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    versions = {"before": Version(args.before), "after": Version(args.after)}
    jobs = [(b, r, n) for b in ("eager", "static") for r in ("exact", "judge") for n in (1, 8)]
    rows = []
    for backend, rule, batch in tqdm(jobs):
        speeds: dict[str, list[float]] = {name: [] for name in versions}
        answers: dict[str, object] = {}
        for repetition in range(args.repetitions + 1):
            for name in sorted(versions, reverse=repetition % 2 == 0):
                seconds, ids, counts = versions[name].run(backend, rule, batch, args.prompts)
                answers[name] = (ids, counts)
                if repetition:  # the first is warm-up
                    speeds[name].append(sum(map(len, ids)) / seconds)
        ratios = sorted(a / b for a, b in zip(speeds["after"], speeds["before"], strict=True))
        rows.append(
            {
                "backend": backend, "rule": rule, "batch_size": batch,
                **{name: statistics.median(found) for name, found in speeds.items()},
                "ratio": statistics.median(ratios), "low": ratios[0], "high": ratios[-1],
                "same_answers": answers["before"] == answers["after"],
            }
        )  # fmt: skip
    result = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "prompts": args.prompts, "rows": rows}
    write_json(args.out / "two_versions.json", result)
    write_text(args.out / "two_versions.md", page(result, args.repetitions))
    print(page(result, args.repetitions))


def page(result: dict[str, object], repetitions: int) -> str:
    """The results in Markdown."""
    head = ["back end", "rule", "batch", "before", "after", "after / before [min, max]", "same tokens and counts"]
    lines = [
        [
            row["backend"], row["rule"], str(row["batch_size"]), f"{row['before']:.0f}", f"{row['after']:.0f}",
            f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]", "yes" if row["same_answers"] else "no",
        ]
        for row in result["rows"]
    ]  # fmt: skip
    told = (
        f"Tokens per second on {result['machine']}, one thread, {result['prompts']} prompts, medians of {repetitions}."
    )
    return f"{told}\n\n{table(head, lines)}\n"


if __name__ == "__main__":
    main()
