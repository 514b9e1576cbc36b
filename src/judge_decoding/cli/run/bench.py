"""Implementation of ``judge-decoding bench``, called with checked options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from judge_decoding.cli.bench import BenchOptions
from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.run.prepare import PreparedTask, prepare
from judge_decoding.cli.shared import bar
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


def run(options: BenchOptions) -> None:
    """Measure on the questions of the task."""
    check_backend(options.backend)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    ready = prepare(options, parse_task(options.task), limit=options.limit + options.tune, backend="eager")
    if options.draft_layers is not None:
        ready = _with_first_layers(ready, options.draft_layers)
    with ExitStack() as stack:
        found = bench(
            ready.decoder, ready.prompt_format, ready.items, tuning_items=options.tune,
            batch_sizes=sorted(set(options.batch_size or [1])), equal=options.num_draft_tokens or (),
            repetitions=options.repetitions, compiled=options.backend == "static", note=_progress, running=bar,
            engines=lambda models, best, prompts, left_out: _engines(
                options, ready, models, best, prompts, left_out, stack
            ),
        )  # fmt: skip
    facts = {name: value for name, value in ready.facts.items() if name in BenchResults.model_fields}
    facts |= {"data_hash": hash_of(found.items), "max_new_tokens": found.max_new_tokens}
    if options.out is not None:
        facts["config"] = keep_config(options.context, options.out)
    results = BenchResults(
        **facts, prompts=len(found.items), tuned_on=found.tuned_on, repetitions=options.repetitions,
        threads=torch.get_num_threads(), rows=tuple(found.rows), comparisons=tuple(found.comparisons),
        left_out=found.left_out,
    )  # fmt: skip
    text = results.model_dump_json(indent=2, exclude_none=True)
    if options.out is not None:
        write_text(options.out / "bench.md", bench_markdown(results))
        write_text(options.out / "results.json", text + "\n")
    if options.json:
        say_json(text)
        return
    show(results, Terminal())
    if options.out is not None:
        say(f"\nFigures: {options.out / 'results.json'}\nTables: {options.out / 'bench.md'}")


def _with_first_layers(ready: PreparedTask, layers: int) -> PreparedTask:
    """The same, with a draft of the target's first layers."""
    decoder, name = ready.decoder, f"its first {layers} layers"
    short = first_layers(decoder.target, layers)
    return replace(
        ready, decoder=JudgeDecoder(decoder.target, decoder.tokenizer, short, decoder.judge),
        names=ready.names | {"draft": name}, facts=ready.facts | {"draft": name},
    )  # fmt: skip


def _engines(
    options: BenchOptions,
    ready: PreparedTask,
    models: Models,
    best: Mapping[str, Contender],
    prompts: Sequence[Tensor],
    left_out: dict[str, str],
    stack: ExitStack,
) -> list[Contender]:
    """Start vLLM engines without a draft, with it, and with the judge; record those that fail in ``left_out``."""
    try:
        python = interpreter(options.vllm_python)
    except JudgeDecodingError as error:
        if options.vllm_python is not None:
            raise
        left_out["vllm"] = str(error).rstrip(".")
        return []
    found: list[Contender] = []
    settings = VllmSettings(
        python, embedded_path(ready.names["target"], "target"), ready.facts["dtype"],
        context=len(prompts[-1]) + models.max_new_tokens + 64, rows=max(options.batch_size or [1]),
        max_new_tokens=models.max_new_tokens, end_ids=models.decoder.end_ids, threads=torch.get_num_threads(),
    )  # fmt: skip
    draft = embedded_path(ready.names["draft"] or None, "draft") if models.draft is not None else None
    if options.draft_layers is not None:
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
