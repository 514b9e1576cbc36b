"""``judge-decoding evaluate``: one way of decoding over a task, beside the target alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from judge_decoding.cli.terminal import say, say_json, warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from judge_decoding.cli.evaluation import Prepared
    from judge_decoding.core.samples import Sample
    from judge_decoding.tasks.base import Item


def evaluate(
    context: typer.Context,
    task: TaskName,
    target: Target,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results.json and samples.jsonl.")],
    draft: Annotated[
        str | None, typer.Option(help="Draft model, or 'prompt-lookup'; without one the target decodes alone.")
    ] = None,
    judge: Judge = None,
    rule: Annotated[
        str | None, typer.Option(help="Verification rule instead of the judge's, such as 'top_k(k=4)'; see rules.")
    ] = None,
    num_draft_tokens: Annotated[int | None, typer.Option(min=1, help="Draft length; else the head's own.")] = None,
    data: Data = None,
    limit: Limit = None,
    chat: Chat = None,
    system: System = "",
    max_new_tokens: Budget = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Seed = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Items that share the forwards; above 1 nothing is timed.")
    ] = 1,
    alone: Annotated[
        bool, typer.Option("--target-alone/--no-target-alone", help="The target answers without a draft, too.")
    ] = True,
    margin: Margin = 2.0,
    details: Annotated[
        bool,
        typer.Option(
            "--details", help="Keep probabilities and alternatives of every draft token, for `report`; takes time."
        ),
    ] = False,
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
    """Tell what a way of decoding costs in quality and gives in speed, on a task.

    A stopped run goes on where it was. `report` shows the answers token by token.
    """
    from judge_decoding.cli.evaluation import checked_task, prepare, rule_check, running, tell, warm_up
    from judge_decoding.names import has_draft

    results, samples = out / "results.json", out / "samples.jsonl"
    others, part = [samples, out / "spec_bench.jsonl", out / "grades.jsonl"], out / "samples.jsonl.part"
    check_outputs(
        [results, *others], [data, target, draft, judge, *(trained_on or ())], overwrite=overwrite, folder=True,
        work=[part, out / "grades.jsonl.part"], alone=(context, results), own=lambda: others if part.exists() else [],
    )  # fmt: skip
    if not has_draft(target, draft):
        check_used(
            context, "Without --draft", "--judge", "--rule", "--num-draft-tokens", "--target-alone", "--details",
            "--margin", remedy="give a draft model",
        )  # fmt: skip
    if not alone:
        check_used(context, "With --no-target-alone", "--margin")
    if not temperature and limit is None:
        check_used(context, "At temperature 0 and without --limit", "--seed", remedy="give one of the two")
    where = sandbox_spelling(sandbox, none=no_sandbox)
    asked = checked_task(context, task, grader, allow_code=allow_code_execution, sandbox=where)
    ready = prepare(
        asked, data, (target, draft, judge), chat=chat, system=system, max_new_tokens=max_new_tokens, limit=limit,
        seed=seed, trained_on=trained_on or (), dtype=dtype, device=device,
        backend=backend,
        temperature=temperature, details=details, check=rule_check([rule] if rule else []),
    )  # fmt: skip
    spec_bench = ready.asking.task.name == "spec_bench"
    in_spec_bench = spec_bench and batch_size == 1
    if spec_bench and not in_spec_bench:
        warn("Spec-Bench's own format wants times, so it is not written with --batch-size.")

    from judge_decoding.core.results import TARGET, Results, with_grades
    from judge_decoding.core.samples import write_samples
    from judge_decoding.decoding.choices import choose_rule
    from judge_decoding.decoding.sampling import SamplingParams
    from judge_decoding.evaluation import evaluate as core
    from judge_decoding.evaluation.counting import Counting
    from judge_decoding.evaluation.record import Record
    from judge_decoding.evaluation.trial import Method
    from judge_decoding.io.files import write_text
    from judge_decoding.rules import parse_rule

    decoder = ready.decoder
    sampling = SamplingParams(temperature=temperature, seed=seed if temperature else None)
    drafted = decoder.draft is not None
    decides = choose_rule(decoder.judge, parse_rule(rule, decoder.judge) if rule else None, None) if drafted else None
    length = (num_draft_tokens or decoder.num_draft_tokens) if drafted else 0
    method = Method(decoder, decides, length, sampling)
    alone = alone and drafted
    settings = {
        "rule": str(decides), "num_draft_tokens": length, "seed": seed, "batch_size": batch_size, "details": details,
        "target_alone": alone,
    }  # fmt: skip
    record = Record(samples, ready.settings | settings)
    total = len(ready.items) * (2 if alone else 1)
    there = sum((name, item.key) in record.known for item in ready.items for name in (core.METHOD, TARGET))
    if batch_size == 1 and there < total:
        warm_up([method, method.alone()] if alone else [method], ready)
    with running("answering", total, there) as take:
        found, outcomes = core.evaluate(
            method, ready.asking, ready.items, record=record, alone=alone, batch_size=batch_size, progress=take,
            **ready.names,
        )  # fmt: skip
    grades: dict[str, list[float]] = {}
    if grader is not None:
        found, grades = _graded(found, ready, grader, out / "grades.jsonl", record.settings)
    theirs, share = outcomes.get(TARGET), margin / 100
    name = str(decides) if decides is not None else TARGET
    rows = {core.METHOD: core.method_row(name, method, outcomes[core.METHOD], theirs, share)}
    if theirs is not None:
        rows = {TARGET: core.method_row(TARGET, method.alone(), theirs, None, share), **rows}
    table = tuple(with_grades(row, grades.get(key, ())) for key, row in rows.items())
    distances = tuple(sample.distance for sample in found if sample.turn == 1 and sample.distance is not None)
    told = Results(**ready.facts, grader=grader or "", margin=share, rows=table, distances=distances)
    write_samples(samples, found)
    for path, belongs in ((out / "spec_bench.jsonl", in_spec_bench), (out / "grades.jsonl", grader is not None)):
        if not belongs:
            path.unlink(missing_ok=True)  # of the results that are replaced
    if in_spec_bench:
        write_text(out / "spec_bench.jsonl", _spec_bench(found, ready, name))
    write_text(results, told.model_dump_json(indent=2, exclude_none=True) + "\n")
    record.part.unlink(missing_ok=True)
    if json:
        say_json(told.model_dump_json(indent=2, exclude_none=True))
        return
    counted = Counting.of(table[-1])
    tell(
        told,
        f"Counted by Spec-Bench: {counted.mean_accepted_tokens:.2f} mean accepted tokens. By the paper: "
        f"{counted.accepted_per_round:.2f} accepted draft tokens a round. They differ by 1 but for the "
        f"{counted.ended_in_draft:.1%} of rounds that ended inside their draft."
        if length
        else "",
    )
    say(f"\nFigures: {results}\nAnswers: {samples}, for `judge-decoding report`")


def _by_item(samples: Sequence[Sample], ready: Prepared) -> Iterator[tuple[Item, list[Sample]]]:
    """Each item with the samples of its turns."""
    for item in ready.items:
        yield item, [sample for sample in samples if sample.item == item.key]


def _graded(
    samples: Sequence[Sample], ready: Prepared, grader: str, output: Path, settings: dict[str, Any]
) -> tuple[list[Sample], dict[str, list[float]]]:
    """The samples with their grades, and the grades of the items by way of decoding."""
    from judge_decoding.cli.grading import grade_answers, means
    from judge_decoding.core.results import TARGET
    from judge_decoding.evaluation.evaluate import METHOD

    answered: dict[tuple[str, str], tuple[Item, list[str]]] = {}
    for item, turns in _by_item(samples, ready):
        answered[METHOD, item.key] = item, [ready.asking.bare(sample.text) for sample in turns]
        own = [sample.target_text for sample in turns if sample.target_text is not None]
        if own:
            answered[TARGET, item.key] = item, own
    found = grade_answers(answered, grader, output, settings)

    def of(name: str, sample: Sample) -> int | None:
        one = found.get((name, sample.item), {}).get(sample.turn - 1)
        return None if one is None else one.grade

    told = [
        sample.model_copy(update={"grade": of(METHOD, sample), "target_grade": of(TARGET, sample)})
        for sample in samples
    ]
    return told, means(answered, found)


def _spec_bench(samples: Sequence[Sample], ready: Prepared, name: str) -> str:
    """The answers in Spec-Bench's own format."""
    from judge_decoding.evaluation.spec_bench import answer_line

    model = f"{ready.names['target']} {name}"
    return "".join(answer_line(item, turns, model) for item, turns in _by_item(samples, ready))
