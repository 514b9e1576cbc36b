"""The threshold of a judge by what counts: how many answers to a task are right with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel

from judge_decoding.bounds import check_bound
from judge_decoding.core.rounds import Stats
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import parse_json, read_text, rows, write_json
from judge_decoding.io.locks import one_run
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import shape
from judge_decoding.models.provenance import fingerprint
from judge_decoding.rules import Exact, Judge, VerificationRule
from judge_decoding.tasks.results import same_result

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)
"""Tried one by one."""


class Question(BaseModel):
    """A line of a calibration task; a TokenCourt case is one, too."""

    model_config = ConfigDict(frozen=True)

    question: str
    reference: str


def read_questions(path: Path) -> list[Question]:
    """Read a JSONL file with a ``question``, the whole prompt, and a ``reference``, a right answer, in each line.

    Raises:
        JudgeDecodingError: it cannot be read, or a line has no such fields; the line is named.
    """
    complaint = "is no question with a reference: {}; mend or remove it."
    return [question for _, question in rows(path, "the calibration task", Question, complaint)]


@dataclass(frozen=True, slots=True)
class Task:
    """Questions whose answers can be checked.

    Attributes:
        prompts: the whole prompts, as the target reads them.
        right: whether the text of the answer to prompt number i is right.
        key: what tells ``right`` from that of another task with the same prompts.
    """

    prompts: Sequence[str]
    right: Callable[[int, str], bool]
    key: str = ""

    @classmethod
    def of(cls, questions: Sequence[Question], result: Callable[[str], str | None]) -> Task:
        """A task in which an answer is right if its ``result`` is that of the reference.

        Each question counts once; those whose reference has no result are left out.

        Raises:
            JudgeDecodingError: nothing is left.
        """
        wanted = {one.question: found for one in questions if (found := result(one.reference)) is not None}
        if not wanted:
            raise JudgeDecodingError(
                "No question of the calibration task has a reference with a result; add references, or choose another "
                "kind of result."
            )
        results = list(wanted.values())
        # The results of the references tell one kind of result from another, too.
        return cls(list(wanted), lambda i, text: same_result(result, result(text), results[i]), json.dumps(results))


def measure(
    decoder: JudgeDecoder,
    task: Task,
    rule: VerificationRule,
    *,
    max_new_tokens: int = 256,
    num_draft_tokens: int | None = None,
    batch_size: int = 8,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Answer the task greedily: the share of right answers, and the accepted draft tokens per round.

    ``progress`` is called after each answer.
    """
    answers = decoder.generate_batch(
        task.prompts, max_new_tokens, batch_size=batch_size, progress=progress, rule=rule,
        num_draft_tokens=num_draft_tokens, temperature=0,
    )  # fmt: skip
    stats = Stats()
    for answer in answers:
        stats.merge(answer.stats)
    right = sum(task.right(i, answer.text) for i, answer in enumerate(answers))
    return {"accuracy": right / len(answers), "accepted_per_round": stats.accepted_per_round}


def lowest_threshold(curve: Sequence[dict[str, Any]], target_accuracy: float, points: float) -> float:
    """The lowest threshold of ``curve`` whose accuracy is at most ``points`` (of 100) below the target's.

    Raises:
        JudgeDecodingError: there is none.
    """
    # Half an answer in a million must not be lost to rounding.
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
    task: Task,
    points: float,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    max_new_tokens: int = 256,
    num_draft_tokens: int | None = None,
    batch_size: int = 8,
    part: Path | None = None,
    keep_part: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Set a head's threshold to the lowest at which the task loses at most ``points`` of accuracy.

    The accuracy of the target itself and the whole curve go into the head's configuration.

    Args:
        decoder: the target with a draft.
        head: changed in place.
        task: on questions that the head was not trained on; see `check_not_trained_on`.
        points: of 100, that the accuracy may be below the target's.
        thresholds: which to try.
        max_new_tokens: token budget of an answer.
        num_draft_tokens: draft length M.
        batch_size: how many answers share the forwards.
        part: a file for what is done, with which a stopped calibration goes on.
        keep_part: do not remove it at the end, so that the same calibration is there at once another time.
        progress: called after each answer, ``(len(thresholds) + 1) * len(task.prompts)`` times.

    Raises:
        JudgeDecodingError: no threshold is good enough, or another run is at ``part``.
    """
    check_bound("points", points)
    rules: dict[str, VerificationRule] = {"target": Exact(), **{str(t): Judge(head, t) for t in thresholds}}
    settings = identity(decoder, list(task.prompts), task.key, max_new_tokens, num_draft_tokens, head=head)
    with nullcontext() if part is None else one_run(part):
        done = _begun(part, settings)
        for name, rule in rules.items():
            if name in done:
                for _ in task.prompts:
                    progress()
                continue
            done[name] = measure(
                decoder, task, rule, max_new_tokens=max_new_tokens, num_draft_tokens=num_draft_tokens,
                batch_size=batch_size, progress=progress,
            )  # fmt: skip
            if part is not None:
                write_json(part, {"settings": settings, "done": done})
    own = done["target"]["accuracy"]
    curve = [{"threshold": t} | done[str(t)] for t in thresholds]
    head.config.threshold = lowest_threshold(curve, own, points)
    head.config.calibration |= {
        "aim": f"accuracy={points:g}",
        "threshold": head.config.threshold,
        "kept_correct": None,
        "caught_wrong": None,
        "problems": len(task.prompts),
        "target_accuracy": own,
        "curve": curve,
    }
    if part is not None and not keep_part:
        part.unlink(missing_ok=True)


def identity(decoder: JudgeDecoder, *settings: Any, head: JudgeHead | None = None) -> str:  # noqa: ANN401  (any JSON value)
    """What tells work with these models, this head and these settings from other work: a hash."""
    models = [decoder.target, decoder.draft] if isinstance(decoder.draft, PreTrainedModel) else [decoder.target]
    known = [shape(model) | {"weights": fingerprint(model), "dtype": str(model.dtype)} for model in models]
    weights = b"" if head is None else head.linear.weight.detach().float().cpu().numpy().tobytes()
    return hashlib.sha256(json.dumps([*settings, known]).encode() + weights).hexdigest()


def _begun(part: Path | None, settings: str) -> dict[str, dict[str, float]]:
    """What a stopped calibration with the same settings has done."""
    if part is None or not part.exists():
        return {}
    try:
        begun = parse_json(read_text(part, "the unfinished calibration"))
        return dict(begun["done"]) if begun["settings"] == settings else {}
    except (JudgeDecodingError, ValueError, KeyError, TypeError):
        return {}
