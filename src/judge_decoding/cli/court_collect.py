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
from judge_decoding.cli.models import DtypeOption, check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.task_options import CODE_OPTIONS, NoSandbox, SandboxName, sandbox_spelling
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
    output: Annotated[Path, typer.Option("--output", "-o", help="TokenCourt file (JSONL) for the answers.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="Who answers: Hub name or folder, 'reference' or 'reference-draft' (the embedded pair), or "
            "'openai:NAME' for a model of the endpoint at OPENAI_BASE_URL; several times.",
        ),
    ],
    prompts: Annotated[
        Path | None, typer.Argument(help="Questions: JSONL, a TokenCourt file, or text with one a line.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Instead of a file: Hub name or folder of a data set.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of the data set.")] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    prompt_field: Annotated[
        str | None, typer.Option(help="Field of the question, such as turns.0; else question or prompt.")
    ] = None,
    reference_field: Annotated[
        str | None,
        typer.Option(help="Field of the right answer or of the unit tests; else reference, if there is one."),
    ] = None,
    reference_template: Annotated[
        str | None, typer.Option(help=r"The reference from several fields, such as '{test}\ncheck({entry_point})'.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help=r"The prompt from the fields, such as 'Q: {question}\nA:'.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt through the target's chat template.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Whose chat template; by default that of the first local model.")
    ] = None,
    system: Annotated[str, typer.Option(help="System message, with --chat and for endpoints.")] = "",
    raw: Annotated[
        bool, typer.Option("--raw", help="Endpoints complete the prompt as it is, instead of answering in a chat.")
    ] = False,
    checker: Annotated[
        str | None,
        typer.Option(help="Who says what is right: number, choice, exact, regex:PATTERN, tests, or a package's."),
    ] = None,
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="The checker tests may run the answers' code; see the docs.")
    ] = False,
    sandbox: SandboxName = None,
    no_sandbox: NoSandbox = False,
    samples: Annotated[int, typer.Option(help="Answers of each model to each question.")] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus; 1 is off.")] = 1.0,
    seed: Annotated[
        int | None, typer.Option(help="Other samples of local models; endpoints get a seed only with this.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Token budget of an answer.")] = 512,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the answer; several times.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first so many questions.")] = None,
    only_pairs: Annotated[
        bool, typer.Option("--pairs", help="Keep one right and one wrong answer of the questions that have both.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers of a local model that share a forward.")] = 8,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the endpoint at a time.")] = 8,
    retries: Annotated[int, typer.Option(min=0, help="How often a request is tried again.")] = 6,
    dtype: DtypeOption = "auto",
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Have models answer questions, and sort the answers right from wrong."""
    if (prompts is None) == (dataset is None):
        raise JudgeDecodingError("Give the questions as a file or with --dataset, one of the two.")
    check_dtype(dtype)
    if only_pairs and checker is None:
        raise JudgeDecodingError("Pairs of right and wrong answers need a checker; give one with --checker.")
    where = sandbox_spelling(sandbox, none=no_sandbox)
    check = None if checker is None else checker_of(checker, allow_code=allow_code_execution, sandbox=where)
    how = Answering(samples, temperature, top_p, seed, max_new_tokens, tuple(stop or ()), system)
    _check_used(context, model, dataset, checker, temperature, chat=chat, raw=raw)
    fields = Fields(prompt_field, reference_field, template, reference_template)
    models = list(dict.fromkeys(model))
    part = output.with_name(output.name + ".part")
    check_outputs(
        [output], [prompts, dataset, target, *models], overwrite=overwrite, work=[part], alone=(context, output),
        # With a ``.part`` file, the output is from a run of this command in which some requests failed.
        own=lambda: [output] if part.exists() else [],
    )  # fmt: skip
    writers = [
        _writer(
            name, how, chat=chat, raw=raw, batch_size=batch_size, concurrency=concurrency, retries=retries, dtype=dtype
        )
        for name in models
    ]
    rows = partial(file_rows, prompts) if prompts is not None else lambda _: dataset_rows(str(dataset), config, split)
    questions = read_prompts(str(prompts or dataset), rows, fields, _render(chat, target, models, how), limit)

    check_bound("requests", len(questions) * len(models) * samples, "The number of answers")
    settings = {
        "temperature": temperature, "top_p": top_p, "seed": seed, "max_new_tokens": max_new_tokens,
        "stop": list(how.stop), "system": system, "chat": chat, "raw": raw,
    }  # fmt: skip
    collected = core.CollectedAnswers(output, settings)
    wanted = {(question.prompt, name, i) for question in questions for name in models for i in range(samples)}
    there = len(wanted & collected.done.keys())
    if there:
        say(f"{there} of {len(wanted)} answers are there already.", err=True)
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
    write_cases(output, cases)
    if not failures:
        part.unlink(missing_ok=True)
    _report(found, failures, len(cases), output, json=json)


def _check_used(
    context: typer.Context,
    models: Sequence[str],
    dataset: str | None,
    checker: str | None,
    temperature: float,
    *,
    chat: bool,
    raw: bool,
) -> None:
    """Refuse options without effect for these models, questions and checker."""
    far = [name for name in models if name.startswith(PREFIX)]
    if not far:
        name_one = f"name a model as {PREFIX}NAME"
        check_used(context, "Without an endpoint", "--raw", "--concurrency", "--retries", remedy=name_one)
        if not temperature:
            check_used(context, "At temperature 0", "--top-p", "--seed", remedy="give a --temperature")
    if len(far) == len(models):
        check_used(context, "Without a local model", "--batch-size", "--dtype", remedy="name one with --model")
    if not chat and (raw or not far):
        check_used(context, "Where there is no chat", "--system", remedy="add --chat")
    if dataset is None:
        check_used(context, "Without --dataset", "--config", "--split", remedy="name a data set")
    elif (Path(dataset) / "dataset_dict.json").exists():
        check_used(context, "For a data set that was saved to a folder", "--config")
    elif (Path(dataset) / "state.json").exists():
        check_used(context, "For a split that was saved to a folder", "--config", "--split")
    if checker != "tests":
        check_used(context, "Without --checker tests", *CODE_OPTIONS)


def _writer(
    name: str, how: Answering, *, chat: bool, raw: bool, batch_size: int, concurrency: int, retries: int, dtype: str
) -> Writer:
    if name.startswith(PREFIX):
        endpoint = Endpoint(name.removeprefix(PREFIX), concurrency=concurrency, retries=retries)
        return EndpointWriter(name, endpoint, how, raw)
    from judge_decoding.labelling.local_writer import LocalWriter  # noqa: PLC0415  (loads torch)

    return LocalWriter(name, embedded_path(name, "target"), how, chat, batch_size, dtype)


def _render(chat: bool, target: str | None, models: Sequence[str], how: Answering) -> Callable[[str], str] | None:
    """Return the function from a question to the whole prompt if a chat template is used, else None."""
    if not chat:
        if target is not None:
            raise JudgeDecodingError(
                "The target's chat template is used with --chat only; add it, or leave --target out."
            )
        return None
    local = target or next((name for name in models if not name.startswith(PREFIX)), None)
    if local is None:
        raise JudgeDecodingError(
            "There is no local model whose chat template makes the prompts; name one with --target."
        )

    from judge_decoding.cli.run.rendering import renderer  # noqa: PLC0415  (loads torch)

    render = renderer(local)
    return lambda text: render(how.messages(text))


def _report(
    found: CheckedCases, failures: Mapping[str, Sequence[str]], cases: int, output: Path, *, json: bool
) -> None:
    for name, reasons in failures.items():
        warn(
            f"{len(reasons)} answers of {name} failed, the first one because {reasons[0].rstrip('.')}; the same "
            f"command tries them again, or remove {output}.part."
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
    say(f"{cases} cases written to {output}; {found.duplicates} duplicates left out.")
