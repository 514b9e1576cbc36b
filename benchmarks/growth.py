"""How the cost of a round grows: with draft length, context, batch and vocabulary, beside what a cost model expects.

    python benchmarks/growth.py --out benchmarks/results/growth                        # a small Llama on a CPU
    python benchmarks/growth.py --shapes llama-3 --out benchmarks/results/growth_gpu   # 1B drafts for 8B: 80 GB

Random weights, so that next to nothing is accepted and the context stays what it is; a round's time does not depend on
what its tokens are. One of the four varies at a time. Compiled code has no sizes built in but the vocabulary, so that
there is one compilation for all points but those of other vocabularies.

A point is the median full round (the first of an answer is none, as the draft reads the prompt in it), in turns with
the other points of its curve, over some repetitions. Beside it: the bare compiled calls, M * t_draft + t_verify, and
the cost model, in which each forward takes the longer of bytes / bandwidth and operations / speed, as measured here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from judge_decoding.decoding.engines import Engine
from judge_decoding.evaluation.bench.contenders import ContenderLabel
from judge_decoding.io.files import write_json, write_text
from judge_decoding.models.provenance import machine
from limits import BareCalls, Machine, Shape, Work, measure_machine, work
from random_pairs import LLAMA_1B, LLAMA_8B, TINY, Loop, llama, prompts, tell
from rounds import clocked, steady

SMALL_TARGET = {
    "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 16384,
}  # fmt: skip
SMALL_DRAFT = SMALL_TARGET | {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
SHAPES = {"small": (SMALL_DRAFT, SMALL_TARGET), "llama-3": (LLAMA_1B, LLAMA_8B), "tiny": (TINY, TINY)}

AXES = {
    "draft length": "num_draft_tokens", "context": "context", "batch": "rows", "vocabulary": "vocab_size",
}  # fmt: skip
MEASURED, BARE, MODEL = "#1f6f8b", "#e3b04b", "#222222"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a round is measured.

    Attributes:
        num_draft_tokens: draft length M.
        context: tokens a row has before the first round.
        rows: prompts that are decoded together.
        vocab_size: of both models.
    """

    num_draft_tokens: int
    context: int
    rows: int
    vocab_size: int


@dataclass(slots=True)
class Pair:
    """A compiled pair, by the place's vocabulary."""

    draft: PreTrainedModel
    target: PreTrainedModel
    engine: Engine
    bare: BareCalls

    @classmethod
    def of(cls, shapes: Sequence[dict[str, Any]], vocab_size: int, device: torch.device, dtype: torch.dtype) -> Pair:
        """One with random weights."""
        draft, target = (
            llama(shape | {"vocab_size": vocab_size}, device, dtype, seed) for seed, shape in enumerate(shapes)
        )
        engine = Engine(target, draft, None, "static", tell)
        if engine.fallbacks:
            raise SystemExit(f"There is nothing to measure: {'; '.join(engine.fallbacks)}.")
        return cls(draft, target, engine, BareCalls(target, draft, set(), tell))


def round_of(pair: Pair, place: Place, rounds: int) -> float:
    """Median seconds of a full round."""
    label = ContenderLabel("exact", "static", place.num_draft_tokens)
    budget = (rounds + 1) * (place.num_draft_tokens + 1)
    loop = Loop(label, pair.engine, budget, rounds=rounds)
    asked = prompts(place.rows, place.context, place.vocab_size, pair.target.device)
    found = steady(clocked(loop, asked), place.num_draft_tokens)
    assert found is not None
    return found.lap


def bare_of(pair: Pair, place: Place) -> float:
    """Seconds of a round's compiled calls by themselves."""
    found = pair.bare.measure(Shape(place.rows, place.num_draft_tokens, place.context))
    return place.num_draft_tokens * found.draft + found.verify


