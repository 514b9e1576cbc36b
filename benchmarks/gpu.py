"""Llama-3.2-1B drafting for Llama-3.1-8B on a GPU: tokens per second beside what the memory's bandwidth allows.

    python benchmarks/gpu.py --out benchmarks/results      # one GPU with 40 GB, no download
    python benchmarks/gpu.py --tiny --out /tmp/gpu         # toy shapes on a CPU, to see it run

Not yet run on a GPU. Shapes are those of the published models, weights random, made on the device in bfloat16. The
judge is a random head, asked in the forward as any judge is; its threshold is a quantile of its own scores, searched
for so that about 2, 6, 12 and 20 draft tokens a round are accepted, and the tables say how many were. What random
models say may repeat itself, which changes no time.

Beside each other in one run, in turns: transformers' ``generate`` (its dynamic cache, and its static cache, which it
compiles on a GPU), our static back end without a draft, the judge at four draft lengths, and transformers' assisted
generation. Random models hardly ever agree, so assisted generation gets the best case there is for it: a logits
processor makes both models say the same token, and so every token it drafts is accepted; its draft length is the
number that the judge's row aims at. The embedded pair follows, with real acceptance and tokens checked.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from judge_decoding import JudgeDecoder
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.core.rounds import Stats
from judge_decoding.decoding.engines import Engine
from judge_decoding.evaluation.bench.bench import alone
from judge_decoding.evaluation.bench.contenders import BatchAnswers, Contender, ContenderLabel, counted, synchronize
from judge_decoding.evaluation.bench.plan import Assistance, Models
from judge_decoding.io.files import write_json, write_text
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import target_info
from judge_decoding.models.provenance import machine
from judge_decoding.reference import pair as embedded
from judge_decoding.reference.problems import MAX_NEW_TOKENS, draw_many
from judge_decoding.rules import Judge
from limits import BareCalls, Machine, measure_machine
from random_pairs import LLAMA_1B, LLAMA_8B, TINY, Loop, llama, prompts, tell
from rounds import context_of, measured

LEVELS = {2: 4, 6: 10, 12: 20, 20: 32}
"""Accepted draft tokens per round that are aimed at, and the draft length for each."""
SEARCH_STEPS = 8


class Always(LogitsProcessor):
    """One token is certain, whatever the model says."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores, with token 0 far ahead."""
        scores[..., 0] = torch.finfo(scores.dtype).max
        return scores


@dataclass(frozen=True, slots=True)
class Generate:
    """transformers' ``generate``, a `Contender`.

    Attributes:
        label: names its row in the tables.
        target: the model.
        max_new_tokens: token budget.
        draft: the assistant, whose every token is accepted.
        cache: transformers' name of the cache; None for its dynamic one.
    """

    label: ContenderLabel
    target: PreTrainedModel
    max_new_tokens: int
    draft: PreTrainedModel | None = None
    cache: str | None = None

    @property
    def same_tokens(self) -> bool:
        """False: random models say nothing that could be compared."""
        return False

    def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
        """See `Contender.answer`; all prompts have one length."""
        ids = torch.stack(list(prompts))
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1, eos_token_id=None, pad_token_id=0,
            cache_implementation=self.cache,
        )  # fmt: skip
        more: dict[str, Any] = {}
        if self.draft is not None:
            own = self.draft.generation_config
            own.num_assistant_tokens, own.num_assistant_tokens_schedule = self.label.num_draft_tokens, "constant"
            own.assistant_confidence_threshold = 0.0
            more = {"assistant_model": self.draft, "logits_processor": LogitsProcessorList([Always()])}
        with torch.inference_mode(), counted(self.target) as forwards:
            synchronize(ids.device)
            begin = time.perf_counter()
            output = self.target.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config, **more
            )  # fmt: skip
            found = output[:, ids.shape[1] :].tolist()
            seconds = time.perf_counter() - begin
        return BatchAnswers(tuple(map(tuple, found)), seconds, forwards[0])


def random_head(model: PreTrainedModel) -> JudgeHead:
    """A head with random weights. It reads states after the final norm: their size is known, and so that of scores."""
    torch.manual_seed(2)
    head = JudgeHead(JudgeHeadConfig(target=target_info(model), norm="after"))
    torch.nn.init.normal_(head.linear.weight, std=2 / math.sqrt(head.config.input_size))
    torch.nn.init.zeros_(head.linear.bias)
    return head.to(model.device)


