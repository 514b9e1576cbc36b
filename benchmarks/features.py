"""Reading answers for a judge against the target's bare forward, and the fit of a head behind it.

    python benchmarks/features.py --out benchmarks/results              # the embedded target
    python benchmarks/features.py --target reference MODEL --dtype float32

The bare forward is the decoder alone over the same batches, their ids made beforehand: no cache, no logits, nothing
kept. Against it, alternating in one process: `read`, which also copies the states of the judged tokens, and
`FeatureCache`, which also writes them to disk, without and with the two trivial detectors, which need logits. Token ids
are random, as their values do not matter for the speed.

The fit has everything that training does once the states are there, cross-validation and learning curve included, on
made-up features that vary along few directions much and along the others little, as hidden states do.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from judge_decoding import TrainingConfig
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.io.files import write_json, write_text
from judge_decoding.loading.models import load_model
from judge_decoding.models.provenance import machine
from judge_decoding.models.teacher_forcing import BATCH_TOKENS
from judge_decoding.training.comparison import LabelledTokens, candidate, learning_curve
from judge_decoding.training.features import BASELINES, Column, FeatureCache, read
from judge_decoding.training.fitting import deal
from judge_decoding.training.labels import Example

QUESTION, ANSWER = (20, 120), (30, 200)
"""Least and most tokens."""

_TOKENS_A_QUESTION = 60
_DIRECTIONS = 256


def answers(vocab_size: int, tokens: int) -> list[Example]:
    """Answers with ``tokens`` tokens or a little more, questions included; those of the answer are judged."""
    rng, found, count = random.Random(0), list[Example](), 0
    while count < tokens:
        begin, size = rng.randint(*QUESTION), rng.randint(*ANSWER)
        ids = tuple(rng.randrange(vocab_size) for _ in range(begin + size))
        found.append(Example(ids, (1,) * len(ids), tuple(range(begin, len(ids))), (False,) * len(ids)))
        count += len(ids)
    return found


def reading(model: PreTrainedModel, examples: list[Example], repetitions: int) -> dict[str, object]:
    """How fast the ways are, and how they compare with the bare forward."""
    sequences, kept = [list(e.ids) for e in examples], [e.judged for e in examples]
    batches: list[torch.Tensor] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _module, _args, kwargs: batches.append(kwargs["input_ids"].clone()), with_kwargs=True
    )
    for _ in read(model, sequences, kept, [HiddenSource()]):
        pass
    hook.remove()

    @torch.inference_mode()
    def bare() -> None:
        for ids in batches:
            model.get_decoder()(input_ids=ids, use_cache=False)

    def reads(columns: list[Column]) -> None:
        for _ in read(model, sequences, kept, columns):
            pass

    def caches(columns: list[Column]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            FeatureCache(Path(folder), model).add(examples, columns)

    ways: dict[str, Callable[[], None]] = {
        "bare forward": bare,
        "read": lambda: reads([HiddenSource()]),
        "to disk": lambda: caches([HiddenSource()]),
        "to disk, with baselines": lambda: caches([HiddenSource(), *BASELINES]),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in tqdm(range(repetitions + 1), desc=str(model.name_or_path)):
        for way, run in ways.items():
            begin = time.perf_counter()
            run()
            if repetition:  # the first is warm-up
                seconds[way].append(time.perf_counter() - begin)
    tokens, padded = sum(map(len, sequences)), sum(ids.numel() for ids in batches)
    return {
        "tokens": tokens, "forwards": len(batches), "padding": 1 - tokens / padded,
        "ways": {
            way: {
                "tokens_per_second": tokens / statistics.median(spent),
                **spread("of_bare", [a / b for a, b in zip(seconds["bare forward"], spent, strict=True)]),
            }
            for way, spent in seconds.items()
        },
    }  # fmt: skip


def fitting(width: int, tokens: int, repetitions: int) -> dict[str, object]:
    """Seconds of all fits that a training with its default settings makes."""
    generator, config = torch.Generator().manual_seed(0), TrainingConfig()
    kinds = torch.randn(tokens, _DIRECTIONS, generator=generator)
    noise = torch.randn(tokens, generator=generator)
    label = (kinds @ torch.randn(_DIRECTIONS, generator=generator) / _DIRECTIONS**0.5 + noise > -1.5).long()
    mixed = torch.logspace(0, -2, _DIRECTIONS)[:, None] * torch.randn(_DIRECTIONS, width, generator=generator)
    features = (kinds @ mixed).add_(torch.randn(tokens, width, generator=generator), alpha=0.01)
    questions = [str(i // _TOKENS_A_QUESTION) for i in range(tokens)]
    fold, rank = deal(questions, label, config.folds, config.seed)
    known = LabelledTokens(
        label, torch.zeros(tokens, dtype=torch.bool), fold, rank, len(set(questions)), len(set(questions))
    )
    spent = []
    for _ in tqdm(range(repetitions), desc=f"fits of width {width}"):
        given = features.clone()  # they are standardised in place
        begin = time.perf_counter()
        found = candidate(HiddenSource(), given, known, config, lambda: None)
        learning_curve(given, known, config, found.row["auc"], lambda: None)
        spent.append(time.perf_counter() - begin)
    return {"width": width, "tokens": tokens, "auc": found.row["auc"], **spread("seconds", spent)}


def spread(name: str, values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {name: statistics.median(values), f"{name}_low": min(values), f"{name}_high": max(values)}


def main() -> None:
    """Measure and, with ``--out``, write ``features.json`` and ``features.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", nargs="*", default=["reference"], help="names or folders; none to skip the reading")
    parser.add_argument("--tokens", type=int, default=8 * BATCH_TOKENS, help="to read, padding not counted")
    parser.add_argument("--widths", type=int, nargs="*", default=[128, 576, 4096], help="hidden sizes; none to skip")
    parser.add_argument("--fitted-tokens", type=int, default=50_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--out", type=Path, help="a folder to write them to")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    readings = {}
    for name in args.target:
        model = load_model(name, dtype=args.dtype, device=args.device)
        examples = answers(model.config.get_text_config().vocab_size, args.tokens)
        readings[name] = reading(model, examples, args.repetitions)
    result = {
        "command": " ".join(["python", *sys.argv]), "machine": machine(torch.device(args.device)),
        "repetitions": args.repetitions, "reading": readings,
        "fits": [fitting(width, args.fitted_tokens, args.repetitions) for width in args.widths],
    }  # fmt: skip
    if args.out is not None:
        write_json(args.out / "features.json", result)
        write_text(args.out / "features.md", table(result))
    print(json.dumps(result, indent=1) if args.json else table(result))


def table(result: dict) -> str:
    """The results as Markdown."""
    lines = [
        f"Made by `{result['command']}` on {result['machine']}: medians of {result['repetitions']} [min, max].",
        "",
        "| target | what | tokens a second | share of the bare forward's |",
        "|---|---|---|---|",
    ]
    for name, one in result["reading"].items():
        lines += [
            f"| {name} | {way} | {row['tokens_per_second']:.0f} "
            f"| {row['of_bare']:.2f} [{row['of_bare_low']:.2f}, {row['of_bare_high']:.2f}] |"
            for way, row in one["ways"].items()
        ]
    lines += ["", "| tokens | hidden size | seconds of all fits |", "|---|---|---|"]
    lines += [
        f"| {row['tokens']} | {row['width']} "
        f"| {row['seconds']:.1f} [{row['seconds_low']:.1f}, {row['seconds_high']:.1f}] |"
        for row in result["fits"]
    ]
    lines += [""] + [
        f"{name}: {one['tokens']} tokens in {one['forwards']} forwards, {one['padding']:.1%} of them padding."
        for name, one in result["reading"].items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
