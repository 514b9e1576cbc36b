"""``judge-decoding court label likelihood`` and ``equivalence``: label single tokens by the models themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.court_files import agree, read
from judge_decoding.cli.decoding_options import FixedBudget
from judge_decoding.cli.models import BatchSize, Device, DraftModelOption, DtypeOption, Target, check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Cases, Overwrite, Yes, check_outputs
from judge_decoding.cli.panels import MODELS, TRAINING
from judge_decoding.cli.steps import steps
from judge_decoding.cli.task_options import CheckerOption, LabelThreshold
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.labelling.labels.pilot import Forecast, Labeller, LabellingCost, label_rest
from judge_decoding.labelling.labels.progress import LabellingProgress
from judge_decoding.names import REFERENCE, embedded_path, has_draft, is_drafter
from judge_decoding.tasks.results import result_function

_Questions = Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) with the questions.")]


def likelihood(
    context: typer.Context,
    questions: _Questions,
    out: Cases,
    target: Target,
    label_threshold: LabelThreshold,
    draft: DraftModelOption = None,
    given: Annotated[
        bool,
        typer.Option(
            "--given/--own",
            help="Label the file's answers, or the target's own answers to its questions.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    suffix: Annotated[
        int, typer.Option(min=1, help="Tokens read after a replaced one.", rich_help_panel=TRAINING)
    ] = 20,
    max_new_tokens: FixedBudget = 256,
    batch_size: BatchSize = 8,
    yes: Yes = False,
    dtype: DtypeOption = "auto",
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Label draft tokens by the target's likelihood of them and of what follows (SelfJudge); no checker."""
    if given:
        check_used(context, "With --given, where nothing is generated,", "--max-new-tokens", "--batch-size")
    settings = {
        "way": "likelihood", "target": target, "draft": draft, "threshold": label_threshold, "given": given,
        "suffix": suffix, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    _check(context, out, questions, target, draft, overwrite=overwrite)
    cases = read(questions)
    progress = LabellingProgress(out, settings)

    from judge_decoding.cli.run.likelihood import run  # noqa: PLC0415  (loads torch)

    run(
        target, label_threshold, draft, suffix, max_new_tokens, batch_size, dtype, device, progress, cases,
        given=given, yes=yes,
    )  # fmt: skip


def equivalence(
    context: typer.Context,
    questions: _Questions,
    out: Cases,
    target: Target,
    draft: DraftModelOption = None,
    checker: CheckerOption = "number",
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Name of the target at the endpoint OPENAI_BASE_URL (vLLM, SGLang), which then generates; only its "
            "tokenizer is loaded here.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    max_new_tokens: FixedBudget = 256,
    batch_size: BatchSize = 8,
    yes: Yes = False,
    dtype: DtypeOption = "auto",
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Label draft tokens by whether the target's final result stays the same with them (AutoJudge)."""
    settings = {
        "way": "equivalence", "target": target, "draft": draft, "endpoint": endpoint, "result": checker,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    function = result_function(checker)
    _check(context, out, questions, target, draft, overwrite=overwrite)
    texts = list(dict.fromkeys(case.question for case in read(questions)))
    progress = LabellingProgress(out, settings)

    from judge_decoding.cli.run.equivalence import run  # noqa: PLC0415  (loads torch)

    run(target, draft, endpoint, max_new_tokens, batch_size, dtype, device, texts, function, progress, yes=yes)


def label_all(
    questions: list[str],
    label: Labeller,
    progress: LabellingProgress,
    *,
    yes: bool,
    unit: str = "target forwards",
) -> tuple[list[Case], str]:
    """Label what is not done yet: a few questions first, then, with the cost told and agreed to, the rest.

    ``unit`` is what the cost is counted in. The cases, and a sentence about them.
    """
    done = sum(question in progress.done for question in questions)
    if done:
        say(f"{done} of {len(questions)} questions are already done.", err=True)
    with steps() as screen:

        def ask(cost: Forecast) -> None:
            with screen.paused():
                agree(forecast(cost, unit), yes=yes)

        spent = label_rest(questions, label, progress, agree=ask, report=screen)
    cases = progress.finish(questions)
    return cases, labelled(cases, spent, progress.output, unit)


def forecast(cost: Forecast, unit: str = "target forwards") -> str:
    """What labelling will take, in words."""
    return (
        f"{cost.questions} questions gave {cost.labels} labels. The other {cost.left} will take about "
        f"{cost.cost:,.0f} {unit} and {duration(cost.seconds)}."
    )


def labelled(cases: Sequence[Case], spent: LabellingCost, out: Path, unit: str = "target forwards") -> str:
    """What labelling gave and took, in words."""
    wrong = sum(len(case.errors) for case in cases)
    labels = sum(len(case.judged or ()) for case in cases)
    return (
        f"{labels} labels, {wrong} wrong, in {len(cases)} cases written to {out}; "
        f"{spent.cost:,} {unit} in {duration(spent.seconds)} now."
    )


def duration(seconds: float) -> str:
    """A time in words."""
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"


def _check(context: typer.Context, out: Path, *inputs: str | Path | None, overwrite: bool) -> None:
    part = out.with_name(out.name + ".part")
    check_outputs(
        [out], inputs, overwrite=overwrite, work=[part], alone=(context, out),
        own=lambda: [out] if part.exists() else [],
    )  # fmt: skip


def pair_names(target: str, draft: str | None, dtype: str) -> tuple[str, str]:
    """Names or folders of target and draft, all checked that can be without loading them."""
    check_dtype(dtype)
    if not has_draft(target, draft):
        raise JudgeDecodingError("There is no draft model whose tokens are to be labelled; give one with --draft.")
    if is_drafter(draft):
        raise JudgeDecodingError(f"{draft} has no tokens of its own to be labelled; give a draft model with --draft.")
    return embedded_path(target, "target"), embedded_path(draft or REFERENCE, "draft")
