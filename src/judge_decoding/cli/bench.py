"""``judge-decoding bench``: how fast every way of decoding is on this machine, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge_decoding.cli.task_options import Budget, Chat, Data, Device, Dtype, Json, Judge, Overwrite, Seed, System

if TYPE_CHECKING:
    from collections.abc import Sequence

    from judge_decoding.cli.evaluation import Prepared
    from judge_decoding.evaluation.bench.results import BenchResults


def bench(
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
    dtype: Dtype = "auto",
    device: Device = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for results.json and bench.md.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure ways of decoding side by side: tokens per second, where the time goes, how near that is to the limit.

    Plain and assisted generation of transformers, and ours without a draft, by standard verification and with the judge,
    in turns in one process, on the same prompts. docs/performance.md explains every column.
    """
    from judge_decoding.cli.evaluation import check_out
    from judge_decoding.decoding.engines import check_backend
    from judge_decoding.errors import JudgeDecodingError

    check_backend(backend)
    if out is not None:
        check_out(out / "bench.md", out / "results.json", overwrite=overwrite)
    if draft is not None and draft_layers is not None:
        raise JudgeDecodingError("A draft is given by --draft and by --draft-layers; give one of them.")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    ready = _ready(
        task, data, (target, draft, judge), draft_layers, chat=chat, system=system, max_new_tokens=max_new_tokens,
        limit=prompts + tune, seed=seed, dtype=dtype, device=device,
    )  # fmt: skip
    results = _measure(
        ready, tune, sorted(set(batch_size or [1])), num_draft_tokens or [], repetitions, compiled=backend == "static"
    )
    if out is not None:
        from judge_decoding.files import write_text

        write_text(out / "results.json", results.model_dump_json(indent=2, exclude_none=True) + "\n")
    if json:
        typer.echo(results.model_dump_json(indent=2, exclude_none=True))
        return
    typer.echo(results.model_dump_json(indent=2, exclude_none=True))


def _ready(
    task: str,
    data: Path | None,
    models: tuple[str, str | None, str | None],
    draft_layers: int | None,
    **options: object,
) -> Prepared:
    """The questions and models; the draft is made of the target where that is wanted."""
    from dataclasses import replace

    from judge_decoding.cli.evaluation import prepare

    target, draft, judge = models
    if draft_layers is not None:
        draft = None
    ready = prepare(task, data, (target, draft, judge), allow_code=False, trained_on=(), temperature=0.0, **options)  # type: ignore[arg-type]  # those of prepare
    if draft_layers is None:
        return ready

    from judge_decoding.decoding.decoder import JudgeDecoder
    from judge_decoding.decoding.first_layers import first_layers

    decoder = ready.decoder
    short = first_layers(decoder.target, draft_layers)
    decoder = JudgeDecoder(decoder.target, decoder.tokenizer, short, decoder.judge)
    name = f"its first {draft_layers} layers"
    return replace(ready, decoder=decoder, names=ready.names | {"draft": name}, facts=ready.facts | {"draft": name})


def _measure(
    ready: Prepared, tune: int, batch_sizes: Sequence[int], equal: Sequence[int], repetitions: int, *, compiled: bool
) -> BenchResults:
    """All batch sizes."""
    import torch

    from judge_decoding.cli.court_files import bar
    from judge_decoding.decoding.choices import room
    from judge_decoding.evaluation.bench import plan
    from judge_decoding.evaluation.bench.limits import BareCalls, measure_machine
    from judge_decoding.evaluation.bench.results import BenchResults
    from judge_decoding.evaluation.bench.run import TUNING_REPETITIONS, alone, choose, run
    from judge_decoding.evaluation.evaluate import hash_of
    from judge_decoding.evaluation.sweep import split

    decoder = ready.decoder
    tuning, items = split(ready.items, tune)
    ids = {item.key: decoder.encode(ready.asking.prompt(item))[0] for item in ready.items}
    budget = min([ready.asking.budget, *(room(len(own), decoder.target, decoder.draft) for own in ids.values())])

    def progress(text: str) -> None:
        typer.echo(f"{text} ...", err=True)

    left_out: dict[str, str] = {}
    models, calls = plan.Models(decoder, budget), None
    if compiled:
        models, reason = plan.Models.of(decoder, budget, progress)
        if reason:
            left_out["static"] = reason
        else:
            head = decoder.judge
            places = {(head.config.norm, head.config.layer)} if head is not None else set()
            calls = BareCalls(decoder.target, models.draft, places, progress)
    progress("Measuring what the machine can do")
    machine = measure_machine(decoder.target.device, decoder.target.dtype)
    measured = sorted((ids[item.key] for item in items), key=len)
    tuned = sorted((ids[item.key] for item in tuning), key=len)
    expected = alone(models, measured)
    rows, ratios = [], []
    for size in batch_sizes:
        kinds = plan.candidates(models, size)
        with bar(
            f"choosing draft lengths, batch {size}", sum(map(len, kinds.values())) * (TUNING_REPETITIONS + 1)
        ) as on:
            best = choose(models, tuned, size, advance=on)
        wanted = plan.ways(models, best, equal)
        with bar(f"measuring, batch {size}", len(wanted) * (repetitions + 1)) as on:
            some, more = run(
                models, wanted, measured, expected, calls, machine, batch_size=size, repetitions=repetitions,
                advance=on,
            )  # fmt: skip
        rows += some
        ratios += more
        if size > 1 and models.draft is not None:
            left_out[f"assisted, batch {size}"] = "transformers assists one prompt at a time"
    facts = {name: value for name, value in ready.facts.items() if name in BenchResults.model_fields}
    return BenchResults(
        **facts | {"data_hash": hash_of(items), "max_new_tokens": budget}, prompts=len(items), tuned_on=len(tuning),
        repetitions=repetitions, threads=torch.get_num_threads(), bandwidth=machine.bandwidth,
        peak_flops=machine.flops, rows=tuple(rows), comparisons=tuple(ratios), left_out=left_out,
    )  # fmt: skip
