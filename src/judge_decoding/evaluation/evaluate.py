"""Evaluate one decoding method on a task, compared with the target alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedTokenizerBase

from judge_decoding.core.results import TARGET, ItemResult, ResultRow, row
from judge_decoding.core.samples import Sample
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.draft_lengths import warm_up
from judge_decoding.evaluation.record import RecordedAnswer, ResultKey, ResultRecord
from judge_decoding.evaluation.recording import record as sample_of
from judge_decoding.evaluation.recording import recorded_threshold
from judge_decoding.evaluation.trial import Method, Outcome, compare, has_room
from judge_decoding.models.chat import render
from judge_decoding.rules.base import AnyOf, VerificationRule
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat

METHOD = "method"
"""The name of the evaluated decoding method in the record."""


def fitting(
    items: Sequence[Item], prompt_format: PromptFormat, decoder: JudgeDecoder, on_bad: Callable[[str], None]
) -> list[Item]:
    """Return the items whose first prompt leaves room in the context; report the others to ``on_bad``.

    Raises:
        JudgeDecodingError: no item fits, or the chat template rejects them.
    """
    found = []
    for item in items:
        if has_room(decoder, prompt_format.prompt(item)):
            found.append(item)
        else:
            on_bad(f"the question {item.key} fills the whole context.")
    if not found:
        raise JudgeDecodingError(
            "No question leaves room for an answer in the context of these models; use shorter ones."
        )
    return found


def forms(items: Sequence[Item], prompt_format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    """Return the bare question and the full first prompt of each item, to search for them in the training data."""
    prompts = [prompt_format.prompt(item) for item in items]
    return [
        [item.turns[0], prompt if isinstance(prompt, str) else render(prompt, tokenizer)]
        for item, prompt in zip(items, prompts, strict=True)
    ]


def hash_of(items: Sequence[Item]) -> str:
    """Return the SHA-256 of the items."""
    return hashlib.sha256(json.dumps([asdict(item) for item in items]).encode()).hexdigest()


def evaluate(
    method: Method,
    prompt_format: PromptFormat,
    items: Sequence[Item],
    *,
    record: ResultRecord | None = None,
    alone: bool = True,
    batch_size: int = 1,
    progress: Callable[[str, ItemResult], None] = lambda *_: None,
    **about: Any,  # noqa: ANN401  (checked by Sample)
) -> tuple[list[Sample], dict[str, Outcome]]:
    """Answer a task, and return the samples with their rounds and the outcomes.

    With ``batch_size`` 1 each method first answers the beginning of the first item, without being timed.

    Args:
        method: the decoding method.
        prompt_format: the prompt format of the items.
        items: the items to answer.
        record: stores finished answers, and contains those of an earlier run.
        alone: whether the target also answers alone, alternating with the method.
        batch_size: items per batch; above 1 nothing is timed.
        progress: called with each answer as it is finished: the method's name and the item's result.
        about: names of the models for the samples.

    Returns:
        The samples, one per turn, in the order of the items; the outcomes under `METHOD` and `TARGET`.
    """
    methods = {METHOD: method} | ({TARGET: method.alone()} if alone else {})
    recorded: dict[ResultKey, RecordedAnswer] = dict(record.done) if record is not None else {}

    def keep(name: str, item: Item, one: ItemResult, generations: Sequence[Generation]) -> None:
        if name == METHOD:
            found = [
                _sample(method, prompt_format, item, turn, answer) for turn, answer in enumerate(generations, start=1)
            ]
            # With several turns, the verdict is about the last one.
            found[-1] = found[-1].model_copy(update={"correct": one.correct})
            rows = [sample.model_copy(update=about).model_dump(mode="json", exclude_none=True) for sample in found]
        else:
            rows = [
                {"text": prompt_format.bare(answer.text), "tokens": len(answer.token_ids), "seconds": answer.seconds}
                for answer in generations
            ]
        recorded[name, item.key] = RecordedAnswer(one, rows)
        if record is not None:
            record.add((name, item.key), recorded[name, item.key])
        progress(name, one)

    known = record.done if record is not None else None
    if batch_size == 1:
        warm_up(methods, prompt_format, items, known)
    outcomes = compare(methods, prompt_format, items, keep, batch_size=batch_size, known=known)
    samples = []
    for place, item in enumerate(items):
        theirs = recorded[TARGET, item.key].extra if alone else []
        verdict = outcomes[TARGET].answers[place].correct if alone else None
        for turn, fields in enumerate(recorded[METHOD, item.key].extra):
            beside: dict[str, Any] = {} if batch_size == 1 else {"seconds": None}
            if turn < len(theirs):
                own = theirs[turn]
                beside |= {"target_text": own["text"], "target_tokens": own["tokens"]}
                if batch_size == 1:
                    beside["target_seconds"] = own["seconds"]
                if turn == len(item.turns) - 1 and verdict is not None:
                    beside["target_correct"] = verdict
            samples.append(Sample.model_validate(fields | beside))
    return samples, outcomes


def _sample(method: Method, prompt_format: PromptFormat, item: Item, turn: int, answer: Generation) -> Sample:
    rule = method.rule
    return sample_of(
        item.turns[turn - 1],
        answer.rounds,
        answer.pieces,
        method.decoder,
        reference=item.reference,
        seconds=answer.seconds,
        finish_reason=answer.finish_reason,
        lossy=answer.lossy,
        rule=str(rule) if rule is not None else "",
        threshold=recorded_threshold(rule) if rule is not None else None,
        temperature=method.sampling.temperature,
        seed=method.sampling.seed,
        task=str(prompt_format.task),
        item=item.key,
        turn=turn,
        category=item.category,
    )


def result_rows(name: str, method: Method, outcomes: Mapping[str, Outcome], margin: float) -> dict[str, ResultRow]:
    """Return the rows of the table by method: the target alone, if it was measured, and the method, called ``name``.

    ``margin`` is the share of right answers that may be lost for the method to count as non-inferior.
    """
    theirs = outcomes.get(TARGET)
    rows = {METHOD: method_row(name, method, outcomes[METHOD], theirs, margin)}
    return rows if theirs is None else {TARGET: method_row(TARGET, method.alone(), theirs, None, margin), **rows}


def method_row(
    name: str,
    method: Method,
    outcome: Outcome,
    target: Outcome | None,
    margin: float,
    family: tuple[str, str] | None = None,
) -> ResultRow:
    """Return the row of a method; ``family`` is its rule's family and setting, by default those of `label`."""
    rule, setting = family or (label(method.rule) if method.rule is not None else (name, ""))
    return row(
        outcome.answers, None if target is None else target.answers, margin=margin, name=name, rule=rule,
        setting=setting, num_draft_tokens=method.num_draft_tokens, temperature=method.sampling.temperature,
        lossless=method.rule is None or method.rule.is_lossless,
    )  # fmt: skip


def label(rule: VerificationRule) -> tuple[str, str]:
    """Return a rule's family and its setting, the values of its parameters."""
    if isinstance(rule, AnyOf):
        return str(rule), ""
    arguments = str(rule).removeprefix(rule.name).strip("()")
    return rule.name, ", ".join(part.partition("=")[2] for part in arguments.split(", ") if part)
