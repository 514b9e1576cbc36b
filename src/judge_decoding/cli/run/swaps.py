"""Implementation of ``court label likelihood`` and ``equivalence``: labels of the tokens that a draft would replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import GenerationConfig

from judge_decoding.cli.checks import check_dtype
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.court_swaps import EquivalenceOptions, LikelihoodOptions
from judge_decoding.cli.shared import agree
from judge_decoding.cli.steps import steps
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import Case
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import PREFIX, Endpoint
from judge_decoding.labelling.labels.equivalence import endpoint_rollouts, label_by_equivalence
from judge_decoding.labelling.labels.likelihood import LikelihoodConfig, label_questions
from judge_decoding.labelling.labels.progress import Forecast, Labeller, LabellingCost, LabellingProgress, label_rest
from judge_decoding.loading.models import cannot_load, check_same_vocabulary, default_device, load_model, load_tokenizer
from judge_decoding.names import REFERENCE, embedded_path, has_draft, is_drafter
from judge_decoding.tasks.results import ResultFunction

FORWARDS = "target forwards"
"""What labelling costs, where the target is on this machine."""


def likelihood(options: LikelihoodOptions, cases: list[Case], progress: LabellingProgress) -> None:
    """Label the tokens, and write them."""
    config = LikelihoodConfig(options.label_threshold, options.suffix)
    with Terminal(err=True).status("loading the models"):
        decoder = load_decoder(options.target, options.draft, options.dtype, options.device)
    texts: dict[str, list[Case]] = {}
    for case in cases:
        texts.setdefault(case.question, []).append(case)

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        given = {question: texts[question] for question in todo} if options.given else None
        label_questions(
            decoder, todo, config, given, done, max_new_tokens=options.max_new_tokens, batch_size=options.batch_size
        )

    made = _label_all(list(texts), label, progress, yes=options.yes)
    scores = sorted(case.score for case in made if case.score is not None)
    quantiles = ", ".join(f"{share}% {scores[len(scores) * share // 100]:.2f}" for share in (10, 25, 50, 75, 90))
    say(f"Scores: {quantiles}.")


def equivalence(
    options: EquivalenceOptions, texts: list[str], result: ResultFunction, progress: LabellingProgress
) -> None:
    """Label the tokens, and write them."""
    rollouts, models = None, (options.target, options.draft, options.dtype, options.device)
    if options.endpoint is None:
        with Terminal(err=True).status("loading the models"):
            decoder = load_decoder(*models)
    else:
        endpoint = Endpoint(options.endpoint.removeprefix(PREFIX), concurrency=options.batch_size)
        rollouts, decoder = endpoint_rollouts(endpoint), _draft_with_tokenizer_of(*models)

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        label_by_equivalence(
            decoder, todo, result, max_new_tokens=options.max_new_tokens, batch_size=options.batch_size, done=done,
            rollouts=rollouts,
        )  # fmt: skip

    unit = FORWARDS if options.endpoint is None else "tokens of the endpoint"
    _label_all(texts, label, progress, yes=options.yes, unit=unit)


def _label_all(
    questions: list[str], label: Labeller, progress: LabellingProgress, *, yes: bool, unit: str = FORWARDS
) -> list[Case]:
    """Label what is not done yet: a few questions first, then, after the cost was printed and confirmed, the rest."""
    done = sum(question in progress.done for question in questions)
    if done:
        say(f"{done} of {len(questions)} questions are already done.", err=True)
    with steps() as screen:

        def ask(cost: Forecast) -> None:
            with screen.paused():
                agree(forecast(cost, unit), yes=yes)

        spent = label_rest(questions, label, progress, agree=ask, report=screen)
    cases = progress.finish(questions)
    say(labelled(cases, spent, progress.output, unit))
    return cases


def forecast(cost: Forecast, unit: str = FORWARDS) -> str:
    """What labelling will take, in words."""
    return (
        f"{cost.questions} questions gave {cost.labels} labels. The other {cost.left} will take about "
        f"{cost.cost:,.0f} {unit} and {duration(cost.seconds)}."
    )


def labelled(cases: Sequence[Case], spent: LabellingCost, out: Path, unit: str = FORWARDS) -> str:
    """What labelling gave and took, in words."""
    wrong = sum(len(case.errors) for case in cases)
    labels = sum(len(case.judged or ()) for case in cases)
    return (
        f"{labels} labels, {wrong} wrong, in {len(cases)} cases written to {out}; "
        f"{spent.cost:,} {unit} in {duration(spent.seconds)} now."
    )


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"


def load_decoder(target: str, draft: str | None, dtype: str, device: str | None) -> JudgeDecoder:
    """Target and draft; 'reference' is the embedded pair."""
    large, small = _names(target, draft, dtype)
    return JudgeDecoder.from_pretrained(large, small, dtype=dtype, device=device or default_device())


def _draft_with_tokenizer_of(target: str, draft: str | None, dtype: str, device: str | None) -> JudgeDecoder:
    """What is needed here of a pair whose target is elsewhere."""
    large, small = _names(target, draft, dtype)
    tokenizer = load_tokenizer(large)
    check_same_vocabulary(tokenizer, load_tokenizer(small))
    model = load_model(small, dtype=dtype, device=device or default_device())
    try:  # the target's end tokens end an answer
        ends = GenerationConfig.from_pretrained(large).eos_token_id
    except OSError:
        ends = None
    except Exception as error:  # transformers reads an untrusted file here
        raise cannot_load("generation configuration", large, error) from error
    if ends is not None and model.generation_config is not None:
        model.generation_config.eos_token_id = ends
    return JudgeDecoder(model, tokenizer, model)


def _names(target: str, draft: str | None, dtype: str) -> tuple[str, str]:
    """Names or folders of target and draft, with all checked that can be without loading them."""
    check_dtype(dtype)
    if not has_draft(target, draft):
        raise JudgeDecodingError("There is no draft model whose tokens are to be labelled; give one with --draft.")
    if is_drafter(draft):
        raise JudgeDecodingError(f"{draft} has no tokens of its own to be labelled; give a draft model with --draft.")
    return embedded_path(target, "target"), embedded_path(draft or REFERENCE, "draft")
