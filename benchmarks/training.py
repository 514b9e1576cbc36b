"""What training a judge takes: memory, time and disk, with a real target on a set of the size you name.

The answers are those of GSM8K's training questions, every second with the result of one equation changed. Each training
runs in a process of its own, so that its peak memory is its own: first with an empty cache, then with other labels.

    python benchmarks/training.py MODEL train.jsonl --tokens 50000

``train.jsonl`` is openai/grade-school-math's, with ``question`` and ``answer`` in each line.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from judge_decoding import Case, write_cases
from judge_decoding.io.files import lines
from judge_decoding.loading.models import load_tokenizer

_RESULT = re.compile(r"(?<==)( ?\$?)(\d+)")


def cases(path: Path, tokenizer: object, tokens: int) -> list[Case]:
    """A right and, where there is an equation, a wrong answer a question, until there are ``tokens`` of them."""
    rng, found, count = random.Random(0), list[Case](), 0
    for _, line in lines(path, "the questions"):
        row = json.loads(line)
        question = f"Q: {row['question']}\nA:"
        answer = " " + re.sub("<<.*?>>", "", row["answer"]).replace("####", "The answer is")
        texts: list[tuple[str, tuple[tuple[int, int], ...]]] = [(answer, ())]
        if results := list(_RESULT.finditer(answer)):
            spot = rng.choice(results)
            other = str(int(spot[2]) + rng.choice((-3, -2, -1, 1, 2, 3, 10)))
            changed = answer[: spot.start(2)] + other + answer[spot.end(2) :]
            texts.append((changed, ((spot.start(2), spot.start(2) + len(other)),)))
        for text, errors in texts:
            found.append(Case(question=question, answer=text, errors=errors, source="slip"))
            count += len(tokenizer(text)["input_ids"])
        if count >= tokens:
            break
    return found


def main() -> None:
    """Print a line for each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--tokens", type=int, default=50_000)
    args, options = parser.parse_known_args()  # others go to the command
    made = cases(args.questions, load_tokenizer(args.model), args.tokens)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cases(folder / "cases.jsonl", made)
        for what, more in (("reading and fitting", []), ("other labels", ["--labels", "from_error"])):
            command = [
                sys.executable,
                "-m",
                "judge_decoding.cli.main",
                "train",
                args.model,
                str(folder / "cases.jsonl"),
            ]
            before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            done = subprocess.run(
                [*command, "-o", str(folder / "head"), "--cache", str(folder / "cache"), "--json", *more, *options],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            config = json.loads(done.stdout)
            disk = sum(path.stat().st_size for path in (folder / "cache").rglob("*.safetensors"))
            print(
                f"{what}: {config['data']['cases']} answers, {config['data']['tokens']} labelled tokens, "
                f"AUC {config['calibration']['auc']:.3f}, peak memory so far {after.ru_maxrss / 2**20:.2f} GiB, "
                f"{after.ru_utime - before.ru_utime:.0f} s of processor time, {time.perf_counter() - begin:.0f} s, "
                f"{disk / 2**20:.0f} MiB of cache"
            )


if __name__ == "__main__":
    main()
