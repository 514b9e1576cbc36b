"""Where the time of a round goes, and how near that is to what the machine allows: for whoever tunes the engine.

    python benchmarks/rounds.py --threads 1 --out /tmp/rounds                 # the embedded pair
    python benchmarks/rounds.py --target T --draft D --judge J --task gsm8k --batch-size 4 --memory

`judge-decoding bench` says how fast each way of decoding is; this says why. Ways take turns as they do there. Only
*full* rounds count: those with the whole draft length in which all prompts of the batch are under way. Right behind
each batch its compiled calls are measured with nothing around them. docs/performance.md explains every column.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from judge_decoding import JudgeDecoder
from judge_decoding.core.rounds import Round, Seconds
from judge_decoding.decoding.lengths import AcceptanceModel, DraftLength
from judge_decoding.evaluation.bench.bench import alone
from judge_decoding.evaluation.bench.contenders import BatchAnswers, Contender, OwnLoop
from judge_decoding.evaluation.bench.measure import measure
from judge_decoding.evaluation.bench.plan import POLICY, Models
from judge_decoding.evaluation.bench.results import row
from judge_decoding.io.files import write_json, write_text
from judge_decoding.markdown import table
from judge_decoding.models.provenance import machine as machine_in_words
from judge_decoding.names import complete
from judge_decoding.tasks import parse_task, read_items
from judge_decoding.tasks.prompt_format import PromptFormat
from limits import Bare, BareCalls, Machine, Shape, Work, efficiency, measure_machine, round_work
from memory import Job, measure_memory
from random_pairs import Loop, tell


class Clock(DraftLength):
    """A draft-length policy that looks at the clock whenever a round begins.

    Args:
        policy: decides.
    """

    def __init__(self, policy: DraftLength) -> None:
        self._policy = policy
        self.stop_below = policy.stop_below
        self._marks: list[float] = []

    def next(self) -> int:
        """The draft length that the policy chooses, and a look at the clock."""
        self._marks.append(time.perf_counter())
        return self._policy.next()

    def observe(self, event: Round) -> None:
        """Pass a finished round on to the policy."""
        self._policy.observe(event)

    def remember(self, experience: AcceptanceModel) -> None:
        """Pass earlier experience on to the policy."""
        self._policy.remember(experience)

    @property
    def laps(self) -> tuple[float, ...]:
        """Seconds from the beginning of each round to that of the next."""
        return tuple(b - a for a, b in zip(self._marks, self._marks[1:], strict=False))


@dataclass(frozen=True, slots=True)
class Timed(BatchAnswers):
    """Answers with the time of each round.

    Attributes:
        context: how many tokens each prompt has.
        laps: how long each round took by the clock, whatever is done in it: of each prompt, all rounds but its last.
    """

    context: tuple[int, ...] = ()
    laps: tuple[tuple[float, ...], ...] = ()


def clocked(way: OwnLoop | Loop, prompts: Sequence[Tensor]) -> Timed:
    """The answers of our own loop, with a clock in it."""
    clocks: list[Clock] = []

    def policy(count: int) -> DraftLength:
        clocks.append(Clock(way.policy(count)))
        return clocks[-1]

    given = replace(way, policy=policy).answer(prompts)
    laps = tuple(clock.laps for clock in clocks)
    return Timed(given.tokens, given.seconds, given.forwards, given.rounds, tuple(map(len, prompts)), laps)


@dataclass(frozen=True, slots=True)
class Steady:
    """What full rounds take: those with the whole draft length in which no row of the batch has ended.

    The first round of an answer, in which the draft reads the prompt, and the last are not among them.

    Attributes:
        lap: median seconds of such a round by the clock, from its beginning to that of the next.
        parts: median seconds of its parts.
        context: mean number of tokens a row had before it.
        rounds: how many there were.
    """

    lap: float
    parts: Seconds
    context: float
    rounds: int


def steady(batch: Timed, count: int) -> Steady | None:
    """The full rounds of a batch, with drafts of ``count`` tokens; None if there are none."""
    laps: list[float] = []
    parts: list[Seconds] = []
    contexts: list[float] = []
    length: list[int] = list(batch.context)
    for i in range(min(map(len, batch.laps), default=0)):
        events = [rounds[i] for rounds in batch.rounds]
        if i and all(len(event.draft_ids) == count for event in events):
            laps.append(batch.laps[0][i])
            parts.append(events[0].seconds)
            contexts.append(fmean(length))
        length = [before + len(event.token_ids) for before, event in zip(length, events, strict=True)]
    if not laps:
        return None
    return Steady(median(laps), Seconds(*map(median, zip(*parts, strict=True))), fmean(contexts), len(laps))


class Watched:
    """A way of our own loop, whose full rounds are timed; its bare calls are measured right behind each batch.

    Args:
        way: decodes.
        shape: of its full rounds.
        calls: the compiled calls; None to measure none.
        warm_up: how many batches are not counted.
    """

    def __init__(self, way: OwnLoop | Loop, shape: Shape, calls: BareCalls | None, warm_up: int = 0) -> None:
        self._way, self._calls, self._warm_up = way, calls, warm_up
        self.label, self.same_tokens, self.shape = way.label, way.same_tokens, shape
        self.steady: list[Steady | None] = []
        self.bare: list[Bare] = []

    def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
        """See `Contender.answer`."""
        given = clocked(self._way, prompts)
        if self._warm_up:
            self._warm_up -= 1
            return given
        # The last batch may be smaller: rounds of another size.
        whole = len(prompts) == self.shape.rows
        self.steady.append(steady(given, self.label.num_draft_tokens) if whole else None)
        if self._calls is not None:
            self.bare.append(self._calls.measure(self.shape))
        return given


@dataclass(frozen=True, slots=True)
class Limits:
    """A full round beside what it could be.

    All times are in seconds, medians over the batches of all repetitions.

    Attributes:
        round: a full round by the clock; `Steady.lap`.
        parts: of that, what the loop counts for each.
        context: tokens a row has before such a round.
        rounds: how many there were, in all repetitions together.
        bytes, flops: what a round has to read and to compute.
        bytes_seconds, flops_seconds: how long that takes at the machine's bandwidth, and at its speed.
        t_draft, t_draft_alone, t_verify: bare compiled calls of the same shapes; see `Bare`.
        efficiency: (M * t_draft + t_verify) / round.
    """

    round: float
    parts: dict[str, float]
    context: float
    rounds: int
    bytes: float
    flops: float
    bytes_seconds: float
    flops_seconds: float
    t_draft: float | None = None
    t_draft_alone: float | None = None
    t_verify: float | None = None
    efficiency: float | None = None


def limits(
    steady: Sequence[Steady | None], num_draft_tokens: int, bare: Sequence[Bare], work: Work, machine: Machine
) -> Limits | None:
    """A full round of a way beside what it could be; None if it had no full rounds.

    Args:
        steady: full rounds of each batch.
        num_draft_tokens: draft length M.
        bare: bare calls of the shape of its rounds, measured behind each of its batches; empty if there are none.
        work: what such a round has to do.
        machine: what the machine can do.
    """
    known = [one for one in steady if one is not None]
    if not known:
        return None
    told = {}
    if bare:
        # Right behind a batch the machine is in the same state.
        pairs = [(calls, one) for calls, one in zip(bare, steady, strict=True) if one is not None]
        told = {
            "t_verify": median(calls.verify for calls in bare),
            "t_draft": median(calls.draft for calls in bare),
            "t_draft_alone": median(calls.draft_alone for calls in bare),
            "efficiency": median(efficiency(num_draft_tokens, calls, one.lap) for calls, one in pairs),
        }
    return Limits(
        round=median(one.lap for one in known),
        parts={name: median(getattr(one.parts, name) for one in known) for name in Seconds._fields},
        context=median(one.context for one in known),
        rounds=sum(one.rounds for one in known),
        bytes=work.bytes,
        flops=work.flops,
        bytes_seconds=work.bytes / machine.bandwidth,
        flops_seconds=work.flops / machine.flops,
        **told,
    )


def measured(
    contenders: Sequence[Contender],
    prompts: Sequence[Tensor],
    expected: Sequence[tuple[int, ...]],
    models: tuple[PreTrainedModel, PreTrainedModel | None],
    calls: BareCalls | None,
    able: Machine,
    *,
    context: int,
    batch_size: int = 1,
    repetitions: int = 5,
) -> list[dict[str, Any]]:
    """A row for each way: that of `judge-decoding bench`, and of our own loop its `Limits`.

    Args:
        contenders: with different names.
        prompts: token ids [T_i] each.
        expected: what plain greedy decoding says to each prompt; empty if nothing is to be compared.
        models: target and draft.
        calls: their compiled calls.
        able: what the machine can do.
        context: tokens a row has before a round.
        batch_size: prompts that are decoded together.
        repetitions: how often, beside a warm-up.
    """
    rows, warm_up = min(batch_size, len(prompts)), -(-len(prompts) // batch_size)
    watched = {
        way.label.name: Watched(way, Shape(rows, way.label.num_draft_tokens, context), calls, warm_up)
        for way in contenders
        if isinstance(way, OwnLoop | Loop) and way.label.note != POLICY
    }
    with tqdm(total=len(contenders) * (repetitions + 1), desc="in turns") as bar:
        found = measure(
            [watched.get(way.label.name, way) for way in contenders], prompts, expected, batch_size=batch_size,
            repetitions=repetitions, progress=lambda *_: bar.update() and None,
        )  # fmt: skip
    told = []
    for way in contenders:
        name, known = way.label.name, None
        if (own := watched.get(name)) is not None:
            known = limits(own.steady, way.label.num_draft_tokens, own.bare, round_work(*models, own.shape), able)
        line = row(way.label, found[name], batch_size, same_tokens=way.same_tokens).model_dump(mode="json")
        told.append(line | {"limits": known and asdict(known)})
    return told


def context_of(prompts: Sequence[Tensor], expected: Sequence[tuple[int, ...]]) -> int:
    """How many tokens a row has before a round in the middle of an answer."""
    return round(median(len(prompt) + len(said) / 2 for prompt, said in zip(prompts, expected, strict=True)))


COLUMNS: dict[str, Callable[[dict[str, Any]], float | None]] = {
    "round": lambda one: one["round"],
    "draft": lambda one: one["parts"]["draft"],
    "verify": lambda one: one["parts"]["verify"],
    "rule": lambda one: one["parts"]["rule"],
    "overhead": lambda one: one["parts"]["overhead"],
    "bare draft": lambda one: one["draft"],
    "bare verify": lambda one: one["t_verify"],
    "floor, bytes": lambda one: one["bytes_seconds"],
    "floor, flops": lambda one: one["flops_seconds"],
}
"""Where a full round's time goes, and what it could be."""


