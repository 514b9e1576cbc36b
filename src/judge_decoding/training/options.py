"""How a head is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from judge_decoding.bounds import check_bounds
from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.training.calibration import Aim
from judge_decoding.training.fitting import ClassWeights
from judge_decoding.training.labels import AfterError, Labels


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a head is trained.

    Attributes:
        labels: which tokens are wrong: the first of the first error ("error"), all that touch an error ("span"), or
            all from the first error on ("from_error").
        after_error: how the other tokens after the first error count, unless all of them are wrong.
        norm: use the last layer's hidden states before or after the target's final norm, or try "both".
        layers: layers to try, counted from the end; layers below -1 are always read before the norm. The head uses the
            source with the best AUC out of fold.
        class_weights: "balanced" gives both classes the same total weight, "none" gives every token the same.
        wrong_weight: a factor on the weight of the wrong tokens.
        l2: weight decays to try on standardised features; the one with the lowest log-loss out of fold is used.
        folds: the number of cross-validation folds; all answers to a question are in the same fold.
        aim: the criterion for the threshold, on scores out of fold: "keep=0.95" (of correct tokens) or "catch=0.9" (of
            wrong ones).
        baseline: compare with the target's log-probability and rank of the token; always done for several sources.
        seed: seed of the folds.

    Raises:
        JudgeDecodingError: a value is out of range.
    """

    labels: Labels = "span"
    after_error: AfterError = "ignore"
    norm: Norm | Literal["both"] = "after"
    layers: tuple[int, ...] = (-1,)
    class_weights: ClassWeights = "balanced"
    wrong_weight: float = 1.0
    l2: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    folds: int = 5
    aim: str = "catch=0.95"
    baseline: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("labels", get_args(Labels)),
            ("after_error", get_args(AfterError)),
            ("norm", (*get_args(Norm), "both")),
            ("class_weights", get_args(ClassWeights)),
        ):
            if getattr(self, name) not in allowed:
                raise JudgeDecodingError(f"{name} is {getattr(self, name)}; it must be one of {', '.join(allowed)}.")
        check_bounds(self)
        for name in ("layers", "l2"):
            if not getattr(self, name):
                raise JudgeDecodingError(f"{name} is empty; give at least one number.")
        if self.goal.kind == "accuracy":
            raise JudgeDecodingError(
                f"aim is {self.aim}, which needs a task and not only labels; it must be keep= or catch=."
            )

    @property
    def sources(self) -> tuple[HiddenSource, ...]:
        """All hidden sources to try."""
        norms: tuple[Norm, ...] = ("before", "after") if self.norm == "both" else (self.norm,)
        found = [HiddenSource(-1, norm) for norm in norms if -1 in self.layers]
        return (*found, *(HiddenSource(layer, "before") for layer in sorted(set(self.layers) - {-1}, reverse=True)))

    @property
    def reading(self) -> str:
        """How labels are read, in words for people."""
        return self.labels if self.labels == "from_error" else f"{self.labels}, after the error: {self.after_error}"

    @property
    def goal(self) -> Aim:
        """The parsed aim."""
        return Aim.parse(self.aim)

    @property
    def compares(self) -> bool:
        """Whether several detectors are compared in a table."""
        return self.baseline or len(self.sources) > 1
