"""Implementation of ``judge-decoding evaluate``, called with checked options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.options import check_used
from judge_decoding.cli.run.grading import grade_answers, means
from judge_decoding.cli.run.prepare import PreparedTask, prepare, rule_check, warm_up
from judge_decoding.cli.run.showing import print_results, running
from judge_decoding.cli.terminal import say, say_json, warn
from judge_decoding.core.results import TARGET, Results, with_grades
from judge_decoding.core.samples import Sample, write_samples
from judge_decoding.decoding.choices import choose_rule
from judge_decoding.decoding.guards import parse_guard
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.evaluation import evaluate as core
from judge_decoding.evaluation.counting import Counting
from judge_decoding.evaluation.evaluate import METHOD
from judge_decoding.evaluation.record import ResultRecord
from judge_decoding.evaluation.spec_bench import answer_line
from judge_decoding.evaluation.trial import Method
from judge_decoding.io.files import write_text
from judge_decoding.rules import parse_rule
from judge_decoding.tasks.base import Item, Task


def run(
    context: typer.Context, target: str, out: Path, draft: str | None, judge: str | None, threshold: float | None,
    rule: str | None, guard: list[str] | None, num_draft_tokens: int | None, data: Path | None, limit: int | None,
    chat: bool | None, system: str, max_new_tokens: int | None, temperature: float, top_p: float | None,
    top_k: int | None, min_p: float | None, seed: int, batch_size: int, margin: float, grader: str | None,
    trained_on: list[Path] | None, dtype: str, device: str | None, backend: str, results: Path, samples: Path,
    asked: Task, *, translate: bool, alone: bool, details: bool, json: bool,
) -> None:  # fmt: skip
    """Answer the questions of the task, and measure."""
    ready = prepare(
        asked, data, (target, draft, judge), chat=chat, system=system, max_new_tokens=max_new_tokens, limit=limit,
        seed=seed, trained_on=trained_on or (), dtype=dtype, device=device, backend=backend, translate=translate,
        temperature=temperature, details=details, check=rule_check([rule] if rule else []),
    )  # fmt: skip
    spec_bench = ready.prompt_format.task.name == "spec_bench"
    in_spec_bench = spec_bench and batch_size == 1
    if spec_bench and not in_spec_bench:
        warn("Spec-Bench's own format requires times, so it is not written with --batch-size.")

    decoder = ready.decoder
    sampling = SamplingParams(temperature, top_p, top_k, min_p, seed=seed if temperature else None)
    guards = tuple(parse_guard(spelling) for spelling in guard or ())
    drafted = decoder.draft is not None
    decides = (
        choose_rule(decoder.judge, parse_rule(rule, decoder.judge) if rule else None, threshold) if drafted else None
    )
    length = (num_draft_tokens or decoder.num_draft_tokens) if drafted else 0
    if decides is not None and decides.is_lossless:
        check_used(context, f"With the rule {decides}, which rescues nothing,", "--guard", remedy="use a lossy rule")
    method = Method(decoder, decides, length, sampling, guards)
    alone = alone and drafted
    settings = {
        "rule": str(decides), "num_draft_tokens": length, "seed": seed, "batch_size": batch_size, "details": details,
        "target_alone": alone,
        # Absent where they are not given, so that runs of earlier versions can be resumed.
        **{name: value for name, value in (("guards", guard), ("top_p", top_p), ("top_k", top_k), ("min_p", min_p),
                                           ("translate", translate)) if value},
    }  # fmt: skip
    record = ResultRecord(samples, ready.settings | settings)
    total = len(ready.items) * (2 if alone else 1)
    there = sum((name, item.key) in record.known for item in ready.items for name in (core.METHOD, TARGET))
    if batch_size == 1 and there < total:
        warm_up([method, method.alone()] if alone else [method], ready)
    with running("answering", total, there) as take:
        found, outcomes = core.evaluate(
            method, ready.prompt_format, ready.items, record=record, alone=alone, batch_size=batch_size, progress=take,
            **ready.names,
        )  # fmt: skip
    grades: dict[str, list[float]] = {}
    if grader is not None:
        found, grades = _graded(found, ready, grader, out / "grades.jsonl", record.settings)
    theirs, share = outcomes.get(TARGET), margin / 100
    name = ", ".join(map(str, (decides, *guards))) if decides is not None else TARGET
    rows = {core.METHOD: core.method_row(name, method, outcomes[core.METHOD], theirs, share)}
    if theirs is not None:
        rows = {TARGET: core.method_row(TARGET, method.alone(), theirs, None, share), **rows}
    table = tuple(with_grades(row, grades.get(key, ())) for key, row in rows.items())
    distances = tuple(sample.distance for sample in found if sample.turn == 1 and sample.distance is not None)
    told = Results(
        **ready.facts,
        config=keep_config(context, out),
        grader=grader or "",
        margin=share,
        rows=table,
        distances=distances,
    )
    write_samples(samples, found)
    for path, belongs in ((out / "spec_bench.jsonl", in_spec_bench), (out / "grades.jsonl", grader is not None)):
        if not belongs:
            path.unlink(missing_ok=True)  # files of the results being replaced
    if in_spec_bench:
        write_text(out / "spec_bench.jsonl", _spec_bench(found, ready, name))
    write_text(results, told.model_dump_json(indent=2, exclude_none=True) + "\n")
    record.part.unlink(missing_ok=True)
    if json:
        say_json(told.model_dump_json(indent=2, exclude_none=True))
        return
    counted = Counting.of(table[-1])
    print_results(
        told,
        f"Counted by Spec-Bench: {counted.mean_accepted_tokens:.2f} mean accepted tokens. By the paper: "
        f"{counted.accepted_per_round:.2f} accepted draft tokens a round. They differ by 1 except in the "
        f"{counted.ended_in_draft:.1%} of rounds that ended within their draft."
        if length
        else "",
    )
    say(f"\nFigures: {results}\nAnswers: {samples}, for `judge-decoding report`")


def _by_item(samples: Sequence[Sample], ready: PreparedTask) -> Iterator[tuple[Item, list[Sample]]]:
    """Yield each item with the samples of its turns."""
    for item in ready.items:
        yield item, [sample for sample in samples if sample.item == item.key]


def _graded(
    samples: Sequence[Sample], ready: PreparedTask, grader: str, output: Path, settings: dict[str, Any]
) -> tuple[list[Sample], dict[str, list[float]]]:
    """Return the samples with their grades, and the grades of the items by decoding method."""
    answered: dict[tuple[str, str], tuple[Item, list[str]]] = {}
    for item, turns in _by_item(samples, ready):
        answered[METHOD, item.key] = item, [ready.prompt_format.bare(sample.text) for sample in turns]
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


def _spec_bench(samples: Sequence[Sample], ready: PreparedTask, name: str) -> str:
    """Return the answers in Spec-Bench's own format."""
    model = f"{ready.names['target']} {name}"
    return "".join(answer_line(item, turns, model) for item, turns in _by_item(samples, ready))
