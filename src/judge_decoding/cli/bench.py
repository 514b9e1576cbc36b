"""``judge-decoding bench``: how fast every way of decoding is on this machine, side by side."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge_decoding.cli.models import Device
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.task_options import Budget, Chat, Data, Dtype, Json, Judge, Seed, System
from judge_decoding.cli.terminal import say, say_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from torch import Tensor

    from judge_decoding.cli.evaluation import Prepared
    from judge_decoding.evaluation.bench.plan import Models
    from judge_decoding.evaluation.bench.results import BenchResults
    from judge_decoding.evaluation.bench.ways import Way


@dataclass(frozen=True, slots=True)
class Chosen:
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


def bench(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="What is asked, such as gsm8k; see the docs.")] = "arithmetic",
    target: Annotated[
        str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded pair.")
    ] = "reference",
    draft: Annotated[str | None, typer.Option(help="Draft model, or 'prompt-lookup'.")] = None,
    draft_layers: Annotated[
        int | None, typer.Option(min=1, help="In place of a draft model: the target's own first layers.")
    ] = None,
    judge: Judge = None,
    num_draft_tokens: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Draft length at which ours and transformers' are compared, too; several times."),
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Prompts decoded together; several times.")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often everything is measured, beside a warm-up.")] = 5,
    prompts: Annotated[int, typer.Option(min=1, help="How many questions.")] = 16,
    tune: Annotated[int, typer.Option(min=1, help="How many others to choose the best draft lengths on.")] = 6,
    data: Data = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: Budget = None,
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; else its own choice.")] = None,
    backend: Annotated[str, typer.Option(help="static measures both of ours; eager compiles nothing.")] = "static",
    vllm_python: Annotated[
        str | None, typer.Option(help="A Python with vLLM, to be measured beside; else this one, if it has it.")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for results.json and bench.md.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure ways of decoding side by side: tokens per second, accepted draft tokens, and whose tokens differ.

    In turns, in one process, on the same prompts: plain and assisted generation of transformers, and ours without a
    draft, by standard verification and with the judge. docs/performance.md explains every column.
    """
    from judge_decoding.decoding.engines import check_backend
    from judge_decoding.errors import JudgeDecodingError

    check_backend(backend)
    if out is not None:
        check_outputs(
            [out / "results.json", out / "bench.md"], [data, target, draft, judge], overwrite=overwrite, folder=True
        )
    if vllm_python is not None and shutil.which(vllm_python) is None:
        raise JudgeDecodingError(f"There is no program {vllm_python}; name a Python with vLLM.")
    if draft is not None and draft_layers is not None:
        raise JudgeDecodingError("A draft is given by --draft and by --draft-layers; give one of them.")
    if draft is None and draft_layers is None and target != "reference":
        check_used(
            context, "Without --draft and --draft-layers", "--judge", "--num-draft-tokens", remedy="give one of the two"
        )
    if out is None:
        check_used(context, "Without --out", "--overwrite", remedy="name a folder")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    ready = _ready(
        task, data, (target, draft, judge), draft_layers, chat=chat, system=system, max_new_tokens=max_new_tokens,
        limit=prompts + tune, seed=seed, dtype=dtype, device=device,
    )  # fmt: skip
    chosen = Chosen(
        tune, tuple(sorted(set(batch_size or [1]))), tuple(num_draft_tokens or ()), repetitions,
        compiled=backend == "static", vllm_python=vllm_python, draft_layers=draft_layers,
    )  # fmt: skip
    results = _measure(ready, chosen)
    if out is not None:
        from judge_decoding.io.files import write_text
        from judge_decoding.report.bench import bench_markdown

        write_text(out / "bench.md", bench_markdown(results))
        write_text(out / "results.json", results.model_dump_json(indent=2, exclude_none=True) + "\n")
    if json:
        say_json(results.model_dump_json(indent=2, exclude_none=True))
        return
    from judge_decoding.cli.console import Terminal
    from judge_decoding.report.bench import show

    show(results, Terminal())
    if out is not None:
        say(f"\nFigures: {out / 'results.json'}\nTables: {out / 'bench.md'}")


