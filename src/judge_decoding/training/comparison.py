"""Candidates for a head under the same measurements: target sources, trivial detectors, smaller shares of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.core.tracking import Logger, log_fields
from judge_decoding.training.calibration import Aim, auc, outcome
from judge_decoding.training.fitting import Validated, cross_validate, standardise
from judge_decoding.training.options import TrainingConfig

SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the questions for the learning curve; its last point uses all of them."""

STILL_RISING = 0.01
"""If the second half of the questions raises the AUC by more than this, more data would help."""

FEW_WRONG, FEW_QUESTIONS = 50, 10
"""Fewer wrong tokens, or fewer questions with a wrong token, are too few for reliable figures."""


LOGGED = ("auc", "auc_numbers", "log_loss", "threshold", "kept_correct", "caught_wrong")
"""The figures of a candidate that are logged."""


@dataclass(frozen=True, slots=True)
class LabelledTokens:
    """The tokens with a verdict, in the same order everywhere.

    Attributes:
        labels: 1 (correct) or 0 (wrong) [N].
        numbers: whether the token is a number, bool [N].
        fold: index of the fold of its question [N].
        rank: position of its question among all, as a share [N]; see `fitting.deal`.
        questions, wrong_questions: the number of questions, and of those with a wrong token.
    """

    labels: Tensor
    numbers: Tensor
    fold: Tensor
    rank: Tensor
    questions: int
    wrong_questions: int


@dataclass(frozen=True, slots=True)
class FittedSource:
    """A source, the fit on it, and its row of the table."""

    source: HiddenSource
    fit: Validated
    mean: Tensor
    scale: Tensor
    row: dict[str, Any]


def validate(
    features: Tensor, tokens: LabelledTokens, config: TrainingConfig, tick: Callable[[], None], share: float = 1.0
) -> Validated | None:
    """Cross-validate on standardised features [N, H]: train on a ``share`` of the questions and test on all."""
    return cross_validate(
        features, tokens.labels, tokens.fold, config.l2, config.class_weights, config.wrong_weight,
        train=None if share == 1 else tokens.rank < share, progress=tick,
    )  # fmt: skip


def candidate(
    source: HiddenSource, features: Tensor, tokens: LabelledTokens, config: TrainingConfig, tick: Callable[[], None]
) -> FittedSource:
    """Fit a head on raw features [N, H], which are standardised in place."""
    mean, scale = standardise(features)
    fit = validate(features, tokens, config, tick)
    assert fit is not None  # `fitting.deal` ensures that both classes are in every fold
    row = {"detector": str(source), "layer": source.layer, "norm": source.norm}
    return FittedSource(source, fit, mean, scale, row | measures(fit.scores, tokens, config.goal, fit.log_loss))


def log_candidate(logger: Logger | None, one: FittedSource, tokens: LabelledTokens) -> None:
    """Log a candidate: the log-loss of each weight decay, the AUC in each fold, and the figures of the best decay."""
    if logger is None:
        return
    name = str(one.source)
    for decay, loss in one.fit.tried:
        log_fields(logger, name, {"l2": decay, "log_loss_by_l2": loss})
    for k in range(int(tokens.fold.max()) + 1):
        inside = tokens.fold == k
        log_fields(logger, name, {"fold": k, "fold_auc": auc(one.fit.scores[inside], tokens.labels[inside].bool())})
    log_fields(logger, name, {key: one.row[key] for key in LOGGED})


def measures(scores: Tensor, tokens: LabelledTokens, aim: Aim, log_loss: float | None = None) -> dict[str, Any]:
    """Measure a detector by its scores [N], on any scale; a higher score means more likely correct."""
    correct, numbers = tokens.labels.bool(), tokens.numbers
    both = numbers.any() and 0 < int(correct[numbers].sum()) < int(numbers.sum())
    threshold = aim.threshold(scores, correct)
    return {
        "auc": auc(scores, correct),
        "auc_numbers": auc(scores[numbers], correct[numbers]) if both else None,
        "log_loss": log_loss,
        "threshold": threshold,
        **outcome(scores, correct, threshold),
    }


def learning_curve(
    features: Tensor, tokens: LabelledTokens, config: TrainingConfig, whole: float, tick: Callable[[], None]
) -> list[dict[str, Any]]:
    """AUC over shares of the questions, on standardised features [N, H]; ``whole`` is the AUC on all questions.

    All points are tested on all questions, out of fold. Shares that lack training tokens of one class are left out.
    """
    rows = []
    for share in SHARES:
        fit = validate(features, tokens, config, tick, share)
        if fit is not None:
            count = round(share * tokens.questions)
            rows.append({"share": share, "questions": count, "auc": auc(fit.scores, tokens.labels)})
    return [*rows, {"share": 1.0, "questions": tokens.questions, "auc": whole}]


def doubts(tokens: LabelledTokens, curve: Sequence[dict[str, Any]]) -> list[str]:
    """List the reasons not to trust a head trained on so little data, one sentence each."""
    found = []
    wrong = int((tokens.labels == 0).sum())
    if wrong < FEW_WRONG or tokens.wrong_questions < FEW_QUESTIONS:
        found.append(
            f"There are only {wrong} wrong tokens, in {tokens.wrong_questions} questions, so the figures are rough; "
            f"label answers until there are {FEW_WRONG} in {FEW_QUESTIONS} questions."
        )
    half = next((row["auc"] for row in curve if row["share"] == 1 / 2), None)
    if half is not None and curve[-1]["auc"] - half > STILL_RISING:
        found.append(
            f"The judge is still learning (AUC {half:.3f} with half of the questions, {curve[-1]['auc']:.3f} with all "
            "of them); more labelled answers will make it better."
        )
    return found
