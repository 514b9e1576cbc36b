"""Implementation of ``judge-decoding sweep``, called with checked options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps

from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.run.grading import grade_answers, means
from judge_decoding.cli.run.prepare import prepare
from judge_decoding.cli.run.showing import print_loads, print_results, running
from judge_decoding.cli.sweep import SweepOptions
from judge_decoding.cli.terminal import say, say_json
from judge_decoding.core import tracking
from judge_decoding.core.results import Results, with_grades
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.evaluation.evaluate import hash_of
from judge_decoding.evaluation.record import ResultRecord
from judge_decoding.evaluation.sweep import LENGTHS, THRESHOLDS, Candidate, default_rules, distances, sweep
from judge_decoding.io.files import write_text
from judge_decoding.report.page import results_page
from judge_decoding.report.plots import pareto_svg
from judge_decoding.report.results import fastest_line
from judge_decoding.rules import parse_rule
from judge_decoding.tasks.base import Item, Task


def run(options: SweepOptions, asked: Task) -> None:
    """Answer the questions of the task in every way, and measure."""
    out, margin, given = options.out, options.margin / 100, options.rule or []
    ready = prepare(
        options, asked, limit=options.limit, backend=options.backend, temperature=options.temperature, rules=given,
        trained_on=options.trained_on or (),
    )  # fmt: skip
    decoder = ready.decoder
    rules = default_rules(decoder, options.threshold or THRESHOLDS)
    rules += [parse_rule(spelling, decoder.judge) for spelling in given]
    lengths = sorted(set(options.num_draft_tokens or LENGTHS))
    tune = 0 if options.every_length else options.tune
    # These must not change on resuming: a newly chosen draft length would mix answers at two lengths.
    settings = {
        "seed": options.seed, "rule": given, "threshold": options.threshold or [], "num_draft_tokens": lengths,
        "tune": tune, "translate": options.translate, "batch_size": sorted(set(options.batch_size or [])),
    }  # fmt: skip
    record = ResultRecord(options.results, ready.settings | settings)
    about = {"task": str(asked), **ready.names}
    with tracking.log_to(options.log_to, f"sweep {out.name}", about) as logger:
        found = sweep(
            decoder, ready.prompt_format, ready.items, rules,
            sampling=SamplingParams(temperature=options.temperature, seed=options.seed), lengths=lengths,
            tuning_items=tune, batch_sizes=options.batch_size or (), margin=margin, record=record,
            running=lambda what, names, some: running(what, *_work(names, some, record)), logger=logger,
        )  # fmt: skip
        wanted, items, table = found.candidates, found.items, found.rows
        if options.grader is not None:
            answered = {
                (one.name, item.key): (item, record.done[one.name, item.key].extra["texts"])
                for one in wanted
                for item in items
            }
            grades = means(answered, grade_answers(answered, options.grader, out / "grades.jsonl", record.settings))
            table = [with_grades(row, grades.get(row.name, ())) for row in table]
            for row in table:
                tracking.log_fields(logger, row.name, {"grade": row.grade})
    facts = ready.facts | {
        "items": len(items), "data_hash": hash_of(items), "grader": options.grader or "",
        "config": keep_config(options.context, out),
    }  # fmt: skip
    results = Results(
        **facts, margin=margin, rows=tuple(table), tuning=tuple(found.tuning),
        distances=distances(wanted, items, record), loads=tuple(found.loads),
    )  # fmt: skip
    answers, page = out / "answers.jsonl", out / "sweep.html"
    write_text(answers, _answers(wanted, items, record))
    write_text(page, results_page(results))
    if all(row.accuracy is not None for row in table):
        write_text(out / "sweep.svg", pareto_svg(table))
    text = results.model_dump_json(indent=2, exclude_none=True)
    write_text(options.results, text + "\n")
    record.part.unlink(missing_ok=True)
    if options.json:
        say_json(text)
        return
    print_results(results)
    say(f"\nFigures: {options.results}\nPicture and tables: {page}\nAnswers: {answers}")
    if best := fastest_line(results):
        say(f"\n{best}")
    if results.loads:
        print_loads(results.loads)


def _work(names: Sequence[str], items: Sequence[Item], record: ResultRecord) -> tuple[int, int]:
    """Return how many answers are wanted, and how many already exist."""
    return len(names) * len(items), sum((name, item.key) in record.done for name in names for item in items)


def _answers(wanted: Sequence[Candidate], items: Sequence[Item], record: ResultRecord) -> str:
    """Return a line for each answer: method, item, verdict, counts, text, and whether it is lossy."""
    keys = [(one.name, item.key) for one in wanted for item in items]
    rows = (
        {"method": key[0], **asdict(one.result), "text": one.extra["texts"], "lossy": one.extra["lossy"]}
        for key, one in ((key, record.done[key]) for key in keys)
    )
    return "".join(dumps(row, ensure_ascii=False) + "\n" for row in rows)
