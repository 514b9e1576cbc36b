"""``judge-decoding court starter, check, stats, view, split, merge, rethreshold``: inspect and rearrange cases."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used
from judge_decoding.cli.options import OUTPUT, TASK, option, out_option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.shared import read, underscored
from judge_decoding.cli.terminal import say, say_json
from judge_decoding.data import sets
from judge_decoding.data.agreement import Spans, summary
from judge_decoding.data.cases import read_numbered, starter_cases, write_cases
from judge_decoding.data.leaks import leaks
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import write_text
from judge_decoding.report.cases import cases_page


def starter(out: options.Cases, overwrite: options.Overwrite = False) -> None:
    """Write the starter set: answers of real models to reasoning questions, with errors located by people."""
    check_outputs([out], overwrite=overwrite)
    cases = starter_cases()
    write_cases(out, cases)
    wrong = sum(bool(case.errors) for case in cases)
    say(f"{len(cases)} cases, {wrong} of them wrong, written to {out}.")


def check(
    context: typer.Context,
    file: options.CasesFile,
    tokenizer: options.Tokenizer = None,
    out: Annotated[Path | None, out_option("TokenCourt file (JSONL) for the valid cases.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Report invalid lines and texts that do not round-trip through the tokenizer. Exit code 1 if any."""
    check_outputs([out], [file, tokenizer], overwrite=overwrite)
    if out is None:
        check_used(context, "Without --out", "--overwrite", remedy="give a file")
    problems: list[str] = []
    numbered = read_numbered(file, problems.append)
    good = [case for _, case in numbered]
    if tokenizer is not None:
        from judge_decoding.data.tokens import check_tokens  # noqa: PLC0415  (loads torch)
        from judge_decoding.loading.models import load_tokenizer  # noqa: PLC0415  (loads torch)

        loaded, good = load_tokenizer(tokenizer), []
        for number, case in numbered:
            try:
                check_tokens(case, loaded)
                good.append(case)
            except JudgeDecodingError as error:
                problems.append(f"{file}, line {number}: {error}")
    for problem in problems:
        say(problem)
    if out is not None:
        if not good:
            raise JudgeDecodingError(f"No case of {file} is good; nothing was written.")
        write_cases(out, good)
    say(f"{len(good)} good cases, {len(problems)} bad lines.")
    if problems:
        raise typer.Exit(1)


def stats(
    files: Annotated[list[Path], typer.Argument(help="TokenCourt files (JSONL); several are the splits of one set.")],
    tokenizer: options.Tokenizer = None,
    json: options.Json = False,
) -> None:
    """Count cases, verdicts and sources, measure annotator agreement, and find questions in several files."""
    cases = {str(path): read(path) for path in files}
    spans = _spans(tokenizer)
    figures: dict[str, Any] = {"files": {name: summary(part, spans) for name, part in cases.items()}}
    found = leaks(cases)
    figures["questions in several files"] = found
    if json:
        say_json(json_module.dumps(underscored(figures), indent=2, ensure_ascii=False))
        return
    for name, part in figures["files"].items():
        say(name, bold=True)
        for key, value in part.items():
            if key == "agreement":
                _report_agreement(value)
            elif isinstance(value, Mapping):
                say(f"  {key}: " + (", ".join(f"{k} {v}" for k, v in value.items()) or "none"))
            elif value is not None:
                say(f"  {key}: {value}")
    if len(cases) > 1:
        say(f"questions in several files: {len(found)}")
        for question, names in list(found.items())[:5]:
            say(f"  {' '.join(question.split())[:80]!r} in {', '.join(names)}")


