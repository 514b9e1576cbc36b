"""Implementation of ``judge-decoding evaluate``, called with checked options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from judge_decoding.cli.checks import check_used
from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.evaluate import EvaluateOptions
from judge_decoding.cli.run.grading import grade_answers, means
from judge_decoding.cli.run.prepare import PreparedTask, prepare
from judge_decoding.cli.run.showing import print_results, running
from judge_decoding.cli.terminal import say, say_json, warn
from judge_decoding.core.results import TARGET, Results, with_grades
from judge_decoding.core.samples import Sample, write_samples
from judge_decoding.decoding.choices import choose_rule
from judge_decoding.decoding.guards import parse_guards
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.evaluation.evaluate import METHOD, evaluate, result_rows
from judge_decoding.evaluation.record import ResultRecord
from judge_decoding.evaluation.spec_bench import answer_line
from judge_decoding.evaluation.trial import Method
from judge_decoding.io.files import write_text
from judge_decoding.tasks.base import Item, Task


def run(options: EvaluateOptions, asked: Task) -> None:
    """Answer the questions of the task, and measure."""
    out, temperature, batch_size = options.out, options.temperature, options.batch_size
    ready = prepare(
        options, asked, limit=options.limit, backend=options.backend, temperature=temperature,
        details=options.details, rules=[options.rule] if options.rule else [], trained_on=options.trained_on or (),
    )  # fmt: skip
    spec_bench = asked.name == "spec_bench"
    in_spec_bench = spec_bench and batch_size == 1
    if spec_bench and not in_spec_bench:
        warn("Spec-Bench's own format requires times, so it is not written with --batch-size.")

    method = _method(options, ready)
    alone = options.alone and method.decoder.draft is not None
    settings = {
        "rule": str(method.rule), "num_draft_tokens": method.num_draft_tokens, "seed": options.seed,
        "batch_size": batch_size, "details": options.details, "target_alone": alone, "guards": options.guard,
        "top_p": options.top_p, "top_k": options.top_k, "min_p": options.min_p, "translate": options.translate,
    }  # fmt: skip
    samples = out / "samples.jsonl"
    record = ResultRecord(samples, ready.settings | settings)
    total = len(ready.items) * (2 if alone else 1)
    there = sum((name, item.key) in record.done for item in ready.items for name in (METHOD, TARGET))
    name = ", ".join(map(str, (method.rule, *method.guards))) if method.rule is not None else TARGET
    with running("answering", total, there) as take:
        found, outcomes = evaluate(
            method, ready.prompt_format, ready.items, record=record, alone=alone, batch_size=batch_size,
            progress=lambda which, one: take(name if which == METHOD else which, one), **ready.names,
        )  # fmt: skip
    grades: dict[str, list[float]] = {}
    if options.grader is not None:
        found, grades = _graded(found, ready, options.grader, out / "grades.jsonl", record.settings)
    rows = result_rows(name, method, outcomes, options.margin / 100)
    results = Results(
        **ready.facts, config=keep_config(options.context, out), grader=options.grader or "",
        margin=options.margin / 100,
        rows=tuple(with_grades(row, grades.get(key, ())) for key, row in rows.items()),
        distances=tuple(sample.distance for sample in found if sample.turn == 1 and sample.distance is not None),
    )  # fmt: skip
    write_samples(samples, found)
    for path, belongs in ((out / "spec_bench.jsonl", in_spec_bench), (out / "grades.jsonl", options.grader)):
        if not belongs:
            path.unlink(missing_ok=True)  # files of the results being replaced
    if in_spec_bench:
        model = f"{ready.names['target']} {name}"
        lines = [answer_line(item, turns, model) for item, turns in _by_item(found, ready)]
        write_text(out / "spec_bench.jsonl", "".join(lines))
    text = results.model_dump_json(indent=2, exclude_none=True)
    write_text(options.results, text + "\n")
    record.part.unlink(missing_ok=True)
    if options.json:
        say_json(text)
        return
    row = results.rows[-1]
    print_results(
        results,
        f"Counted by Spec-Bench: {row.tokens_per_forward:.2f} mean accepted tokens. By the paper: "
        f"{row.accepted_per_round:.2f} accepted draft tokens a round. They differ by 1 except in the "
        f"{row.ended_in_draft:.1%} of rounds that ended within their draft."
        if method.num_draft_tokens
        else "",
    )
    say(f"\nFigures: {options.results}\nAnswers: {samples}, for `judge-decoding report`")


def _method(options: EvaluateOptions, ready: PreparedTask) -> Method:
    """The way of decoding that the options name; without a draft, the target alone."""
    decoder, temperature = ready.decoder, options.temperature
    sampling = SamplingParams(
        temperature, options.top_p, options.top_k, options.min_p, seed=options.seed if temperature else None
    )
    guards = parse_guards(options.guard or ())
    if decoder.draft is None:
        return Method(decoder, sampling=sampling, guards=guards)
    rule = choose_rule(decoder.judge, options.rule or None, options.threshold)
    if rule.is_lossless:
        check_used(
            options.context, f"With the rule {rule}, which rescues nothing,", "--guard", remedy="use a lossy rule"
        )
    return Method(decoder, rule, options.num_draft_tokens or decoder.num_draft_tokens, sampling, guards)


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

    graded = [
        sample.model_copy(update={"grade": of(METHOD, sample), "target_grade": of(TARGET, sample)})
        for sample in samples
    ]
    return graded, means(answered, found)