def page(told: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = []
    for one in told["rows"]:
        if (found := one["limits"]) is not None:
            bare = found["t_draft"] and found["t_draft"] * one["num_draft_tokens"]
            times = [cell(found | {"draft": bare}) for cell in COLUMNS.values()]
            cells = ["-" if value is None else f"{1e3 * value:.2f}" for value in times]
            lines.append([one["name"], f"{one['tokens_per_second']:.0f}", *cells, f"{found['efficiency']:.0%}"])
    text = (
        f"Made by `{told['command']}` on {told['machine']}, which reads {told['bandwidth'] / 1e9:.1f} GB/s and "
        f"computes {told['flops'] / 1e9:.0f} GFLOP/s, as measured. Milliseconds, medians of the full rounds of "
        f"{told['repetitions']} repetitions in turns, {told['batch_size']} prompts together.\n\n"
    ) + table(["way", "tokens per second", *COLUMNS, "efficiency"], lines)
    if (memory := told["memory"]) is not None:
        size = {name: f"{count / 1e6:.1f} MB" for name, count in memory.items()}
        text += (
            f"\nMemory while decoding: {size['decoding']}, of which {size['libraries']} are the libraries' own; less "
            f"those {memory['ratio']:.2f} times weights ({size['weights']}) and caches ({size['caches']}). At most "
            f"{size['loading']} while loading.\n"
        )
    return text


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and write ``rounds.json`` and ``rounds.md``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="reference")
    parser.add_argument("--draft", default=None)
    parser.add_argument("--judge", default=None)
    parser.add_argument("--task", default="arithmetic", help="whose questions are asked")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 8, 16, 24], help="draft lengths")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=140)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--memory", action="store_true", help="of a process of its own that decodes a batch")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rounds"))
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    draft, judge = complete(args.target, args.draft, args.judge)
    pair = JudgeDecoder.from_pretrained(args.target, draft, judge, dtype=args.dtype)
    models, reasons = Models.of(pair, args.max_new_tokens, tell)
    if reasons:
        raise SystemExit(f"There is nothing to measure: {reasons}.")
    task = parse_task(args.task)
    prompt_format = PromptFormat(task, bool(pair.tokenizer.chat_template), max_new_tokens=args.max_new_tokens)
    items = read_items(task, limit=args.prompts, seed=0)
    asked = sorted((pair.encode(prompt_format.prompt(item))[0] for item in items), key=len)
    expected = alone(models, asked)
    contenders: list[Contender] = [models.plain()]
    if models.draft is not None:
        contenders += [models.exact(length) for length in args.lengths]
        contenders += [models.judge(length) for length in args.lengths if pair.judge is not None]
    sources = {pair.judge.config.source} if pair.judge is not None else set()
    able = measure_machine(pair.target.device, pair.target.dtype)
    rows = measured(
        contenders, asked, expected, (pair.target, models.draft),
        BareCalls(pair.target, models.draft, sources, tell), able,
        context=context_of(asked, expected), batch_size=args.batch_size, repetitions=args.repetitions,
    )  # fmt: skip
    memory = None
    if args.memory:
        batch = [ids.tolist() for ids in asked[-args.batch_size :]]
        memory = asdict(measure_memory(
            Job(args.target, draft, judge, args.dtype, max(args.lengths), args.max_new_tokens, batch, args.threads)
        ))  # fmt: skip
    told = {
        "command": " ".join(["python", *sys.argv]), "machine": machine_in_words(pair.target.device),
        "bandwidth": able.bandwidth, "flops": able.flops, "repetitions": args.repetitions,
        "batch_size": args.batch_size, "rows": rows, "memory": memory,
    }  # fmt: skip
    write_json(args.out / "rounds.json", told)
    write_text(args.out / "rounds.md", page(told))
    print(page(told))
    return told


if __name__ == "__main__":
    main()
