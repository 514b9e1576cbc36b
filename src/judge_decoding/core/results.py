"""Result rows: cost and quality of one way of decoding, with intervals, compared with the target alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem, read_text
from judge_decoding.statistics import (
    difference_interval,
    mcnemar,
    mean_interval,
    rate_ratio_interval,
    ratio_interval,
    wilson,
)

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
MATCHED = ", matched"
"""Suffix of a rule's name that marks its distribution-matched baseline."""
TARGET = "target alone"
"""The name of the row that the others are compared with."""


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The result of one item, over all of its turns.

    Attributes:
        item: the item's key.
        correct: whether the answer is correct; None if that cannot be determined.
        rounds: number of target forwards.
        tokens: number of new tokens, end tokens included.
        accepted: number of accepted draft tokens.
        seconds: decoding time, prompts included; None if other items were decoded in the same batch.
        cut_off: whether an answer ended at the token budget or the context length, not by itself.
        drafted: number of draft tokens.
        positions: for each position of a draft, how many drafts were accepted up to and including it, and how many
            reached it; see `Stats.positions`.
    """

    item: str
    correct: bool | None
    rounds: int
    tokens: int
    accepted: int
    seconds: float | None = None
    cut_off: bool = False
    drafted: int = 0
    positions: Sequence[Sequence[int]] = ()


class ResultRow(BaseModel):
    """One setting of one rule over a whole task.

    All intervals are 95% intervals. Values that cannot be determined, such as the accuracy of a task without correct
    and wrong answers, are None.

    Attributes:
        name: the row's name.
        rule: the rule family, which plots draw in one colour and shape.
        setting: what distinguishes the row within its family, such as "0.7"; plots write it beside the point.
        num_draft_tokens: draft length; 0 without a draft.
        temperature: the sampling temperature; 0 is greedy.
        lossless: whether verification is lossless: the output distribution is the target's own or, for a matched
            baseline, that of the truncated target.
        answers: number of items answered.
        cut_off: number of answers that ended at the token budget or the context length, not by themselves.
        checked: number of answers that could be checked.
        right: number of correct answers.
        accuracy, accuracy_low, accuracy_high: share of correct answers, Wilson's interval.
        difference, difference_low, difference_high: accuracy minus that of the target alone on the same items,
            Newcombe's interval.
        mcnemar_p: exact two-sided McNemar p against the target alone.
        non_inferior: whether the lower end of the difference is above ``-margin``, so that the row is shown not to be
            worse by more than that. False means not shown, which says little when there are few items.
        graded: number of items with known grades.
        grade, grade_low, grade_high: mean grade of these items.
        rounds, tokens, drafted, accepted: numbers of target forwards, new tokens, draft tokens and accepted ones.
        acceptance_rate: accepted draft tokens as a share of all draft tokens.
        acceptance_by_position: for each position, the share of the drafts reaching it that are accepted up to and
            including it.
        accepted_per_round, accepted_per_round_low, accepted_per_round_high: accepted draft tokens per round.
        tokens_per_forward, tokens_per_forward_low, tokens_per_forward_high: tokens per target forward, correction and
            bonus included.
        tokens_per_answer: mean length of an answer.
        tokens_per_second: decoding speed, prompts included.
        speedup, speedup_low, speedup_high: tokens per second divided by those of the target alone on the same items.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    rule: str
    setting: str = ""
    num_draft_tokens: int = Field(ge=0)
    temperature: Amount = 0.0
    lossless: bool = False
    answers: int = Field(default=0, ge=0)
    cut_off: int = Field(default=0, ge=0)
    checked: int = Field(default=0, ge=0)
    right: int = Field(default=0, ge=0)
    accuracy: Share | None = None
    accuracy_low: Share | None = None
    accuracy_high: Share | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    mcnemar_p: Share | None = None
    non_inferior: bool | None = None
    graded: int = Field(default=0, ge=0)
    grade: float | None = None
    grade_low: float | None = None
    grade_high: float | None = None
    rounds: int = Field(default=0, ge=0)
    tokens: int = Field(default=0, ge=0)
    drafted: int = Field(default=0, ge=0)
    accepted: int = Field(default=0, ge=0)
    acceptance_rate: Share | None = None
    acceptance_by_position: tuple[Share, ...] = ()
    accepted_per_round: Amount | None = None
    accepted_per_round_low: Amount | None = None
    accepted_per_round_high: Amount | None = None
    tokens_per_forward: Amount
    tokens_per_forward_low: Amount | None = None
    tokens_per_forward_high: Amount | None = None
    tokens_per_answer: Amount | None = None
    tokens_per_second: Amount | None = None
    speedup: Amount | None = None
    speedup_low: Amount | None = None
    speedup_high: Amount | None = None

    @model_validator(mode="after")
    def _interval_holds_it(self) -> Self:
        if self.accuracy is not None and not (
            self.accuracy_low is not None
            and self.accuracy_high is not None
            and self.accuracy_low <= self.accuracy <= self.accuracy_high
        ):
            raise ValueError(f"the accuracy {self.accuracy} is outside its interval")
        return self

    @property
    def ended_in_draft(self) -> float:
        """The share of rounds with no token of the target's own: an end token or stop string was inside the draft.

        ``tokens_per_forward == accepted_per_round + 1 - ended_in_draft``.
        """
        return (self.rounds - self.tokens + self.accepted) / max(self.rounds, 1)


