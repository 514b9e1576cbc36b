"""Implementation of ``judge-decoding bench``, called with checked options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import typer
from torch import Tensor

from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.court_files import bar
from judge_decoding.cli.run.prepare import PreparedTask, prepare
from judge_decoding.cli.terminal import say, say_json
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.engines import check_backend
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.bench.bench import bench
from judge_decoding.evaluation.bench.contenders import Contender, ContenderLabel
from judge_decoding.evaluation.bench.plan import Models
from judge_decoding.evaluation.bench.results import BenchResults
from judge_decoding.evaluation.bench.vllm import VLLM, VllmSettings, interpreter
from judge_decoding.evaluation.evaluate import hash_of
from judge_decoding.io.files import write_text
from judge_decoding.models.first_layers import first_layers
from judge_decoding.names import embedded_path
from judge_decoding.reference import pair
from judge_decoding.reference.wide import wide_draft
from judge_decoding.report.bench import bench_markdown, show
from judge_decoding.tasks import parse_task


def run(
    context: typer.Context, task: str, target: str, draft: str | None, draft_layers: int | None, judge: str | None,
    num_draft_tokens: list[int] | None, batch_size: list[int] | None, repetitions: int, limit: int, tune: int,
    data: Path | None, chat: bool | None, system: str, max_new_tokens: int | None, seed: int, threads: int | None,
    backend: str, vllm_python: str | None, dtype: str, device: str | None, out: Path | None, *,
    translate: bool, json: bool,
) -> None:  # fmt: skip
    """Measure on the questions of the task."""
    check_backend(backend)
    if threads is not None:
        torch.set_num_threads(threads)
    ready = _ready(
        task, data, (target, draft, judge), draft_layers, chat=chat, system=system, max_new_tokens=max_new_tokens,
        limit=limit + tune, seed=seed, dtype=dtype, device=device,
        translate=translate,
    )  # fmt: skip
    chosen = BenchOptions(
        tune, tuple(sorted(set(batch_size or [1]))), tuple(num_draft_tokens or ()), repetitions,
        compiled=backend == "static", vllm_python=vllm_python, draft_layers=draft_layers,
    )  # fmt: skip
    results = _measure(ready, chosen)
    if out is not None:
        results = results.model_copy(update={"config": keep_config(context, out)})
        write_text(out / "bench.md", bench_markdown(results))
        write_text(out / "results.json", results.model_dump_json(indent=2, exclude_none=True) + "\n")
    if json:
        say_json(results.model_dump_json(indent=2, exclude_none=True))
        return

    show(results, Terminal())
    if out is not None:
        say(f"\nFigures: {out / 'results.json'}\nTables: {out / 'bench.md'}")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is to be measured, beside models and questions.

    Attributes:
        tune: on how many of the questions the best draft lengths are chosen.
        batch_sizes: prompts that are decoded together.
        equal: draft lengths at which ours and transformers' are compared, too.
        repetitions: how often, beside a warm-up.
        compiled: the static back end, too.
        vllm_python: the interpreter that has vLLM, if it is not this one.
        draft_layers: the draft is so many of the target's first layers.
    """

    tune: int
    batch_sizes: tuple[int, ...]
    equal: tuple[int, ...]
    repetitions: int
    compiled: bool
    vllm_python: str | None
    draft_layers: int | None


def _ready(
    task: str,
    data: Path | None,
    models: tuple[str, str | None, str | None],
    draft_layers: int | None,
    **options: Any,  # noqa: ANN401  (those of prepare)
) -> PreparedTask:
    """Prepare questions and models; with ``draft_layers``, make the draft from the target's first layers."""
    ready = prepare(parse_task(task), data, models, trained_on=(), backend="eager", temperature=0.0, **options)
    if draft_layers is None:
        return ready

    decoder = ready.decoder
    short = first_layers(decoder.target, draft_layers)
    name = f"its first {draft_layers} layers"
    return replace(
        ready, decoder=JudgeDecoder(decoder.target, decoder.tokenizer, short, decoder.judge),
        names=ready.names | {"draft": name}, facts=ready.facts | {"draft": name},
    )  # fmt: skip


def _measure(ready: PreparedTask, chosen: BenchOptions) -> BenchResults:
    """Run the benchmark at all batch sizes."""
    decoder = ready.decoder
    with ExitStack() as stack:
        found = bench(
            decoder, ready.prompt_format, ready.items, tuning_items=chosen.tune, batch_sizes=chosen.batch_sizes,
            equal=chosen.equal, repetitions=chosen.repetitions, compiled=chosen.compiled, note=_progress, running=bar,
            engines=lambda models, best, prompts, left_out: _engines(
                ready, models, best, chosen, prompts, left_out, stack
            ),
        )  # fmt: skip
    facts = {name: value for name, value in ready.facts.items() if name in BenchResults.model_fields}
    facts |= {"data_hash": hash_of(found.items), "max_new_tokens": found.max_new_tokens}
    return BenchResults(
        **facts, prompts=len(found.items), tuned_on=found.tuned_on, repetitions=chosen.repetitions,
        threads=torch.get_num_threads(), rows=tuple(found.rows), comparisons=tuple(found.comparisons),
        left_out=found.left_out,
    )  # fmt: skip


def _engines(
    ready: PreparedTask,
    models: Models,
    best: Mapping[str, Contender],
    chosen: BenchOptions,
    prompts: Sequence[Tensor],
    left_out: dict[str, str],
    stack: ExitStack,
) -> list[Contender]:
    """Start vLLM engines without a draft, with it, and with the judge; record those that fail in ``left_out``."""
    if chosen.vllm_python is None:
        try:
            python = interpreter(None)
        except JudgeDecodingError as error:
            left_out["vllm"] = str(error).rstrip(".")
            return []
    else:
        python = interpreter(chosen.vllm_python)
    found: list[Contender] = []
    settings = VllmSettings(
        python, embedded_path(ready.names["target"], "target"), ready.facts["dtype"],
        context=len(prompts[-1]) + models.max_new_tokens + 64, rows=max(chosen.batch_sizes),
        max_new_tokens=models.max_new_tokens, end_ids=models.decoder.end_ids, threads=torch.get_num_threads(),
    )  # fmt: skip
    draft = embedded_path(ready.names["draft"] or None, "draft") if models.draft is not None else None
    if chosen.draft_layers is not None:
        draft, left_out["vllm with a draft"] = None, "it has no drafts made of the target's first layers"
    if draft == str(pair.DRAFT):
        _progress("Widening the embedded draft's attention heads for vLLM")
        draft = str(wide_draft(Path(stack.enter_context(TemporaryDirectory())) / "draft"))
    wanted = [("", settings)]
    for kind in ("exact", "judge"):
        if draft is not None and kind in best:
            judge = embedded_path(ready.names["judge"], "judge") if kind == "judge" else None
            length = best[kind].label.num_draft_tokens
            wanted.append((kind, replace(settings, draft=draft, num_draft_tokens=length, judge=judge)))
    for note, own in wanted:
        label = ContenderLabel("vllm", num_draft_tokens=own.num_draft_tokens, note=note)
        _progress(f"Starting {label.name}")
        try:
            engine = VLLM(label, own)
            stack.callback(engine.close)
            engine.answer(prompts[-1:])  # some models start but cannot decode
        except JudgeDecodingError as error:
            left_out[label.name] = str(error).rstrip(".")
        else:
            found.append(engine)
    return found


def _progress(text: str) -> None:
    say(f"{text} ...", err=True)
