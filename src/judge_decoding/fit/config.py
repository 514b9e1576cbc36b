"""The settings of `fit_head`."""

from __future__ import annotations

from dataclasses import dataclass

from judge_decoding.bounds import check_bounds
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.thresholds import THRESHOLDS
from judge_decoding.tasks.results import ResultFunction, result_function, result_name


@dataclass(frozen=True, slots=True)
class FitConfig:
    """The settings of `fit_head`.

    Attributes:
        result: how to decide whether two answers agree: "number", "choice", "text", "regex:PATTERN", "module:function",
            or a function from an answer to its result (None if it has none).
        points: how many percentage points the accuracy may be below the target's.
        share: share of the prompts that choose threshold and draft length; the others are labelled.
        max_new_tokens: token budget of an answer.
        batch_size: answers that share the forward passes.
        seed: seed of the division of the prompts.
        thresholds: thresholds to try.
        exact_lengths: draft lengths to try for standard verification.
        judge_lengths: draft lengths to try for the judge.
        length_prompts: the most prompts on which each draft length is timed.
        timed_prompts: the most prompts of the table on which speeds are measured.

    Raises:
        JudgeDecodingError: a value is out of range, or the result is unknown.
    """

    result: str | ResultFunction = "number"
    points: float = 1.0
    share: float = 0.4
    max_new_tokens: int = 256
    batch_size: int = 16
    seed: int = 0
    thresholds: tuple[float, ...] = THRESHOLDS
    exact_lengths: tuple[int, ...] = (2, 4, 6, 8)
    judge_lengths: tuple[int, ...] = (4, 8, 12, 16, 24)
    length_prompts: int = 6
    timed_prompts: int = 12

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise JudgeDecodingError(f"share is {self.share:g}; it must be between 0 and 1.")
        check_bounds(self)
        for name in ("thresholds", "exact_lengths", "judge_lengths"):
            if not getattr(self, name):
                raise JudgeDecodingError(f"{name} is empty; give at least one value.")
        _ = self.function

    @property
    def function(self) -> ResultFunction:
        """The function from an answer to its result.

        Raises:
            JudgeDecodingError: there is no such function.
        """
        return result_function(self.result) if isinstance(self.result, str) else self.result

    @property
    def result_name(self) -> str:
        """The result in words, to distinguish settings."""
        return result_name(self.result)
