"""``judge-decoding court collect``: from prompts to right and wrong answers."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.bounds import check_bound
from judge_decoding.cli.court_files import bar, read_prompts
from judge_decoding.cli.decoding_options import FixedBudget, OptionalSeed, StopOption, Temperature, TopP
from judge_decoding.cli.models import BatchSize, Concurrency, Device, DtypeOption, Retries, check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Cases, Json, Overwrite, check_outputs
from judge_decoding.cli.panels import MODELS, TASK, TRAINING
from judge_decoding.cli.task_options import (
    CODE_OPTIONS,
    AllowCode,
    AnyChecker,
    Chat,
    Limit,
    NoSandbox,
    PromptField,
    ReferenceField,
    SandboxName,
    System,
    Template,
    sandbox_spelling,
)
from judge_decoding.cli.terminal import say, say_json, warn
from judge_decoding.data.cases import write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import PREFIX, Endpoint
from judge_decoding.io.questions import Fields, dataset_rows, file_rows
from judge_decoding.labelling import collect as core
from judge_decoding.labelling.collect import Answering, CheckedCases, Writer
from judge_decoding.labelling.writers import EndpointWriter
from judge_decoding.names import embedded_path
from judge_decoding.tasks.checkers import checker_of


def collect(
    context: typer.Context,
    out: Cases,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="Model that answers: Hub name or folder, 'reference' or 'reference-draft' (the embedded pair), or "
            "'openai:NAME' for a model at the endpoint OPENAI_BASE_URL. Repeatable.",
            rich_help_panel=MODELS,
        ),
    ],
    prompts: Annotated[
        Path | None, typer.Argument(help="Questions: JSONL, a TokenCourt file, or text, one per line.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set, instead of a file: Hub name or folder.", rich_help_panel=TASK),
    ] = None,
    dataset_config: Annotated[
        str | None, typer.Option(help="Configuration of the data set.", rich_help_panel=TASK)
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.", rich_help_panel=TASK)] = "train",
    prompt_field: PromptField = None,
    reference_field: ReferenceField = None,
    reference_template: Annotated[
        str | None,
        typer.Option(
            help=r"Reference template from several fields, such as '{test}\ncheck({entry_point})'.",
            rich_help_panel=TASK,
        ),
    ] = None,
    template: Template = None,
    chat: Chat = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Model whose chat template is used; by default the first local model.", rich_help_panel=MODELS
        ),
    ] = None,
    system: System = "",
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="Endpoints complete the prompt as it is, instead of answering in a chat.",
            rich_help_panel=TASK,
        ),
    ] = False,
    checker: AnyChecker = None,
    allow_code_execution: AllowCode = False,
    sandbox: SandboxName = None,
    no_sandbox: NoSandbox = False,
    samples: Annotated[int, typer.Option(help="Answers per model and question.", rich_help_panel=TRAINING)] = 1,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    seed: OptionalSeed = None,
    max_new_tokens: FixedBudget = 512,
    stop: StopOption = None,
    limit: Limit = None,
    only_pairs: Annotated[
        bool,
        typer.Option(
            "--pairs",
            help="Keep one correct and one wrong answer of each question that has both.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    batch_size: BatchSize = 8,
    concurrency: Concurrency = 8,
    retries: Retries = 6,
    dtype: DtypeOption = "auto",
    device: Device = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Let models answer questions, and sort the answers into correct and wrong."""
    if (prompts is None) == (dataset is None):
        raise JudgeDecodingError("Give the questions as a file or with --dataset, one of the two.")
    check_dtype(dtype)
    if only_pairs and checker is None:
        raise JudgeDecodingError("Pairs of right and wrong answers need a checker; give one with --checker.")
    where = sandbox_spelling(sandbox, none=no_sandbox)
    check = None if checker is None else checker_of(checker, allow_code=allow_code_execution, sandbox=where)
    top_p = 1.0 if top_p is None else top_p
    how = Answering(samples, temperature, top_p, seed, max_new_tokens, tuple(stop or ()), system)
    _check_used(context, model, dataset, checker, temperature)
    fields = Fields(prompt_field, reference_field, template, reference_template)
    models = list(dict.fromkeys(model))
    part = out.with_name(out.name + ".part")
    check_outputs(
        [out], [prompts, dataset, target, *models], overwrite=overwrite, work=[part], alone=(context, out),
        # With a ``.part`` file, the output is from a run of this command in which some requests failed.
        own=lambda: [out] if part.exists() else [],
    )  # fmt: skip
    render = _render(chat, target, models, how, template)
    if render is None and (raw or not any(name.startswith(PREFIX) for name in models)):
        check_used(context, "Where there is no chat", "--system", remedy="use a chat template")
    writers = [
        _writer(
            name,
            how,
            chat=render is not None,
            raw=raw,
            batch_size=batch_size,
            concurrency=concurrency,
            retries=retries,
            dtype=dtype,
            device=device,
        )
        for name in models
    ]
    rows = (
        partial(file_rows, prompts)
        if prompts is not None
        else lambda _: dataset_rows(str(dataset), dataset_config, split)
    )
    questions = read_prompts(str(prompts or dataset), rows, fields, render, limit)

    check_bound("requests", len(questions) * len(models) * samples, "The number of answers")
    settings = {
        "temperature": temperature, "top_p": top_p, "seed": seed, "max_new_tokens": max_new_tokens,
        "stop": list(how.stop), "system": system, "chat": render is not None, "raw": raw,
    }  # fmt: skip
    collected = core.CollectedAnswers(out, settings)
    wanted = {(question.prompt, name, i) for question in questions for name in models for i in range(samples)}
    there = len(wanted & collected.done.keys())
    if there:
        say(f"{there} of {len(wanted)} answers already exist.", err=True)
    with bar("answering", len(wanted), there) as advance:
        failures = core.collect(questions, writers, samples, collected, advance)
    workers = len(os.sched_getaffinity(0)) if checker == "tests" and hasattr(os, "sched_getaffinity") else 1
    with bar("checking", len(wanted & collected.done.keys())) as advance:
        found = core.sort_answers(questions, models, samples, collected, check, workers=workers, progress=advance)
    if not found.cases:
        reason = next((reasons[0] for reasons in failures.values()), "there was none").rstrip(".")
        raise JudgeDecodingError(f"No question was answered: {reason}.")
    cases = core.pairs(found.cases) if only_pairs else found.cases
    if not cases:
        raise JudgeDecodingError(
            "No question has a right and a wrong answer; take more samples at a higher temperature, or leave out "
            f"--pairs. The answers are kept in {part}."
        )
    write_cases(out, cases)
    if not failures:
        part.unlink(missing_ok=True)
    _report(found, failures, len(cases), out, json=json)


