"""``judge-decoding court label arithmetic`` and ``llm``: label answers by their equations, or by a language model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from judge_decoding.bounds import check_bound
from judge_decoding.cli import options
from judge_decoding.cli.options import MODELS, TRAINING, option
from judge_decoding.cli.outputs import check_outputs, check_resumable
from judge_decoding.cli.shared import agree, bar, read, show
from judge_decoding.cli.terminal import say, warn
from judge_decoding.data.cases import write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import PREFIX, Endpoint
from judge_decoding.labelling.labels.arithmetic import label_by_arithmetic
from judge_decoding.labelling.labels.llm import PROMPT, VoteRecord, compare_with_hand, label_by_llm, missing_votes

_Answers = Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) of answers.")]


def arithmetic(
    answers: _Answers,
    out: options.Cases,
    aside: options.Aside = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Check every equation of an answer; the first false one is the error."""
    check_outputs([out, aside], [answers], overwrite=overwrite)
    result = label_by_arithmetic(read(answers))
    if not result.labelled:
        raise JudgeDecodingError(
            f"No answer of {answers} can be labelled by arithmetic: none has a false equation or is marked "
            'right ("correct": true); label it another way.'
        )
    write_cases(out, result.labelled)
    if aside is not None:
        write_cases(aside, result.accused + result.silent)
    show(
        {
            "located": len(result.located),
            "right": len(result.right),
            "accused although found right": len(result.accused),
            "no false equation": len(result.silent),
        },
        json=json,
    )


def llm(
    context: typer.Context,
    answers: _Answers,
    out: options.Cases,
    model: Annotated[str, option(MODELS, "Model at the OpenAI-compatible endpoint OPENAI_BASE_URL.", "--model", "-m")],
    aside: options.Aside = None,
    compare: Annotated[
        Path | None, option(TRAINING, "Manual labels of the same answers, to measure agreement.")
    ] = None,
    votes: Annotated[int, option(TRAINING, "Requests per answer.", min=1)] = 5,
    temperature: options.Temperature = 0.7,
    max_new_tokens: options.FixedBudget = 1024,
    concurrency: options.Concurrency = 8,
    retries: options.Retries = 6,
    yes: options.Yes = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Let a language model quote the first wrong phrase, by majority; imprecise in the paper, so --compare it."""
    if votes > 1 and not temperature:
        raise JudgeDecodingError(f"{votes} votes at temperature 0 would all be identical; give --temperature.")
    part = check_resumable(context, out, [answers, compare], overwrite=overwrite, aside=aside)
    endpoint = Endpoint(model.removeprefix(PREFIX), concurrency=concurrency, retries=retries)
    hand = [] if compare is None else read(compare)
    cases = {(case.question, case.answer): case for case in read(answers)}
    unsure = [case for case in cases.values() if case.correct is not True]
    check_bound("requests", len(unsure) * votes, "The number of requests")
    settings = {
        "way": "llm", "model": endpoint.model, "temperature": temperature, "max_new_tokens": max_new_tokens,
        "prompt": hashlib.sha256(PROMPT.encode()).hexdigest()[:16],
    }  # fmt: skip
    record = VoteRecord(out, settings)
    requests = missing_votes(unsure, record, votes, temperature=temperature, max_new_tokens=max_new_tokens)
    total = len(unsure) * votes
    there = total - len(requests)
    if there:
        say(f"{there} of {total} votes already exist.", err=True)
    if requests:
        letters = sum(len(message["content"]) for _, body in requests for message in body["messages"])
        agree(
            f"{len(unsure)} answers, {votes} votes each: {len(requests):,} requests to {endpoint.model} at "
            f"{endpoint.address}, with about {letters / 4:,.0f} tokens to read and at most "
            f"{len(requests) * max_new_tokens:,} to write.",
            yes=yes,
        )
    with bar("asking", total, there) as advance:
        found = label_by_llm(unsure, endpoint, record, requests, votes, advance)
    labelled, unlabelled, failures = found.labelled, found.unlabelled, found.failures
    right = [case for case in cases.values() if case.correct is True]
    if not labelled and not right:
        reason = f" ({failures[0].rstrip('.')})" if failures else ""
        raise JudgeDecodingError(
            f"No answer got a label{reason}; the replies are in {part}: look at them, and try another model."
        )
    if aside is not None:
        record.will_write(aside)
        write_cases(aside, unlabelled)
    write_cases(out, labelled + [case.model_copy(update={"source": case.source or "checker"}) for case in right])
    if not failures:
        part.unlink(missing_ok=True)
    else:
        warn(
            f"{len(failures)} requests failed, the first because {failures[0].rstrip('.')}; the same command tries "
            f"them again, or remove {part}."
        )
    figures: dict[str, Any] = {
        "located": sum(bool(case.errors) for case in labelled),
        "called right": sum(not case.errors for case in labelled),
        "set aside": len(unlabelled),
        "right by a checker, not asked": len(right),
        "failed requests": len(failures),
    }
    if compare is not None:
        figures["agreement with labels by hand"] = compare_with_hand(labelled, unlabelled, hand)
    _report(figures, json=json)


def _report(figures: dict[str, Any], *, json: bool) -> None:
    agreement = figures.get("agreement with labels by hand")
    if json:
        show(figures, json=True)
        return
    show({name: value for name, value in figures.items() if value is not agreement}, json=False)
    if agreement is not None:
        say("agreement with labels by hand", bold=True)
        for name, value in agreement.items():
            shown = "has no value" if value is None else f"{value:.2f}" if isinstance(value, float) else value
            say(f"  {name}: {shown}")