def stats_of(loop: Loop, asked: Sequence[Tensor]) -> tuple[Stats, list[float]]:
    """What a decoding did, and the judge's scores in it."""
    rounds = [event for row in loop.answer(list(asked)).rounds for event in row]
    return Stats.of(rounds), [score for event in rounds for score in event.scores or ()]


def threshold_for(level: int, loop: Loop, head: JudgeHead, asked: Sequence[Tensor]) -> float:
    """The threshold at which about ``level`` draft tokens a round are accepted: a quantile, found by halving."""

    def at(threshold: float) -> Loop:
        return Loop(loop.label, loop.engine, loop.max_new_tokens, Judge(head, threshold))

    scores = torch.tensor(stats_of(at(0.5), asked)[1])
    low, high, best = 0.0, 1.0, (math.inf, 0.5)
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        threshold = float(scores.quantile(middle))
        accepted = stats_of(at(threshold), asked)[0].accepted_per_round
        best = min(best, (abs(accepted - level), threshold))
        low, high = (middle, high) if accepted > level else (low, middle)
    return best[1]


def random_rows(args: argparse.Namespace, device: torch.device, able: Machine) -> list[dict[str, Any]]:
    """The random pair's rows."""
    shapes, dtype = ((TINY, TINY), torch.float32) if args.tiny else ((LLAMA_1B, LLAMA_8B), torch.bfloat16)
    draft, target = (llama(shape, device, dtype, seed) for seed, shape in enumerate(shapes))
    head = random_head(target)
    engine = Engine(target, draft, head, "static", tell)
    if engine.fallbacks:
        raise SystemExit(f"There is nothing to measure: {'; '.join(engine.fallbacks)}.")
    vocab_size, budget = shapes[1]["vocab_size"], args.max_new_tokens
    asked = prompts(1, args.context, vocab_size, device)
    tuned_on = prompts(2, args.context, vocab_size, device, seed=1)
    ways: list[Contender] = [
        Generate(ContenderLabel("generate"), target, budget),
        Loop(ContenderLabel("plain", "static"), engine, budget),
    ]
    if device.type == "cuda":
        ways.append(Generate(ContenderLabel("generate", note="static cache"), target, budget, cache="static"))
    aims: dict[str, dict[str, float]] = {}
    for level, count in tqdm(args.levels.items(), desc="thresholds"):
        loop = Loop(ContenderLabel("judge", "static", count, f"aims at {level}"), engine, budget, Judge(head, 0.5))
        threshold = threshold_for(level, loop, head, tuned_on)
        ways.append(Loop(loop.label, engine, budget, Judge(head, threshold)))
        aims[loop.label.name] = {"aim": level, "threshold": threshold}
        ways.append(
            Generate(ContenderLabel("assisted", num_draft_tokens=level, note="all accepted"), target, budget, draft)
        )
    rows = measured(
        ways, asked, (), (target, draft), BareCalls(target, draft, {HiddenSource()}, tell), able,
        context=args.context + budget // 2, repetitions=args.repetitions,
    )  # fmt: skip
    return [told(row) | aims.get(row["name"], {}) for row in rows]