def model_of(pair: Pair, place: Place, able: Machine) -> float:
    """Seconds of a round by the cost model."""

    def seconds(one: Work) -> float:
        return max(one.bytes / able.bandwidth, one.flops / able.flops)

    verify = work(pair.target, place.num_draft_tokens + 1, place.context, place.rows)
    draft = work(pair.draft, 1, place.context, place.rows)
    return place.num_draft_tokens * seconds(draft) + seconds(verify)


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Seconds for one more, by least squares; None for a single point."""
    if len(sizes) < 2:
        return None
    middle, mean = sum(sizes) / len(sizes), sum(seconds) / len(seconds)
    above = sum((size - middle) * (value - mean) for size, value in zip(sizes, seconds, strict=True))
    return above / sum((size - middle) ** 2 for size in sizes)


def curve(name: str, places: Sequence[Place], pairs: dict[int, Pair], able: Machine, args: argparse.Namespace) -> Any:  # noqa: ANN401
    """One curve: its points, and the three slopes."""
    laps: list[list[float]] = [[] for _ in places]
    bares: list[list[float]] = [[] for _ in places]
    for _ in tqdm(range(args.repetitions), desc=name):
        for number, place in enumerate(places):
            pair = pairs[place.vocab_size]
            laps[number].append(round_of(pair, place, args.rounds))
            bares[number].append(bare_of(pair, place))
    points = [
        {
            "size": getattr(place, AXES[name]), "round": median(lap), "low": min(lap), "high": max(lap),
            "bare": median(bare), "model": model_of(pairs[place.vocab_size], place, able),
        }
        for place, lap, bare in zip(places, laps, bares, strict=True)
    ]  # fmt: skip
    sizes = [point["size"] for point in points]
    slopes = {way: slope(sizes, [point[way] for point in points]) for way in ("round", "bare", "model")}
    return {"points": points, "slopes": slopes}


def table(told: dict[str, Any]) -> str:
    """The results as Markdown."""
    at = told["base"]
    lines = [
        f"Made by `{told['command']}` on {told['machine']}: {told['shapes']} shapes, "
        f"{told['bandwidth'] / 1e9:.1f} GB/s, {told['flops'] / 1e9:.0f} GFLOP/s.",
        "",
        f"Milliseconds of a round, median [min, max] of {told['repetitions']} medians of {told['rounds']} rounds. "
        f"Where it does not vary: M = {at['num_draft_tokens']}, context {at['context']}, batch {at['rows']}, "
        f"vocabulary {at['vocab_size']}. Bare is M * t_draft + t_verify; model is bytes over bandwidth or operations "
        "over speed, the longer one for each forward. The last row is the slope by least squares.",
    ]
    for name, found in told["curves"].items():
        lines += ["", f"| {name} | round | bare | model | bare / round |", "|---|---|---|---|---|"]
        for point in found["points"]:
            spread = f"{1e3 * point['round']:.2f} [{1e3 * point['low']:.2f}, {1e3 * point['high']:.2f}]"
            lines.append(
                f"| {point['size']} | {spread} | {1e3 * point['bare']:.2f} | {1e3 * point['model']:.2f} | "
                f"{point['bare'] / point['round']:.2f} |"
            )
        if len(found["points"]) > 1:
            slopes = [found["slopes"][way] for way in ("round", "bare", "model")]
            cells = " | ".join(map(_micro, slopes))
            lines.append(f"| one more | {cells} | {slopes[1] / slopes[0]:.2f} |")
    return "\n".join(lines) + "\n"


def _micro(seconds: float) -> str:
    """Microseconds, to three digits."""
    value = 1e6 * seconds
    return f"{value:.0f} µs" if abs(value) >= 100 else f"{value:.3g} µs"


def draw(told: dict[str, Any], folder: Path) -> None:
    """One panel a curve."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "growth", "font.size": 8, "axes.titlesize": 9})
    figure, grid = plt.subplots(2, 2, figsize=(8, 5.4), layout="constrained")
    for axes, (name, found) in zip(grid.flat, told["curves"].items(), strict=True):
        points = found["points"]
        sizes = [point["size"] for point in points]
        rounds = [1e3 * point["round"] for point in points]
        ends = [[1e3 * (p["round"] - p["low"]) for p in points], [1e3 * (p["high"] - p["round"]) for p in points]]
        axes.errorbar(
            sizes, rounds, ends, color=MEASURED, marker="o", markersize=4, capsize=2, linewidth=1.4, label="round"
        )
        axes.plot(sizes, [1e3 * p["bare"] for p in points], color=BARE, marker="s", markersize=3, label="bare calls")
        axes.plot(sizes, [1e3 * p["model"] for p in points], color=MODEL, linestyle="--", label="cost model")
        more = "" if len(points) < 2 else f": {_micro(found['slopes']['round'])} for one more"
        axes.set(title=name, xlabel=name + more, ylabel="ms a round")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    for ending, more in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 120})):
        figure.savefig(folder / f"growth.{ending}", **more)
    plt.close(figure)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", choices=SHAPES, default="small")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=None)
    parser.add_argument("--draft-length", type=int, default=8, help="where it does not vary")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=16, help="of an answer")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/growth"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and write ``growth.json``, ``growth.md`` and the picture."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    big = args.shapes == "llama-3"
    device, dtype = (torch.device("cuda", 0), torch.bfloat16) if big else (torch.device("cpu"), torch.float32)
    if big and not torch.cuda.is_available():
        raise SystemExit("These shapes need a GPU; leave out --shapes for a small pair on a CPU.")
    usual = SHAPES[args.shapes][1]["vocab_size"]
    vocabularies = args.vocabularies or [usual // 4, usual, 4 * usual]
    base = Place(args.draft_length, args.context, 1, usual)
    vary = {
        "draft length": args.lengths, "context": args.contexts, "batch": args.batches, "vocabulary": vocabularies,
    }  # fmt: skip
    able = measure_machine(device, dtype)
    pairs = {size: Pair.of(SHAPES[args.shapes], size, device, dtype) for size in {usual, *vocabularies}}
    round_of(pairs[usual], base, args.rounds)  # the first one of a process is slow
    curves = {
        name: curve(name, [replace(base, **{AXES[name]: size}) for size in sizes], pairs, able, args)
        for name, sizes in vary.items()
    }
    told = {
        "command": " ".join(["python", *sys.argv]), "machine": machine(device), "shapes": args.shapes,
        "bandwidth": able.bandwidth, "flops": able.flops, "repetitions": args.repetitions, "rounds": args.rounds,
        "base": {field: getattr(base, field) for field in base.__slots__}, "curves": curves,
    }  # fmt: skip
    write_json(args.out / "growth.json", told)
    write_text(args.out / "growth.md", table(told))
    draw(told, args.out)
    print(table(told))
    return told


if __name__ == "__main__":
    main()
