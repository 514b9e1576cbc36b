"""``judge-decoding bench``: the speed of every decoding method on this machine, side by side."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.decoding_options import BudgetOption, DraftLengths, Seed, Tune
from judge_decoding.cli.models import (
    BatchSizes,
    Device,
    DraftOption,
    DtypeOption,
    FirstLayers,
    JudgeOption,
    Target,
    Translate,
)
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Json, Overwrite, check_outputs, out_option
from judge_decoding.cli.panels import RUN
from judge_decoding.cli.task_options import Chat, Data, DrawnOf, System, TaskName
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.files import RUN_FILE


def bench(
    context: typer.Context,
    task: TaskName = "arithmetic",
    target: Target = "reference",
    draft: DraftOption = None,
    draft_layers: FirstLayers = None,
    translate: Translate = False,
    judge: JudgeOption = None,
    num_draft_tokens: DraftLengths = None,
    batch_size: BatchSizes = None,
    repetitions: Annotated[
        int, typer.Option(min=1, help="Measurements of everything, after a warm-up.", rich_help_panel=RUN)
    ] = 5,
    limit: DrawnOf = 16,
    tune: Tune = 6,
    data: Data = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: BudgetOption = None,
    seed: Seed = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch; by default its own choice.", rich_help_panel=RUN)
    ] = None,
    backend: Annotated[
        str, typer.Option(help="static measures both back ends; eager compiles nothing.", rich_help_panel=RUN)
    ] = "static",
    vllm_python: Annotated[
        str | None,
        typer.Option(
            help="Python interpreter with vLLM, to be measured too; by default this one if it has vLLM.",
            rich_help_panel=RUN,
        ),
    ] = None,
    dtype: DtypeOption = "auto",
    device: Device = None,
    out: Annotated[Path | None, out_option("Folder for results.json and bench.md.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Compare decoding methods: tokens per second, accepted draft tokens, and whether their tokens differ.

    Plain and assisted generation of transformers, and this package's decoding without a draft, by standard verification
    and with the judge take turns in one process on the same prompts. docs/performance.md explains every column.
    """
    if out is not None:
        check_outputs(
            [out / "results.json", out / "bench.md", out / RUN_FILE],
            [data, target, draft, judge],
            overwrite=overwrite,
            folder=True,
        )
    if vllm_python is not None and shutil.which(vllm_python) is None:
        raise JudgeDecodingError(f"There is no program {vllm_python}; give a Python with vLLM.")
    if draft is not None and draft_layers is not None:
        raise JudgeDecodingError("A draft is given by --draft and by --draft-layers; give one of them.")
    if draft is None and draft_layers is None and target != "reference":
        check_used(
            context, "Without --draft and --draft-layers", "--judge", "--num-draft-tokens", remedy="give one of the two"
        )
    if out is None:
        check_used(context, "Without --out", "--overwrite", remedy="give a folder")
    from judge_decoding.cli.run.bench import run  # noqa: PLC0415  (loads torch)

    run(
        context, task, target, draft, draft_layers, judge, num_draft_tokens, batch_size, repetitions, limit, tune, data,
        chat, system, max_new_tokens, seed, threads, backend, vllm_python, dtype, device, out,
        translate=translate, json=json,
    )  # fmt: skip