def embedded_rows(args: argparse.Namespace, device: torch.device, able: Machine) -> list[dict[str, Any]]:
    """The embedded pair's rows; its tokens are checked where the rule is lossless."""
    pair = JudgeDecoder.from_pretrained(embedded.TARGET, embedded.DRAFT, embedded.JUDGE, device=device)
    models, reasons = Models.of(pair, MAX_NEW_TOKENS, tell)
    if reasons:
        raise SystemExit(f"There is nothing to measure: {reasons}.")
    problems = draw_many(0, "test", args.problems)
    asked = [pair.encode(embedded.prompt_of(problem))[0] for problem in problems]
    expected = alone(models, asked)
    assert pair.judge is not None
    ways = [models.generate(), models.plain(), models.assisted(Assistance(4, 0.0), ""), models.exact(4)]
    ways.append(models.judge(pair.num_draft_tokens))
    calls = BareCalls(pair.target, models.draft, {pair.judge.config.source}, tell)
    rows = measured(
        ways, asked, expected, (pair.target, models.draft), calls, able, context=context_of(asked, expected),
        repetitions=args.repetitions,
    )  # fmt: skip
    return [told(row) for row in rows]


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A row, with its steady speed (full rounds, without the reading of the prompt), and that at the roofline."""
    if (known := row["limits"]) is None:
        return row
    accepted = row["accepted_per_round"] or 0.0
    floor = max(known["bytes_seconds"], known["flops_seconds"])  # to read what a round reads, or to compute
    return row | {
        "steady_tokens_per_second": (accepted + 1) / known["round"],
        "roofline_tokens_per_second": (accepted + 1) / floor,
        "of_roofline": floor / known["round"],
    }


def table(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"Made by `{result['command']}` on {result['machine']}, which reads {result['bandwidth'] / 1e9:.0f} GB/s and "
        f"computes {result['flops'] / 1e12:.3g} TFLOP/s, as measured. Tokens per second are from prompt to end, median "
        f"[min, max] of {result['repetitions']} repetitions in turns; the roofline is what full rounds could reach, "
        "and the share how near they are. Efficiency is (M * t_draft + t_verify) / round.",
    ]
    for name, rows in result["pairs"].items():
        lines += ["", f"## {name}", ""]
        lines.append(
            "| way | accepted per round | tokens per target forward | tokens/s | over plain | over generate | "
            "over assisted | round, ms | efficiency | roofline, tokens/s | share |"
        )
        lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
        speed = {one["name"]: one["tokens_per_second"] for one in rows}
        assisted = {one["num_draft_tokens"]: one["name"] for one in rows if one["family"] == "assisted"}
        for one in rows:
            known = one["limits"]
            against = assisted.get(one.get("aim", min(assisted)))  # the one that accepts as much, where there is one
            own = one["family"] in ("judge", "exact")
            cells = [
                one["name"],
                _number(one["accepted_per_round"]),
                _number(one["tokens_per_forward"]),
                f"{one['tokens_per_second']:.1f} [{one['low']:.1f}, {one['high']:.1f}]",
                f"{one['tokens_per_second'] / speed['plain, static']:.2f}",
                f"{one['tokens_per_second'] / speed['generate']:.2f}",
                f"{one['tokens_per_second'] / speed[against]:.2f}" if own and against else "",
            ]
            if known is None or "of_roofline" not in one:
                cells += ["", "", "", ""]
            else:
                cells += [f"{1e3 * known['round']:.2f}", f"{known['efficiency']:.2f}"]
                cells += [f"{one['roofline_tokens_per_second']:.0f}", f"{one['of_roofline']:.2f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and write ``gpu.json`` and ``gpu.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="toy shapes on the CPU, without the embedded pair")
    parser.add_argument("--context", type=int, default=None, help="tokens of the prompt; 512, tiny 16")
    parser.add_argument("--max-new-tokens", type=int, default=None, help="512, tiny 64")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--problems", type=int, default=8, help="of the embedded pair; 0 leaves it out")
    parser.add_argument("--levels", type=int, nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args(argv)
    args.context = args.context or (16 if args.tiny else 512)
    args.max_new_tokens = args.max_new_tokens or (64 if args.tiny else 512)
    args.levels = {level: LEVELS[level] for level in args.levels}
    if not args.tiny and not torch.cuda.is_available():
        raise SystemExit("This needs a GPU; --tiny runs toy shapes on a CPU.")
    device = torch.device("cpu") if args.tiny else torch.device("cuda", 0)
    # Each pair has its own numbers' speed: bfloat16 on the tensor cores, and float32.
    dtypes = {"random": torch.float32 if args.tiny else torch.bfloat16, "embedded": torch.float32}
    able = {name: measure_machine(device, dtype) for name, dtype in dtypes.items()}
    pairs = {"tiny" if args.tiny else "Llama-3.2-1B and 3.1-8B shapes": random_rows(args, device, able["random"])}
    if args.problems and not args.tiny:
        pairs["embedded pair"] = embedded_rows(args, device, able["embedded"])
    result = {
        "command": " ".join(["python", *sys.argv]), "machine": machine(device), "repetitions": args.repetitions,
        "bandwidth": able["random"].bandwidth, "flops": able["random"].flops, "pairs": pairs,
    }  # fmt: skip
    write_json(args.out / "gpu.json", result)
    write_text(args.out / "gpu.md", table(result))
    print(table(result))
    return result


if __name__ == "__main__":
    main()
