"""``judge-decoding court label likelihood`` and ``equivalence``: label single tokens by the models themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.court_files import agree, read
from judge_decoding.cli.models import check_dtype
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, Yes, check_outputs
from judge_decoding.cli.steps import steps
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.labelling.labels.pilot import Forecast, Labeller, LabellingCost, label_rest
from judge_decoding.labelling.labels.progress import LabellingProgress
from judge_decoding.names import REFERENCE, embedded_path, has_draft, is_drafter
from judge_decoding.tasks.results import result_function

_Questions = Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) with the questions.")]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Where the labels go.")]
_Target = Annotated[str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded pair.")]
_Draft = Annotated[str | None, typer.Option(help="Draft model with the target's vocabulary.")]
_Tokens = Annotated[int, typer.Option(min=1, help="Token budget of an answer.")]
_Batch = Annotated[int, typer.Option(min=1, help="How much shares a forward.")]
_Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]


def likelihood(
    context: typer.Context,
    questions: _Questions,
    output: _Output,
    target: _Target,
    threshold: Annotated[float, typer.Option(help="Tokens with a score above it are correct; see the docs.")],
    draft: _Draft = None,
    given: Annotated[
        bool, typer.Option("--given/--own", help="Label the file's answers, or the target's own to its questions.")
    ] = False,
    suffix: Annotated[int, typer.Option(min=1, help="Tokens read behind a swapped one.")] = 20,
    max_new_tokens: _Tokens = 256,
    batch_size: _Batch = 8,
    yes: Yes = False,
    dtype: _Dtype = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Label the draft's tokens by how likely the target finds them and what follows (SelfJudge); no checker."""
    if given:
        check_used(context, "With --given, where nothing is generated,", "--max-new-tokens", "--batch-size")
    settings = {
        "way": "likelihood", "target": target, "draft": draft, "threshold": threshold, "given": given,
        "suffix": suffix, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    _check(context, output, questions, target, draft, overwrite=overwrite)
    cases = read(questions)
    progress = LabellingProgress(output, settings)

    from judge_decoding.cli.run.likelihood import run  # noqa: PLC0415  (loads torch)

    run(
        target, threshold, draft, suffix, max_new_tokens, batch_size, dtype, progress, cases, given=given, yes=yes,
    )  # fmt: skip


def equivalence(
    context: typer.Context,
    questions: _Questions,
    output: _Output,
    target: _Target,
    draft: _Draft = None,
    result: Annotated[
        str, typer.Option(help="What must stay the same: number, choice, text, regex:PATTERN or module:function.")
    ] = "number",
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="The target's name at the endpoint OPENAI_BASE_URL (vLLM, SGLang): it answers there, and only its "
            "tokenizer is loaded here."
        ),
    ] = None,
    max_new_tokens: _Tokens = 256,
    batch_size: _Batch = 8,
    yes: Yes = False,
    dtype: _Dtype = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Label the draft's tokens by whether the target's answer stays the same with them (AutoJudge)."""
    settings = {
        "way": "equivalence", "target": target, "draft": draft, "endpoint": endpoint, "result": result,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    function = result_function(result)
    _check(context, output, questions, target, draft, overwrite=overwrite)
    texts = list(dict.fromkeys(case.question for case in read(questions)))
    progress = LabellingProgress(output, settings)

    from judge_decoding.cli.run.equivalence import run  # noqa: PLC0415  (loads torch)

    run(target, draft, endpoint, max_new_tokens, batch_size, dtype, texts, function, progress, yes=yes)


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
        say(f"{done} of {len(questions)} questions are done already.", err=True)
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


def labelled(cases: Sequence[Case], spent: LabellingCost, output: Path, unit: str = "target forwards") -> str:
    """What labelling gave and took, in words."""
    wrong = sum(len(case.errors) for case in cases)
    labels = sum(len(case.judged or ()) for case in cases)
    return (
        f"{labels} labels, {wrong} wrong, in {len(cases)} cases written to {output}; "
        f"{spent.cost:,} {unit} in {duration(spent.seconds)} now."
    )


def duration(seconds: float) -> str:
    """A time in words."""
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"


def _check(context: typer.Context, output: Path, *inputs: str | Path | None, overwrite: bool) -> None:
    part = output.with_name(output.name + ".part")
    check_outputs(
        [output], inputs, overwrite=overwrite, work=[part], alone=(context, output),
        own=lambda: [output] if part.exists() else [],
    )  # fmt: skip


def pair_names(target: str, draft: str | None, dtype: str) -> tuple[str, str]:
    """Names or folders of target and draft, all checked that can be without loading them."""
    check_dtype(dtype)
    if not has_draft(target, draft):
        raise JudgeDecodingError("There is no draft model whose tokens are to be labelled; give one with --draft.")
    if is_drafter(draft):
        raise JudgeDecodingError(f"{draft} has no tokens of its own to be labelled; give a draft model with --draft.")
    return embedded_path(target, "target"), embedded_path(draft or REFERENCE, "draft")