def _ready(
    task: str,
    data: Path | None,
    models: tuple[str, str | None, str | None],
    draft_layers: int | None,
    **options: Any,  # noqa: ANN401  (those of prepare)
) -> Prepared:
    """The questions and models; the draft is made of the target where that is wanted."""
    from judge_decoding.cli.evaluation import prepare
    from judge_decoding.tasks import parse_task

    ready = prepare(parse_task(task), data, models, trained_on=(), backend="eager", temperature=0.0, **options)
    if draft_layers is None:
        return ready

    from judge_decoding.decoder import JudgeDecoder
    from judge_decoding.models.first_layers import first_layers

    decoder = ready.decoder
    short = first_layers(decoder.target, draft_layers)
    name = f"its first {draft_layers} layers"
    return replace(
        ready, decoder=JudgeDecoder(decoder.target, decoder.tokenizer, short, decoder.judge),
        names=ready.names | {"draft": name}, facts=ready.facts | {"draft": name},
    )  # fmt: skip


def _measure(ready: Prepared, chosen: Chosen) -> BenchResults:
    """All batch sizes."""
    from contextlib import ExitStack

    import torch

    from judge_decoding.cli.court_files import bar
    from judge_decoding.evaluation.bench.bench import bench
    from judge_decoding.evaluation.bench.results import BenchResults
    from judge_decoding.evaluation.evaluate import hash_of

    decoder = ready.decoder
    with ExitStack() as stack:
        found = bench(
            decoder, ready.asking, ready.items, tuning_items=chosen.tune, batch_sizes=chosen.batch_sizes,
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
    ready: Prepared,
    models: Models,
    best: Mapping[str, Way],
    chosen: Chosen,
    prompts: Sequence[Tensor],
    left_out: dict[str, str],
    stack: ExitStack,
) -> list[Way]:
    """Engines of vLLM without a draft, with it, and with the judge; ``left_out`` is told of what does not start."""
    import torch

    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.evaluation.bench.vllm import VLLM, Settings, interpreter
    from judge_decoding.evaluation.bench.ways import Label
    from judge_decoding.names import place_of
    from judge_decoding.reference import pair
    from judge_decoding.reference.wide import wide_draft

    if chosen.vllm_python is None:
        try:
            python = interpreter(None)
        except JudgeDecodingError as error:
            left_out["vllm"] = str(error).rstrip(".")
            return []
    else:
        python = interpreter(chosen.vllm_python)
    found: list[Way] = []
    settings = Settings(
        python, place_of(ready.names["target"], "target"), ready.facts["dtype"],
        context=len(prompts[-1]) + models.max_new_tokens + 64, rows=max(chosen.batch_sizes),
        max_new_tokens=models.max_new_tokens, end_ids=models.decoder.end_ids, threads=torch.get_num_threads(),
    )  # fmt: skip
    draft = place_of(ready.names["draft"] or None, "draft") if models.draft is not None else None
    if chosen.draft_layers is not None:
        draft, left_out["vllm with a draft"] = None, "it has no drafts made of the target's first layers"
    if draft == str(pair.DRAFT):
        _progress("Widening the embedded draft's attention heads for vLLM")
        draft = str(wide_draft(Path(stack.enter_context(TemporaryDirectory())) / "draft"))
    wanted = [("", settings)]
    for kind in ("exact", "judge"):
        if draft is not None and kind in best:
            judge = place_of(ready.names["judge"], "judge") if kind == "judge" else None
            length = best[kind].label.num_draft_tokens
            wanted.append((kind, replace(settings, draft=draft, num_draft_tokens=length, judge=judge)))
    for note, own in wanted:
        label = Label("vllm", num_draft_tokens=own.num_draft_tokens, note=note)
        _progress(f"Starting {label.name}")
        try:
            engine = VLLM(label, own)
            stack.callback(engine.close)
            engine.answer(prompts[-1:])  # some models start and then cannot decode
        except JudgeDecodingError as error:
            left_out[label.name] = str(error).rstrip(".")
        else:
            found.append(engine)
    return found


def _progress(text: str) -> None:
    say(f"{text} ...", err=True)
