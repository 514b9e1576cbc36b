"""Implementation of ``judge-decoding sweep``, called with checked options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path

import typer

from judge_decoding.cli.config_file import keep_config
from judge_decoding.cli.run.grading import grade_answers, means
from judge_decoding.cli.run.prepare import prepare, rule_check
from judge_decoding.cli.run.showing import print_loads, print_results, running
from judge_decoding.cli.terminal import say, say_json
from judge_decoding.core import tracking
from judge_decoding.core.results import Results, with_grades
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.evaluation import sweep as core
from judge_decoding.evaluation.evaluate import hash_of
from judge_decoding.evaluation.record import ResultRecord
from judge_decoding.evaluation.sweep import Candidate
from judge_decoding.io.files import write_text
from judge_decoding.report.plots import pareto_svg
from judge_decoding.report.results_page import results_page
from judge_decoding.report.rows import fastest
from judge_decoding.rules import parse_rule
from judge_decoding.tasks.base import Item, Task


def run(
    context: typer.Context, target: str, out: Path, draft: str | None, judge: str | None, rule: list[str] | None,
    threshold: list[float] | None, num_draft_tokens: list[int] | None, tune: int,
    batch_size: list[int] | None, data: Path | None, limit: int | None,
    chat: bool | None, system: str, max_new_tokens: int | None, temperature: float, seed: int, margin: float,
    grader: str | None, trained_on: list[Path] | None, dtype: str, device: str | None, backend: str, results: Path,
    answers: Path, page: Path, asked: Task, *, translate: bool, every_length: bool, json: bool,
    log_to: str | None,
) -> None:  # fmt: skip
    """Answer the questions of the task in every way, and measure."""
    ready = prepare(
        asked, data, (target, draft, judge), chat=chat, system=system, max_new_tokens=max_new_tokens, limit=limit,
        seed=seed, trained_on=trained_on or (), dtype=dtype, device=device,
        backend=backend, translate=translate,
        temperature=temperature, check=rule_check(rule or []),
    )  # fmt: skip
    decoder = ready.decoder

    rules = core.default_rules(decoder, tuple(threshold) if threshold else core.THRESHOLDS)
    rules += [parse_rule(spelling, decoder.judge) for spelling in rule or []]
    lengths = sorted(set(num_draft_tokens or core.LENGTHS))
    # These must not change on resuming: a newly chosen draft length would mix answers at two lengths.
    settings = {
        "seed": seed, "rule": rule or [], "threshold": threshold or [], "num_draft_tokens": lengths,
        "tune": 0 if every_length else tune, **({"translate": True} if translate else {}),
        **({"batch_size": sorted(set(batch_size))} if batch_size else {}),
    }  # fmt: skip
    record = ResultRecord(results, ready.settings | settings)
    about = {"task": str(asked), **ready.names}
    with tracking.log_to(log_to, f"sweep {out.name}", about) as logger:
        found = core.sweep(
            decoder, ready.prompt_format, ready.items, rules,
            sampling=SamplingParams(temperature=temperature, seed=seed), lengths=lengths,
            tuning_items=0 if every_length else tune, batch_sizes=batch_size or (), margin=margin / 100, record=record,
            running=lambda what, names, some: running(what, *_work(names, some, record)), logger=logger,
        )  # fmt: skip
        wanted, items, table = found.candidates, found.items, found.rows
        if grader is not None:
            answered = {
                (one.name, item.key): (item, record.extra[one.name, item.key]["texts"])
                for one in wanted
                for item in items
            }
            grades = means(answered, grade_answers(answered, grader, out / "grades.jsonl", record.settings))
            table = [with_grades(row, grades.get(row.name, ())) for row in table]
            for row in table:
                tracking.log_fields(logger, row.name, {"grade": row.grade})
    facts = ready.facts | {
        "items": len(items),
        "data_hash": hash_of(items),
        "grader": grader or "",
        "config": keep_config(context, out),
    }
    told = Results(
        **facts, margin=margin / 100, rows=tuple(table), tuning=tuple(found.tuning),
        distances=core.distances(wanted, items, record), loads=tuple(found.loads),
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
    print_results(told)
    say(f"\nFigures: {results}\nPicture and tables: {page}\nAnswers: {answers}")
    if best := fastest(told):
        say(f"\n{best}")
    if told.loads:
        print_loads(told.loads)


def _work(names: Sequence[str], items: Sequence[Item], record: ResultRecord) -> tuple[int, int]:
    """Return how many answers are wanted, and how many already exist."""
    return len(names) * len(items), sum((name, item.key) in record.known for name in names for item in items)


def _answers(wanted: Sequence[Candidate], items: Sequence[Item], record: ResultRecord) -> str:
    """Return a line for each answer: method, item, verdict, counts and text."""
    keys = [(one.name, item.key) for one in wanted for item in items]
    rows = ({"method": key[0], **asdict(record.known[key]), "text": record.extra[key]["texts"]} for key in keys)
    return "".join(dumps(row, ensure_ascii=False) + "\n" for row in rows)