class LoadRow(BaseModel):
    """The speed of one method at one load: ``batch_size`` answers decoded together.

    ``num_draft_tokens`` is 0 for the target alone; ``tokens_per_second`` counts all answers, prompts included.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    batch_size: int = Field(ge=1)
    num_draft_tokens: int = Field(ge=0)
    tokens_per_second: Amount


class ResultsBase(BaseModel):
    """The provenance that all results record.

    Attributes:
        task: the task's spelling.
        data_hash: SHA-256 of the items.
        target, draft, judge: names of the models, "" if there is no such model.
        dtype: the target's dtype.
        max_new_tokens: token budget of an answer.
        machine: a description of the machine.
        versions: versions of the software used.
        command: the command line.
        config: the file beside these results that repeats the run; "" if there is none.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    task: str = ""
    data_hash: str = ""
    target: str = ""
    draft: str = ""
    judge: str = ""
    dtype: str = ""
    max_new_tokens: int = 0
    machine: str = ""
    versions: dict[str, str] = {}
    command: tuple[str, ...] = ()
    config: str = ""


class Results(ResultsBase):
    """The output of ``evaluate`` and ``sweep``: the rows, and everything needed to reproduce them.

    Attributes:
        data: the source of the items: a data set, or a file's name.
        items: number of items.
        judge_hash: `JudgeHead.weights_hash`, which identifies a head whatever its name; "" if unknown.
        temperature: temperature of the compared answers; rows of sampling baselines record their own.
        chat: whether the prompts went through the chat template.
        grader: the model that graded the answers, if they are graded.
        margin: the non-inferiority margin, as a share.
        rows: the rows, the target alone first.
        tuning: rows on other items, from which the draft lengths were chosen.
        distances: how unlike the judge's training questions the items are, where known.
        loads: the speed by load and draft length, if it was measured.
    """

    data: str = ""
    items: int = 0
    judge_hash: str = ""
    temperature: float = 0.0
    chat: bool = False
    grader: str = ""
    margin: float = 0.0
    rows: tuple[ResultRow, ...] = Field(min_length=1)
    tuning: tuple[ResultRow, ...] = ()
    distances: tuple[float, ...] = ()
    loads: tuple[LoadRow, ...] = ()


def read_results(path: str | Path) -> Results:
    """Read a file written by ``evaluate`` or ``sweep``."""
    return parse_results(read_text(Path(path), "the results"), path)


def parse_results(text: str | bytes, path: str | Path) -> Results:
    """Parse results from the content of the file ``path``."""
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        raise JudgeDecodingError(
            f"{path} has no results of evaluate or sweep: {first_problem(error)}; make it again."
        ) from error


