"""``judge-decoding court collect``: from prompts to right and wrong answers."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.bounds import check_bound
from judge_decoding.cli import options
from judge_decoding.cli.checks import check_dtype, check_used, sandbox_spelling
from judge_decoding.cli.options import MODELS, TASK, TRAINING, option
from judge_decoding.cli.outputs import check_resumable
from judge_decoding.cli.shared import bar, read_prompts
from judge_decoding.cli.terminal import say, say_json, warn
from judge_decoding.data.cases import write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import PREFIX, Endpoint
from judge_decoding.io.questions import Fields, Rows, dataset_rows, file_rows
from judge_decoding.labelling.collect import (
    Answering,
    CheckedCases,
    CollectedAnswers,
    EndpointWriter,
    Writer,
    collect,
    pairs,
    sort_answers,
)
from judge_decoding.names import embedded_path
from judge_decoding.tasks.checkers import checker_of


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """Let models answer questions, and sort the answers into correct and wrong."""

    context: typer.Context
    out: options.Cases
    model: Annotated[
        list[str],
        option(
            MODELS,
            "Model that answers: Hub name or folder, 'reference' or 'reference-draft' (the embedded pair), or "
            "'openai:NAME' for a model at the endpoint OPENAI_BASE_URL. Repeatable.",
            "--model",
            "-m",
        ),
    ]
    prompts: Annotated[
        Path | None, typer.Argument(help="Questions: JSONL, a TokenCourt file, or text, one per line.")
    ] = None
    dataset: Annotated[str | None, option(TASK, "Data set, instead of a file: Hub name or folder.")] = None
    dataset_config: Annotated[str | None, option(TASK, "Configuration of the data set.")] = None
    split: Annotated[str, option(TASK, "Split of the data set.")] = "train"
    prompt_field: options.PromptField = None
    reference_field: options.ReferenceField = None
    reference_template: Annotated[
        str | None,
        option(TASK, r"Reference template from several fields, such as '{test}\ncheck({entry_point})'."),
    ] = None
    template: options.Template = None
    chat: options.Chat = None
    target: Annotated[
        str | None, option(MODELS, "Model whose chat template is used; by default the first local model.")
    ] = None
    system: options.System = ""
    raw: Annotated[
        bool, option(TASK, "Endpoints complete the prompt as it is, instead of answering in a chat.", "--raw")
    ] = False
    checker: options.AnyChecker = None
    allow_code_execution: options.AllowCode = False
    sandbox: options.SandboxName = None
    no_sandbox: options.NoSandbox = False
    samples: Annotated[int, option(TRAINING, "Answers per model and question.")] = 1
    temperature: options.Temperature = 0.0
    top_p: options.TopP = None
    seed: options.OptionalSeed = None
    max_new_tokens: options.FixedBudget = 512
    stop: options.StopOption = None
    limit: options.Limit = None
    only_pairs: Annotated[
        bool,
        option(TRAINING, "Keep one correct and one wrong answer of each question that has both.", "--pairs"),
    ] = False
    batch_size: options.BatchSize = 8
    concurrency: options.Concurrency = 8
    retries: options.Retries = 6
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    overwrite: options.Overwrite = False
    json: options.Json = False

    def run(self) -> None:
        """Collect the answers."""
        if (self.prompts is None) == (self.dataset is None):
            raise JudgeDecodingError("Give the questions as a file or with --dataset, one of the two.")
        check_dtype(self.dtype)
        if self.only_pairs and self.checker is None:
            raise JudgeDecodingError("Pairs of right and wrong answers need a checker; give one with --checker.")
        check = None
        sandbox = sandbox_spelling(self.sandbox, none=self.no_sandbox)
        if self.checker is not None:
            check = checker_of(self.checker, allow_code=self.allow_code_execution, sandbox=sandbox)
        top_p = 1.0 if self.top_p is None else self.top_p
        how = Answering(
            self.samples, self.temperature, top_p, self.seed, self.max_new_tokens, tuple(self.stop or ()), self.system
        )
        models = list(dict.fromkeys(self.model))
        self._check_used(models)
        fields = Fields(self.prompt_field, self.reference_field, self.template, self.reference_template)
        inputs = [self.prompts, self.dataset, self.target, *models]
        part = check_resumable(self.context, self.out, inputs, overwrite=self.overwrite)
        render = self._render(models, how)
        if render is None and (self.raw or not any(name.startswith(PREFIX) for name in models)):
            check_used(self.context, "Where there is no chat", "--system", remedy="use a chat template")
        writers = {name: self._writer(name, how, chat=render is not None) for name in models}
        questions = read_prompts(str(self.prompts or self.dataset), self._rows, fields, render, self.limit)

        check_bound("requests", len(questions) * len(models) * self.samples, "The number of answers")
        settings = {
            "temperature": how.temperature, "top_p": top_p, "seed": how.seed, "max_new_tokens": how.max_new_tokens,
            "stop": list(how.stop), "system": how.system, "chat": render is not None, "raw": self.raw,
        }  # fmt: skip
        collected = CollectedAnswers(self.out, settings)
        wanted = {(question.prompt, name, i) for question in questions for name in models for i in range(self.samples)}
        there = len(wanted & collected.done.keys())
        if there:
            say(f"{there} of {len(wanted)} answers already exist.", err=True)
        with bar("answering", len(wanted), there) as advance:
            failures = collect(questions, writers, self.samples, collected, advance)
        parallel = self.checker == "tests" and hasattr(os, "sched_getaffinity")
        with bar("checking", len(wanted & collected.done.keys())) as advance:
            found = sort_answers(
                questions, models, self.samples, collected, check,
                workers=len(os.sched_getaffinity(0)) if parallel else 1, progress=advance,
            )  # fmt: skip
        if not found.cases:
            reason = next((reasons[0] for reasons in failures.values()), "there was none").rstrip(".")
            raise JudgeDecodingError(f"No question was answered: {reason}.")
        cases = pairs(found.cases) if self.only_pairs else found.cases
        if not cases:
            raise JudgeDecodingError(
                "No question has a right and a wrong answer; take more samples at a higher temperature, or leave out "
                f"--pairs. The answers are kept in {part}."
            )
        write_cases(self.out, cases)
        if not failures:
            part.unlink(missing_ok=True)
        _report(found, failures, len(cases), self.out, json=self.json)

    def _check_used(self, models: Sequence[str]) -> None:
        """Refuse options without effect for these models, questions and checker."""
        context, far = self.context, [name for name in models if name.startswith(PREFIX)]
        if not far:
            name_one = f"give a model as {PREFIX}NAME"
            check_used(context, "Without an endpoint", "--raw", "--concurrency", "--retries", remedy=name_one)
            if not self.temperature:
                check_used(context, "At temperature 0", "--top-p", "--seed", remedy="give a --temperature")
        if len(far) == len(models):
            check_used(context, "Without a local model", "--batch-size", "--dtype", remedy="give one with --model")
        if self.dataset is None:
            check_used(context, "Without --dataset", "--dataset-config", "--split", remedy="give a data set")
        elif (Path(self.dataset) / "dataset_dict.json").exists():
            check_used(context, "For a data set that was saved to a folder", "--dataset-config")
        elif (Path(self.dataset) / "state.json").exists():
            check_used(context, "For a split that was saved to a folder", "--dataset-config", "--split")
        if self.checker != "tests":
            check_used(context, "Without --checker tests", *options.CODE_OPTIONS)

    def _rows(self, on_bad: Callable[[str], None]) -> Rows:
        if self.prompts is not None:
            return file_rows(self.prompts, on_bad)
        return dataset_rows(str(self.dataset), self.dataset_config, self.split)

    def _writer(self, name: str, how: Answering, *, chat: bool) -> Writer:
        if name.startswith(PREFIX):
            endpoint = Endpoint(name.removeprefix(PREFIX), concurrency=self.concurrency, retries=self.retries)
            return EndpointWriter(endpoint, how, self.raw).write
        from judge_decoding.labelling.local_writer import LocalWriter  # noqa: PLC0415  (loads torch)

        model = embedded_path(name, "target")
        return LocalWriter(model, how, chat, self.batch_size, self.dtype, self.device).write

    def _render(self, models: Sequence[str], how: Answering) -> Callable[[str], str] | None:
        """Return the function from a question to the whole prompt if a chat template is used, else None."""
        if self.chat is False:
            if self.target is not None:
                raise JudgeDecodingError("--target names the model of the chat template; leave it or --no-chat out.")
            return None
        local = self.target or next((name for name in models if not name.startswith(PREFIX)), None)
        if local is None:
            if not self.chat:
                return None
            raise JudgeDecodingError(
                "There is no local model whose chat template makes the prompts; give one with --target."
            )
        from judge_decoding.cli.run.models import renderer  # noqa: PLC0415  (loads torch)

        render = renderer(self.chat, local, self.template)
        return None if render is None else lambda text: render(how.messages(text))


def _report(found: CheckedCases, failures: Mapping[str, Sequence[str]], cases: int, out: Path, *, json: bool) -> None:
    for name, reasons in failures.items():
        warn(
            f"{len(reasons)} answers of {name} failed, the first because {reasons[0].rstrip('.')}; the same "
            f"command tries them again, or remove {out}.part."
        )
    models = {name: asdict(tally) | {"failed": len(failures.get(name, ()))} for name, tally in found.tallies.items()}
    if json:
        summary = {"models": models, "duplicates": found.duplicates, "cases": cases}
        say_json(json_module.dumps(summary, indent=2, ensure_ascii=False))
        return
    for name, row in models.items():
        figures = ", ".join(
            f"{count} {what.replace('_', ' ')}" for what, count in row.items() if count or what == "answers"
        )
        say(f"{name}: {figures}")
    say(f"{cases} cases written to {out}; {found.duplicates} duplicates left out.")
