"""``judge-decoding court label likelihood`` and ``equivalence``: labels of single tokens by the models themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.terminal import say

if TYPE_CHECKING:
    from judge_decoding.data.cases import Case
    from judge_decoding.decoder import JudgeDecoder
    from judge_decoding.labelling.labels.pilot import Forecast, Labeller, Spent
    from judge_decoding.labelling.labels.progress import Progress

_Questions = Annotated[Path, typer.Argument(help="TokenCourt file (JSONL) with the questions.")]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Where the labels go.")]
_Target = Annotated[str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded pair.")]
_Draft = Annotated[str | None, typer.Option(help="Draft model with the target's vocabulary.")]
_Tokens = Annotated[int, typer.Option(min=1, help="Token budget of an answer.")]
_Batch = Annotated[int, typer.Option(min=1, help="How much shares a forward.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask after the cost was told.")]
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
    yes: _Yes = False,
    dtype: _Dtype = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Label the draft's tokens by how likely the target finds them and what follows (SelfJudge); no checker."""
    from judge_decoding.cli.court_files import read
    from judge_decoding.labelling.labels.progress import Progress

    if given:
        check_used(context, "With --given, where nothing is generated,", "--max-new-tokens", "--batch-size")
    settings = {
        "way": "likelihood", "target": target, "draft": draft, "threshold": threshold, "given": given,
        "suffix": suffix, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    _check(context, output, questions, target, draft, overwrite=overwrite)
    cases = read(questions)
    progress = Progress(output, settings)

    from judge_decoding.data.tokens import split_ids
    from judge_decoding.labelling.labels.likelihood import LikelihoodConfig, label_by_likelihood
    from judge_decoding.rules.exact import Exact

    config = LikelihoodConfig(threshold, suffix)
    decoder = load_decoder(target, draft, dtype)
    ends = {*decoder.end_ids, decoder.tokenizer.eos_token_id}
    texts: dict[str, list[Case]] = {}
    for case in cases:
        texts.setdefault(case.question, []).append(case)

    def words(case: Case) -> list[int]:
        """An answer without its end token, which is no text of its writer's."""
        ids = split_ids(case, decoder.tokenizer)[1]
        return ids[:-1] if case.ended and ids[-1:] and ids[-1] in ends else ids

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        for first in range(0, len(todo), batch_size):
            part = todo[first : first + batch_size]
            if given:
                answers = [[words(case) for case in texts[question]] for question in part]
                costs = [0] * len(part)
            else:
                made = decoder.generate_batch(part, max_new_tokens, batch_size=batch_size, rule=Exact(), temperature=0)
                answers, costs = [[list(one.token_ids)] for one in made], [1 + one.stats.rounds for one in made]
            for question, own, cost in zip(part, answers, costs, strict=True):
                found: list[Case] = []
                spent = cost
                for answer in own:
                    labelled, forwards = label_by_likelihood(decoder, question, answer, config)
                    found += labelled
                    spent += forwards
                done(question, found, spent)

    made, told = run(list(texts), label, progress, yes=yes)
    say(told)
    scores = sorted(case.score for case in made if case.score is not None)
    quantiles = ", ".join(f"{share}% {scores[len(scores) * share // 100]:.2f}" for share in (10, 25, 50, 75, 90))
    say(f"Scores: {quantiles}.")


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
    yes: _Yes = False,
    dtype: _Dtype = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Label the draft's tokens by whether the target's answer stays the same with them (AutoJudge)."""
    from judge_decoding.cli.court_files import read
    from judge_decoding.labelling.labels.progress import Progress
    from judge_decoding.tasks.results import result_function

    settings = {
        "way": "equivalence", "target": target, "draft": draft, "endpoint": endpoint, "result": result,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    function = result_function(result)
    _check(context, output, questions, target, draft, overwrite=overwrite)
    texts = list(dict.fromkeys(case.question for case in read(questions)))
    progress = Progress(output, settings)

    from judge_decoding.labelling.labels.equivalence import label_by_equivalence

    rollouts = None
    if endpoint is None:
        decoder = load_decoder(target, draft, dtype)
    else:
        from judge_decoding.io.endpoint import PREFIX, Endpoint
        from judge_decoding.labelling.labels.rollouts import endpoint_rollouts

        rollouts = endpoint_rollouts(Endpoint(endpoint.removeprefix(PREFIX), concurrency=batch_size))
        decoder = _draft_with_tokenizer_of(target, draft, dtype)

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        label_by_equivalence(
            decoder, todo, function, max_new_tokens=max_new_tokens, batch_size=batch_size, done=done, rollouts=rollouts
        )

    unit = "target forwards" if endpoint is None else "tokens of the endpoint"
    say(run(texts, label, progress, yes=yes, unit=unit)[1])


def run(
    questions: list[str],
    label: Labeller,
    progress: Progress,
    *,
    yes: bool,
    unit: str = "target forwards",
) -> tuple[list[Case], str]:
    """Label what is not done yet: a few questions first, then, with the cost told and agreed to, the rest.

    ``unit`` is what the cost is counted in. The cases, and a sentence about them.
    """
    from judge_decoding.cli.court_files import agree
    from judge_decoding.cli.steps import steps
    from judge_decoding.labelling.labels.pilot import label_rest

    done = sum(question in progress.done for question in questions)
    if done:
        say(f"{done} of {len(questions)} questions are done already.", err=True)
    with steps() as screen:

        def ask(cost: Forecast) -> None:
            with screen.paused():
                agree(forecast(cost, unit), yes=yes)

        spent = label_rest(questions, label, progress, agree=ask, tell=screen)
    cases = progress.finish(questions)
    return cases, labelled(cases, spent, progress.output, unit)


def forecast(cost: Forecast, unit: str = "target forwards") -> str:
    """What labelling will take, in words."""
    return (
        f"{cost.questions} questions gave {cost.labels} labels. The other {cost.left} will take about "
        f"{cost.cost:,.0f} {unit} and {duration(cost.seconds)}."
    )


def labelled(cases: Sequence[Case], spent: Spent, output: Path, unit: str = "target forwards") -> str:
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


def load_decoder(target: str, draft: str | None, dtype: str, device: str | None = None) -> JudgeDecoder:
    """The pair; 'reference' is the embedded one."""
    from judge_decoding.decoder import JudgeDecoder
    from judge_decoding.loading.models import usual_device

    large, small = _names(target, draft, dtype)
    return JudgeDecoder.from_pretrained(large, small, dtype=dtype, device=device or usual_device())


def _draft_with_tokenizer_of(target: str, draft: str | None, dtype: str) -> JudgeDecoder:
    """What is needed here of a pair whose target is elsewhere."""
    from transformers import GenerationConfig

    from judge_decoding.decoder import JudgeDecoder
    from judge_decoding.loading.models import (
        cannot_load,
        check_same_vocabulary,
        load_model,
        load_tokenizer,
        usual_device,
    )

    large, small = _names(target, draft, dtype)
    tokenizer = load_tokenizer(large)
    check_same_vocabulary(tokenizer, load_tokenizer(small))
    model = load_model(small, dtype=dtype, device=usual_device())
    try:  # an answer ends where the target ends it
        ends = GenerationConfig.from_pretrained(large).eos_token_id
    except OSError:
        ends = None
    except Exception as error:  # transformers follows a file that anybody may have written
        raise cannot_load("generation configuration", large, error) from error
    if ends is not None and model.generation_config is not None:
        model.generation_config.eos_token_id = ends
    return JudgeDecoder(model, tokenizer, model)


def _names(target: str, draft: str | None, dtype: str) -> tuple[str, str]:
    """Names or folders of target and draft, all checked that can be without loading them."""
    from judge_decoding.cli.models import check_dtype
    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.names import REFERENCE, has_draft, is_drafter, place_of

    check_dtype(dtype)
    if not has_draft(target, draft):
        raise JudgeDecodingError("There is no draft model whose tokens are to be labelled; give one with --draft.")
    if is_drafter(draft):
        raise JudgeDecodingError(f"{draft} has no tokens of its own to be labelled; give a draft model with --draft.")
    return place_of(target, "target"), place_of(draft or REFERENCE, "draft")
