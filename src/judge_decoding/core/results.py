"""A row of a table: what one way of decoding costs and gives, with intervals, beside the target alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
"""Behind a rule's name: its distribution-matched baseline."""
TARGET = "target alone"
"""The name of the row that the others are held against."""


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one item, all of its turns together.

    Attributes:
        item: its key.
        correct: whether the answer is right; None where that cannot be told.
        rounds: target forwards.
        tokens: new tokens, end tokens included.
        accepted: accepted draft tokens.
        seconds: of decoding, prompts included; None where others were decoded in the same time.
        cut_off: whether an answer ended at the token budget or the context length, not by itself.
    """

    item: str
    correct: bool | None
    rounds: int
    tokens: int
    accepted: int
    seconds: float | None = None
    cut_off: bool = False


class Row(BaseModel):
    """One setting of one rule over a whole task.

    All intervals are of 95%. What cannot be told, such as the accuracy of a task without right and wrong answers, is
    None.

    Attributes:
        name: what the row is called.
        rule: the family it belongs to, drawn in one colour and shape.
        setting: what tells it from others of the family, such as "0.7"; written beside its point.
        num_draft_tokens: draft length; 0 without a draft.
        temperature: 0 is greedy.
        lossless: verified without loss: the distribution is the target's own, or that of the target cut off where a
            matched baseline says.
        answers: how many items were answered.
        cut_off: how many of the answers ended at the token budget or the context length, not by themselves.
        checked: of how many of them it can be told whether they are right.
        right: how many are.
        accuracy, accuracy_low, accuracy_high: share of right answers, Wilson's interval.
        difference, difference_low, difference_high: accuracy less that of the target alone on the same items,
            Newcombe's interval.
        mcnemar_p: exact two-sided McNemar p against the target alone.
        non_inferior: the lower end of the difference is above ``-margin``: shown not to be worse by more than that.
            False is not shown, which with few items says little.
        graded: of how many items the grades are known.
        grade, grade_low, grade_high: the mean of their grades.
        rounds, tokens, accepted: target forwards, new tokens, accepted draft tokens.
        accepted_per_round, accepted_per_round_low, accepted_per_round_high: accepted draft tokens per round.
        tokens_per_forward, tokens_per_forward_low, tokens_per_forward_high: tokens per target forward, correction and
            bonus included.
        tokens_per_answer: mean length of an answer.
        tokens_per_second: of decoding alone, prompts included.
        speedup, speedup_low, speedup_high: tokens per second over those of the target alone on the same items.
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
    accepted: int = Field(default=0, ge=0)
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


class ResultsBase(BaseModel):
    """What all results say of how they came about.

    Attributes:
        task: the task's spelling.
        data_hash: SHA-256 of the items.
        target, draft, judge: names of the models, "" for none.
        dtype: of the target's numbers.
        max_new_tokens: token budget of an answer.
        machine: the machine in words.
        versions: of what was used.
        command: the command line.
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


class Results(ResultsBase):
    """What ``evaluate`` and ``sweep`` write: the rows, and all that is needed to have them again.

    Attributes:
        data: where its items are from: a data set, or a file's name.
        items: how many were asked.
        judge_hash: `JudgeHead.weights_hash`, which tells a head whatever it is called; "" if it is not known.
        temperature: of the answers that are compared; baselines that sample tell their own.
        chat: the prompts went through the chat template.
        grader: the model that graded the answers, where they are graded.
        margin: what ``non_inferior`` allows, as a share.
        rows: the target alone is the first one.
        tuning: how the draft lengths were chosen: rows on other items.
        distances: how unlike the judge's training questions the items are, where that is known.
    """

    data: str = ""
    items: int = 0
    judge_hash: str = ""
    temperature: float = 0.0
    chat: bool = False
    grader: str = ""
    margin: float = 0.0
    rows: tuple[Row, ...] = Field(min_length=1)
    tuning: tuple[Row, ...] = ()
    distances: tuple[float, ...] = ()


def read_results(path: str | Path) -> Results:
    """Read what ``evaluate`` or ``sweep`` wrote.

    Raises:
        JudgeDecodingError: it cannot be read, or is no such file.
    """
    return parse_results(read_text(Path(path), "the results"), path)


def parse_results(text: str | bytes, path: str | Path) -> Results:
    """The results in the text of a file that is called ``path``.

    Raises:
        JudgeDecodingError: there are none.
    """
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
    **about: Any,  # noqa: ANN401  (checked by Row)
) -> Row:
    """The row of one way of decoding.

    Args:
        answers: its answers.
        target: those of the target alone to the same items; None for the target itself, or where there are none.
        margin: of non-inferiority, as a share.
        about: name, rule, setting, ...

    Raises:
        JudgeDecodingError: the answers are to other items than the target's.
    """
    if target is not None and [one.item for one in answers] != [one.item for one in target]:
        raise JudgeDecodingError("The answers that are compared are to different items; answer the same ones.")
    rounds, tokens = sum(one.rounds for one in answers), sum(one.tokens for one in answers)
    accepted = sum(one.accepted for one in answers)
    timed = all(one.seconds for one in answers)
    found: dict[str, Any] = {
        "answers": len(answers), "cut_off": sum(one.cut_off for one in answers),
        "rounds": rounds, "tokens": tokens, "accepted": accepted,
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
    return Row(**found, **about)


def with_grades(row: Row, grades: Sequence[float]) -> Row:
    """The row with the mean of its items' grades."""
    if not grades:
        return row
    mean = sum(grades) / len(grades)
    return row.model_copy(update={"graded": len(grades), "grade": mean, **_ends("grade", mean_interval(grades))})


def _against(answers: Sequence[ItemResult], target: Sequence[ItemResult], margin: float) -> dict[str, Any]:
    """The accuracy beside the target's, on the items of which both can be told."""
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