def _check_used(
    context: typer.Context,
    models: Sequence[str],
    dataset: str | None,
    checker: str | None,
    temperature: float,
) -> None:
    """Refuse options without effect for these models, questions and checker."""
    far = [name for name in models if name.startswith(PREFIX)]
    if not far:
        name_one = f"give a model as {PREFIX}NAME"
        check_used(context, "Without an endpoint", "--raw", "--concurrency", "--retries", remedy=name_one)
        if not temperature:
            check_used(context, "At temperature 0", "--top-p", "--seed", remedy="give a --temperature")
    if len(far) == len(models):
        check_used(context, "Without a local model", "--batch-size", "--dtype", remedy="give one with --model")
    if dataset is None:
        check_used(context, "Without --dataset", "--dataset-config", "--split", remedy="give a data set")
    elif (Path(dataset) / "dataset_dict.json").exists():
        check_used(context, "For a data set that was saved to a folder", "--dataset-config")
    elif (Path(dataset) / "state.json").exists():
        check_used(context, "For a split that was saved to a folder", "--dataset-config", "--split")
    if checker != "tests":
        check_used(context, "Without --checker tests", *CODE_OPTIONS)


def _writer(
    name: str,
    how: Answering,
    *,
    chat: bool,
    raw: bool,
    batch_size: int,
    concurrency: int,
    retries: int,
    dtype: str,
    device: str | None,
) -> Writer:
    if name.startswith(PREFIX):
        endpoint = Endpoint(name.removeprefix(PREFIX), concurrency=concurrency, retries=retries)
        return EndpointWriter(name, endpoint, how, raw)
    from judge_decoding.labelling.local_writer import LocalWriter  # noqa: PLC0415  (loads torch)

    return LocalWriter(name, embedded_path(name, "target"), how, chat, batch_size, dtype, device)


def _render(
    chat: bool | None, target: str | None, models: Sequence[str], how: Answering, template: str | None
) -> Callable[[str], str] | None:
    """Return the function from a question to the whole prompt if a chat template is used, else None."""
    if chat is False:
        if target is not None:
            raise JudgeDecodingError("--target names the model of the chat template; leave it or --no-chat out.")
        return None
    local = target or next((name for name in models if not name.startswith(PREFIX)), None)
    if local is None:
        if not chat:
            return None
        raise JudgeDecodingError(
            "There is no local model whose chat template makes the prompts; give one with --target."
        )

    from judge_decoding.cli.run.rendering import renderer  # noqa: PLC0415  (loads torch)

    render = renderer(chat, local, template)
    return None if render is None else lambda text: render(how.messages(text))


def _report(found: CheckedCases, failures: Mapping[str, Sequence[str]], cases: int, out: Path, *, json: bool) -> None:
    for name, reasons in failures.items():
        warn(
            f"{len(reasons)} answers of {name} failed, the first because {reasons[0].rstrip('.')}; the same "
            f"command tries them again, or remove {out}.part."
        )
    models = {name: asdict(tally) | {"failed": len(failures.get(name, ()))} for name, tally in found.tallies.items()}
    if json:
        told = {"models": models, "duplicates": found.duplicates, "cases": cases}
        say_json(json_module.dumps(told, indent=2, ensure_ascii=False))
        return
    for name, row in models.items():
        figures = ", ".join(
            f"{count} {what.replace('_', ' ')}" for what, count in row.items() if count or what == "answers"
        )
        say(f"{name}: {figures}")
    say(f"{cases} cases written to {out}; {found.duplicates} duplicates left out.")