def row(
    answers: Sequence[ItemResult],
    target: Sequence[ItemResult] | None = None,
    *,
    margin: float = 0.02,
    **about: Any,  # noqa: ANN401  (checked by ResultRow)
) -> ResultRow:
    """Build the row of one way of decoding.

    Args:
        answers: its results, one per item.
        target: results of the target alone on the same items; None for the target itself, or if there are none.
        margin: the non-inferiority margin, as a share.
        about: other fields of the row: name, rule, setting, ...
    """
    if target is not None and [one.item for one in answers] != [one.item for one in target]:
        raise JudgeDecodingError("The answers that are compared are to different items; answer the same ones.")
    rounds, tokens = sum(one.rounds for one in answers), sum(one.tokens for one in answers)
    accepted, drafted = sum(one.accepted for one in answers), sum(one.drafted for one in answers)
    timed = all(one.seconds for one in answers)
    found: dict[str, Any] = {
        "answers": len(answers), "cut_off": sum(one.cut_off for one in answers),
        "rounds": rounds, "tokens": tokens, "drafted": drafted, "accepted": accepted,
        "acceptance_rate": accepted / drafted if drafted else None, "acceptance_by_position": _by_position(answers),
        "accepted_per_round": accepted / max(rounds, 1), "tokens_per_forward": tokens / max(rounds, 1),
        "tokens_per_answer": tokens / max(len(answers), 1),
        **_ends("accepted_per_round", ratio_interval([(one.accepted, one.rounds) for one in answers])),
        **_ends("tokens_per_forward", ratio_interval([(one.tokens, one.rounds) for one in answers])),
    }  # fmt: skip
    if timed:
        found["tokens_per_second"] = tokens / sum(one.seconds or 0.0 for one in answers)
    verdicts = [one.correct for one in answers if one.correct is not None]
    if verdicts:
        found |= {"checked": len(verdicts), "right": sum(verdicts), "accuracy": sum(verdicts) / len(verdicts)}
        found |= _ends("accuracy", wilson(sum(verdicts), len(verdicts)))
    if target is not None:
        found |= _against(answers, target, margin)
        if timed and all(one.seconds for one in target):
            own = sum(one.tokens for one in target) / sum(one.seconds or 0.0 for one in target)
            found["speedup"] = found["tokens_per_second"] / own
            rates = [
                (a.tokens, a.seconds or 0.0, b.tokens, b.seconds or 0.0) for a, b in zip(answers, target, strict=True)
            ]
            found |= _ends("speedup", rate_ratio_interval(rates))
    return ResultRow(**found, **about)


def _by_position(answers: Sequence[ItemResult]) -> tuple[float, ...]:
    columns = zip_longest(*(one.positions for one in answers), fillvalue=(0, 0))
    sums = [(sum(accepted for accepted, _ in column), sum(reached for _, reached in column)) for column in columns]
    return tuple(accepted / reached for accepted, reached in sums)


def fastest_non_inferior(rows: Sequence[ResultRow]) -> ResultRow | None:
    """Return the fastest row that is shown to be non-inferior, matched baselines apart; None if there is none."""
    good = [row for row in rows if row.non_inferior and not row.rule.endswith(MATCHED)]
    return max(good, key=lambda row: (row.speedup or 0.0, row.tokens_per_forward), default=None)


def with_grades(row: ResultRow, grades: Sequence[float]) -> ResultRow:
    """Return the row with the mean of its items' grades."""
    if not grades:
        return row
    mean = sum(grades) / len(grades)
    return row.model_copy(update={"graded": len(grades), "grade": mean, **_ends("grade", mean_interval(grades))})


def _against(answers: Sequence[ItemResult], target: Sequence[ItemResult], margin: float) -> dict[str, Any]:
    """Compare the accuracy with the target's, on the items where both are known."""
    pairs = [
        (a.correct, b.correct)
        for a, b in zip(answers, target, strict=True)
        if a.correct is not None and b.correct is not None
    ]
    if not pairs:
        return {}
    own, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    low, high = difference_interval(own, theirs)
    return {
        "difference": (sum(own) - sum(theirs)) / len(pairs),
        "difference_low": low,
        "difference_high": high,
        "mcnemar_p": mcnemar(own, theirs),
        "non_inferior": low > -margin,
    }


def _ends(name: str, interval: tuple[float, float] | None) -> dict[str, float]:
    return {} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]}
