"""``judge-decoding bench``: the speed of every decoding method on this machine, side by side."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.models import Device, DtypeOption
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.task_options import BudgetOption, Chat, Data, Json, JudgeOption, Seed, System
from judge_decoding.errors import JudgeDecodingError


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
    judge: JudgeOption = None,
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
    max_new_tokens: BudgetOption = None,
    seed: Seed = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; else its own choice.")] = None,
    backend: Annotated[str, typer.Option(help="static measures both of ours; eager compiles nothing.")] = "static",
    vllm_python: Annotated[
        str | None, typer.Option(help="A Python with vLLM, to be measured beside; else this one, if it has it.")
    ] = None,
    dtype: DtypeOption = "auto",
    device: Device = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for results.json and bench.md.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure ways of decoding side by side: tokens per second, accepted draft tokens, and whose tokens differ.

    In turns, in one process, on the same prompts: plain and assisted generation of transformers, and ours without a
    draft, by standard verification and with the judge. docs/performance.md explains every column.
    """
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
    from judge_decoding.cli.run.bench import run  # noqa: PLC0415  (loads torch)

    run(
        task, target, draft, draft_layers, judge, num_draft_tokens, batch_size, repetitions, prompts, tune, data,
        chat, system, max_new_tokens, seed, threads, backend, vllm_python, dtype, device, out, json=json,
    )  # fmt: skip
