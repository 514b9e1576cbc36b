"""Choose a judge's threshold by task accuracy: how many answers are right with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from judge_decoding.bounds import check_bound
from judge_decoding.core.results import ItemResult
from judge_decoding.core.tracking import Logger, log_fields
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.record import KeptRecord, RecordedAnswer
from judge_decoding.evaluation.trial import Method, compare
from judge_decoding.io.locks import one_run
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import shape
from judge_decoding.models.provenance import fingerprint
from judge_decoding.rules import Exact, Judge, VerificationRule
from judge_decoding.tasks.base import Item, Task, guarded
from judge_decoding.tasks.prompt_format import PromptFormat

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)
"""The thresholds to try."""


def calibration_items(task: Task, items: Sequence[Item]) -> list[Item]:
    """The items that a threshold can be chosen by: each question once, and only those with checkable answers.

    Raises:
        JudgeDecodingError: there are no such items, or the task does not check its answers as right or wrong.
    """
    if task.scoring != "check" or any(len(item.turns) > 1 for item in items):
        raise JudgeDecodingError(
            f"The task {task} cannot be used for calibration, because not every question has one turn and a "
            "checkable answer; use another task."
        )
    once: dict[tuple[str, ...], Item] = {}
    for item in items:
        once.setdefault(item.turns, item)
    found = []
    for item in once.values():
        with guarded(task, item.key):
            if task.check(item, "") is not None:
                found.append(item)
    if not found:
        raise JudgeDecodingError(
            "No question of the calibration task has a reference with a result; add references, or choose another "
            "--checker."
        )
    return found


def lowest_threshold(curve: Sequence[dict[str, Any]], target_accuracy: float, points: float) -> float:
    """The lowest threshold of ``curve`` whose accuracy is at most ``points`` percentage points below the target's.

    Raises:
        JudgeDecodingError: there is no such threshold.
    """
    # The tolerance is for rounding errors, which must not reject a threshold.
    good = [row["threshold"] for row in curve if row["accuracy"] >= target_accuracy - points / 100 - 1e-9]
    if not good:
        best = max(row["accuracy"] for row in curve)
        raise JudgeDecodingError(
            f"No threshold keeps the accuracy within {points:g} points of the target's {target_accuracy:.1%} (the best "
            f"has {best:.1%}); allow more points, or train on more answers."
        )
    return float(min(good))


def calibrate(
    decoder: JudgeDecoder,
    head: JudgeHead,
    prompt_format: PromptFormat,
    items: Sequence[Item],
    points: float,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    num_draft_tokens: int | None = None,
    batch_size: int = 8,
    part: Path | None = None,
    keep_part: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Set a head's threshold to the lowest at which the task loses at most ``points`` percentage points of accuracy.

    The accuracy of the target alone and the whole curve go into the head's configuration.

    Args:
        decoder: the target with a draft model.
        head: changed in place.
        prompt_format: how the items are put to the model.
        items: items from `calibration_items`; the head must not be trained on them, see `check_not_trained_on`.
        points: how many percentage points the accuracy may be below the target's.
        thresholds: the thresholds to try.
        num_draft_tokens: draft length M.
        batch_size: how many answers share the forward passes.
        part: a file of the finished answers, from which a stopped calibration resumes.
        keep_part: keep this file at the end, so that repeating the same calibration takes no time.
        progress: called after each answer, ``(len(thresholds) + 1) * len(items)`` times.

    Raises:
        JudgeDecodingError: no threshold is good enough, or another run is using ``part``.
    """
    check_bound("points", points)
    rules: dict[str, VerificationRule] = {"target": Exact(), **{str(t): Judge(head, t) for t in thresholds}}
    methods = {name: Method(decoder, rule, num_draft_tokens or 0) for name, rule in rules.items()}
    with nullcontext() if part is None else one_run(part):
        record = None
        if part is not None:
            settings = identity(decoder, described(prompt_format, items), num_draft_tokens, head=head)
            record = KeptRecord(part, {"of": settings})
        known = {} if record is None else record.done
        for _ in known.keys() & {(name, item.key) for name in methods for item in items}:
            progress()

        def keep(name: str, item: Item, answered: ItemResult, _: Sequence[Generation]) -> None:
            if record is not None:
                record.add((name, item.key), RecordedAnswer(answered))
            progress()

        # Prompts of similar length are answered together, for little padding; a lack of memory shows with the longest.
        ranked = sorted(items, key=lambda item: len(item.turns[0]), reverse=True)
        outcomes = compare(methods, prompt_format, ranked, keep, batch_size=batch_size, known=known)
    figures = {name: _figures(outcome.answers) for name, outcome in outcomes.items()}
    own = figures["target"]["accuracy"]
    curve = [{"threshold": t} | figures[str(t)] for t in thresholds]
    head.config.threshold = lowest_threshold(curve, own, points)
    head.config.calibration |= {
        "aim": f"accuracy={points:g}",
        "threshold": head.config.threshold,
        "kept_correct": None,
        "caught_wrong": None,
        "problems": len(items),
        "target_accuracy": own,
        "curve": curve,
    }
    if part is not None and not keep_part:
        part.unlink(missing_ok=True)


def _figures(answers: Sequence[ItemResult]) -> dict[str, float]:
    """The share of right answers, and the accepted draft tokens per round."""
    return {
        "accuracy": sum(one.correct is True for one in answers) / len(answers),
        "accepted_per_round": sum(one.accepted for one in answers) / max(sum(one.rounds for one in answers), 1),
    }


def log_calibration(logger: Logger | None, head: JudgeHead) -> None:
    """Log the accuracy and the accepted draft tokens at each threshold that `calibrate` tried."""
    for row in head.config.calibration["curve"]:
        log_fields(logger, "calibration", row)


def described(prompt_format: PromptFormat, items: Sequence[Item]) -> list[Any]:
    """The items and how they are put, as plain JSON values, to recognise the same work."""
    return [
        str(prompt_format.task),
        prompt_format.chat,
        prompt_format.system,
        prompt_format.budget,
        [asdict(item) for item in items],
    ]


def identity(decoder: JudgeDecoder, *settings: Any, head: JudgeHead | None = None) -> str:  # noqa: ANN401  (any JSON value)
    """A hash that distinguishes work with these models, this head and these settings from other work."""
    models = (decoder.target, decoder.draft_model)
    known = [shape(model) | {"weights": fingerprint(model), "dtype": str(model.dtype)} for model in models if model]
    weights = b"" if head is None else head.linear.weight.detach().float().cpu().numpy().tobytes()
    return hashlib.sha256(json.dumps([*settings, known]).encode() + weights).hexdigest()
