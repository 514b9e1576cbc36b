"""``judge-decoding sweep``: rules, settings and draft lengths over a task, with the baselines one would ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge_decoding.cli.models import Backend, Device
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.task_options import (
    AllowCode,
    Budget,
    Chat,
    Data,
    Dtype,
    Grader,
    Json,
    Judge,
    Limit,
    Margin,
    NoSandbox,
    SandboxName,
    Seed,
    System,
    Target,
    TaskName,
    TrainedOn,
    sandbox_spelling,
)
from judge_decoding.cli.terminal import say, say_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from judge_decoding.evaluation.record import Record
    from judge_decoding.evaluation.sweep import Candidate
    from judge_decoding.tasks.base import Item


def sweep(
    context: typer.Context,
    task: TaskName,
    target: Target,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json, answers.jsonl and sweep.html.")],
    draft: Annotated[str | None, typer.Option(help="Draft model, or 'prompt-lookup'.")] = None,
    judge: Judge = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="A verification rule beside the usual ones, such as 'relaxed(n=10)'; several times."),
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option(help="Thresholds of the judge beside its own; several times.")
    ] = None,
    num_draft_tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Draft lengths to choose from; several times.")
    ] = None,
    tune: Annotated[
        int, typer.Option(min=1, help="Items on which each method's draft length is chosen; none with --every-length.")
    ] = 10,
    every_length: Annotated[
        bool, typer.Option("--every-length", help="A row for each draft length, in place of a choice among them.")
    ] = False,
    data: Data = None,
    limit: Limit = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: Budget = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy; matched baselines then sample at 1.")] = 0.0,
    seed: Seed = 0,
    margin: Margin = 2.0,
    grader: Grader = None,
    trained_on: TrainedOn = None,
    allow_code_execution: AllowCode = False,
    sandbox: SandboxName = None,
    no_sandbox: NoSandbox = False,
    dtype: Dtype = "auto",
    device: Device = None,
    backend: Backend = "eager",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Compare rules, settings and draft lengths on a task: accuracy against speed, with intervals.

    Always among them: standard speculative decoding, top-k, typical acceptance, KL, and the target sampled under the
    same truncation without loss. A stopped run goes on where it was.
    """
    from judge_decoding.cli.evaluation import checked_task, prepare, rule_check, running, tell
    from judge_decoding.cli.grading import grade_answers, means
    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.names import REFERENCE
    from judge_decoding.report.plots import check_plots

    results, page, answers = out / "results.json", out / "sweep.html", out / "answers.jsonl"
    others, part = [page, answers, out / "sweep.svg", out / "grades.jsonl"], out / "results.json.part"
    check_outputs(
        [results, *others], [data, target, draft, judge, *(trained_on or ())], overwrite=overwrite, folder=True,
        work=[part, out / "grades.jsonl.part"], alone=(context, results), own=lambda: others if part.exists() else [],
    )  # fmt: skip
    if target != REFERENCE:
        if draft is None:
            raise JudgeDecodingError("A sweep compares ways to verify a draft; name a draft model with --draft.")
        if judge is None:
            check_used(context, "Without --judge", "--threshold", remedy="give a judge head")
    if every_length:
        check_used(context, "With --every-length", "--tune")
    where = sandbox_spelling(sandbox, none=no_sandbox)
    asked = checked_task(context, task, grader, allow_code=allow_code_execution, sandbox=where)
    if asked.scoring == "check":
        check_plots()
    ready = prepare(
        asked, data, (target, draft, judge), chat=chat, system=system, max_new_tokens=max_new_tokens, limit=limit,
        seed=seed, trained_on=trained_on or (), dtype=dtype, device=device,
        backend=backend,
        temperature=temperature, check=rule_check(rule or []),
    )  # fmt: skip
    decoder = ready.decoder

    from judge_decoding.core.results import Results, with_grades
    from judge_decoding.decoding.sampling import SamplingParams
    from judge_decoding.evaluation import sweep as core
    from judge_decoding.evaluation.evaluate import hash_of
    from judge_decoding.evaluation.record import Record
    from judge_decoding.io.files import write_text
    from judge_decoding.report.plots import pareto_svg
    from judge_decoding.report.results_page import results_page
    from judge_decoding.rules import parse_rule

    rules = core.usual_rules(decoder, tuple(threshold) if threshold else core.THRESHOLDS)
    rules += [parse_rule(spelling, decoder.judge) for spelling in rule or []]
    lengths = sorted(set(num_draft_tokens or core.LENGTHS))
    # All methods answer in turns, and one whose draft length was chosen anew would have answers with two.
    settings = {
        "seed": seed, "rule": rule or [], "threshold": threshold or [], "num_draft_tokens": lengths,
        "tune": 0 if every_length else tune,
    }  # fmt: skip
    record = Record(results, ready.settings | settings)
    found = core.sweep(
        decoder, ready.asking, ready.items, rules, sampling=SamplingParams(temperature=temperature, seed=seed),
        lengths=lengths, tuning_items=0 if every_length else tune, margin=margin / 100, record=record,
        running=lambda what, names, some: running(what, *_work(names, some, record)),
    )  # fmt: skip
    wanted, items, table = found.candidates, found.items, found.rows
    if grader is not None:
        answered = {
            (one.name, item.key): (item, record.told[one.name, item.key]["texts"]) for one in wanted for item in items
        }
        grades = means(answered, grade_answers(answered, grader, out / "grades.jsonl", record.settings))
        table = [with_grades(row, grades.get(row.name, ())) for row in table]
    facts = ready.facts | {"items": len(items), "data_hash": hash_of(items), "grader": grader or ""}
    told = Results(
        **facts, margin=margin / 100, rows=tuple(table), tuning=tuple(found.tuning),
        distances=core.distances(wanted, items, record),
    )  # fmt: skip
    write_text(answers, _answers(wanted, items, record))
    write_text(page, results_page(told))
    if all(row.accuracy is not None for row in table):
        write_text(out / "sweep.svg", pareto_svg(table))
    write_text(results, told.model_dump_json(indent=2, exclude_none=True) + "\n")
    record.part.unlink(missing_ok=True)
    if json:
        say_json(told.model_dump_json(indent=2, exclude_none=True))
        return
    tell(told)
    say(f"\nFigures: {results}\nPicture and tables: {page}\nAnswers: {answers}")


def _work(names: Sequence[str], items: Sequence[Item], record: Record) -> tuple[int, int]:
    """How many answers are wanted, and how many are there."""
    return len(names) * len(items), sum((name, item.key) in record.known for name in names for item in items)


def _answers(wanted: Sequence[Candidate], items: Sequence[Item], record: Record) -> str:
    """A line for each answer: by which method, to what, whether it is right, its counts and its text."""
    from dataclasses import asdict
    from json import dumps

    keys = [(one.name, item.key) for one in wanted for item in items]
    rows = ({"method": key[0], **asdict(record.known[key]), "text": record.told[key]["texts"]} for key in keys)
    return "".join(dumps(row, ensure_ascii=False) + "\n" for row in rows)