def _report_agreement(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        measures = [
            f"{name} {row[name]:.2f}" for name in row if name.startswith(("kappa", "same")) and row[name] is not None
        ]
        one, other = row["annotators"]
        say(f"  {one} and {other} on {row['answers']} answers: " + (", ".join(measures) or "kappa has no value"))


def view(
    file: options.CasesFile,
    out: Annotated[Path, out_option("Web page to write.")],
    tokenizer: options.Tokenizer = None,
    show: options.Show = 500,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a self-contained web page with the answers and their verdicts."""
    check_outputs([out], [file, tokenizer], overwrite=overwrite)

    cases = read(file)
    shown = cases[:show]
    facts = {
        "cases": len(cases) if len(shown) == len(cases) else f"{len(shown)} of {len(cases)}",
        "wrong": sum(bool(case.errors) for case in cases),
        "cut into": "words" if tokenizer is None else f"tokens of {tokenizer}",
    }
    write_text(out, cases_page(file.name, shown, facts, _spans(tokenizer)))
    say(f"{len(shown)} cases written to {out}.")


def split(
    file: options.CasesFile,
    into: Annotated[list[str], option(OUTPUT, "File and share, such as train.jsonl=0.8. Repeatable, once per part.")],
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Split cases by question: no question is in two parts, and adding cases moves none of the others."""
    shares: dict[str, float] = {}
    for part in into:
        name, _, share = part.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not name or not value or name in shares:
            raise JudgeDecodingError(f"--into is {part}; it must be a new file and its share, as in train.jsonl=0.8.")
        shares[name] = value
    check_outputs(map(Path, shares), [file], overwrite=overwrite)
    parts = sets.split(read(file), shares, seed)
    for name, cases in parts.items():
        write_cases(name, cases)
        say(f"{len(cases)} cases, {len({case.question for case in cases})} questions written to {name}.")


def merge(
    files: Annotated[list[Path], typer.Argument(help="TokenCourt files (JSONL); the first have precedence.")],
    out: options.Cases,
    on_conflict: Annotated[
        str, option(TASK, "Answers with several verdicts: first (keep that one), drop or keep (all).")
    ] = "first",
    overwrite: options.Overwrite = False,
) -> None:
    """Merge files without duplicates; answers with several verdicts are reported."""
    if on_conflict not in ("first", "drop", "keep"):
        raise JudgeDecodingError(f"--on-conflict is {on_conflict}; it must be one of first, drop, keep.")
    check_outputs([out], files, overwrite=overwrite)
    merged = sets.merge([case for path in files for case in read(path)], on_conflict)  # type: ignore[arg-type]  # checked
    for labels in merged.conflicts:
        verdicts = "; ".join(f"{case.annotator or case.source or 'unknown'} {list(case.errors)}" for case in labels)
        say(f"Conflict: {' '.join(labels[0].question.split())[:60]!r}: {verdicts}", err=True)
    if not merged.cases:
        raise JudgeDecodingError("No case is left; keep the first of conflicting verdicts (--on-conflict first).")
    write_cases(out, merged.cases)
    say(
        f"{len(merged.cases)} cases written to {out}; {merged.duplicates} duplicates, "
        f"{len(merged.conflicts)} conflicts."
    )


def rethreshold(
    file: Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) of labels with scores, as by likelihood.")],
    out: options.Cases,
    label_threshold: options.LabelThreshold,
    overwrite: options.Overwrite = False,
) -> None:
    """Apply another threshold to labels with scores, without a model."""
    check_outputs([out], [file], overwrite=overwrite)
    cases = sets.rethreshold(read(file), label_threshold)
    write_cases(out, cases)
    wrong = sum(bool(case.errors) for case in cases)
    say(f"{len(cases)} labels, {wrong} wrong, written to {out}.")


def _spans(tokenizer: str | None) -> Spans | None:
    if tokenizer is None:
        return None
    from judge_decoding.data.tokens import token_spans  # noqa: PLC0415  (loads torch)
    from judge_decoding.loading.models import load_tokenizer  # noqa: PLC0415  (loads torch)

    loaded = load_tokenizer(tokenizer)
    return lambda case: token_spans(case, loaded)
