"""Fitting a head: weighted logistic regression, and its cross-validation over questions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from judge_decoding.errors import JudgeDecodingError

ClassWeights = Literal["balanced", "none"]
"""Whether both classes have the same total weight, or every token has the same weight."""

_STEPS = 100
"""More steps improve the loss by less than 1e-3 and do not change the ranking."""

_ROWS = 8192

_BLOCK = 2**19
"""Values in a block of features; a block stays in the processor's cache between the two passes over it."""


def standardise(features: Tensor) -> tuple[Tensor, Tensor]:
    """Scale every column of ``features`` [N, H] to mean 0 and deviation 1, in place; return mean and scale [H].

    It works in blocks, because a copy of all features may not fit into memory.

    Raises:
        JudgeDecodingError: a feature is not finite, as can happen in half precision.
    """
    mean, squares = features.mean(0), torch.zeros(features.shape[1])
    for part in features.split(_ROWS):
        squares += part.sub_(mean).square().sum(0)
    scale = (squares / max(len(features) - 1, 1)).sqrt().clamp(min=1e-6)
    if not (mean.isfinite().all() and scale.isfinite().all()):
        raise JudgeDecodingError("Some hidden states are not finite; load the model in another dtype (bfloat16).")
    for part in features.split(_ROWS):
        part.div_(scale)
    return mean, scale


def token_weights(labels: Tensor, classes: ClassWeights = "balanced", wrong_weight: float = 1.0) -> Tensor:
    """Weight of each token in the loss, 1 in total, for ``labels`` [N] of 0 (wrong), 1 (correct) and -1 (left out).

    Args:
        labels: the verdicts.
        classes: "balanced" gives both classes the same total weight.
        wrong_weight: a factor on the weight of the wrong tokens.
    """
    right, wrong = (labels == 1).float(), (labels == 0).float()
    if classes == "balanced":
        right, wrong = right / right.sum(), wrong / wrong.sum()
    weights = right + wrong_weight * wrong
    return weights / weights.sum()


def scatter(features: Tensor) -> Tensor:
    """The mean of ``x x'`` over standardised features [N, H] as [H, H], from an even sample of at most 8192 rows."""
    some = features[:: -(-len(features) // _ROWS)]
    return some.T @ some / len(some)


def minimise(
    features: Tensor,
    labels: Tensor,
    weights: Tensor,
    l2: float,
    start: Tensor | None = None,
    spread: Tensor | None = None,
) -> Tensor:
    """Fit several logistic regressions on the same features at once, each with its own token weights.

    Minimises ``sum(weights * cross-entropy) + l2 |w|²/2`` for every column of ``weights`` by L-BFGS. All fits together
    cost little more than a single one, because passing over the features dominates the time.

    Hidden states vary a thousand times as much along some directions as along others, and L-BFGS would need hundreds of
    steps. So it works in coordinates in which the bound of the second derivative, ``spread / 4 + l2`` (Böhning 1992),
    is the identity. That changes the path to the solution, not the solution.

    Args:
        features: standardised [N, H].
        labels: 0 or 1 [N].
        weights: [N, C], each column 1 in total; tokens of weight 0 are ignored.
        l2: weight decay.
        start: an initial solution, such as the one for a larger ``l2``.
        spread: the `scatter` of the features, if it is already known.

    Returns:
        C solutions [C, H + 1], the bias last.
    """
    width = features.shape[1]
    spread = scatter(features) if spread is None else spread
    # At least what single precision can resolve next to the largest direction; otherwise the factorisation fails.
    factor = torch.linalg.cholesky(spread / 4 + max(l2, 1e-6 * width) * torch.eye(width))
    sign = (2 * labels.float() - 1)[:, None]
    begin = torch.zeros(weights.shape[1], width + 1) if start is None else start
    point = torch.cat((begin[:, :width] @ factor, begin[:, width:]), 1).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [point], max_iter=_STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-6, tolerance_change=1e-6
    )
    rows = max(_BLOCK // width, 1)
    blocks = list(zip(features.split(rows), sign.split(rows), weights.split(rows), strict=True))

    def weight_at(point: Tensor) -> Tensor:
        # One row per fit, with products in this order, is many times as fast as one column per fit.
        weight: Tensor = torch.linalg.solve_triangular(factor, point[:, :width], upper=False, left=False)
        return weight.contiguous()

    def loss() -> Tensor:
        with torch.no_grad():
            weight, bias = weight_at(point), point[:, width]
            value, slope = l2 * weight.square().sum() / 2, l2 * weight
            slope_of_bias = torch.zeros_like(bias)
            for block, signs, shares in blocks:
                margin = signs * linear(block, weight, bias)
                value += (shares * softplus(-margin)).sum()
                pull = -shares * signs * torch.sigmoid(-margin)
                slope.addmm_(pull.T, block)
                slope_of_bias += pull.sum(0)
            slope = torch.linalg.solve_triangular(factor.T, slope, upper=True, left=False)
            point.grad = torch.cat((slope, slope_of_bias[:, None]), 1)
        return value

    optimizer.step(loss)
    found = point.detach()
    return torch.cat((weight_at(found), found[:, width:]), 1)


def fold(solution: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, float]:
    """Convert a solution [H + 1] on standardised features to weight [H] and bias on the original features."""
    weight = solution[:-1].double() / scale.double()
    return weight.float(), float(solution[-1].double() - weight @ mean.double())


def deal(questions: Sequence[str], labels: Tensor, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Distribute the questions over folds so that every fold has its share of questions with wrong tokens.

    Args:
        questions: the question of each token [N], under a name that equal questions share.
        labels: 0 or 1 [N].
        folds: the number of folds; fewer are used if fewer questions have wrong or correct tokens.
        seed: changes the distribution.

    Returns:
        fold [N] and rank [N]: the position of a token's question among those of its kind, as a share from 0 to 1. The
            order is that of hashes, so it does not depend on the order of the cases.

    Raises:
        JudgeDecodingError: a class has tokens of fewer than two questions.
    """
    verdicts: dict[str, set[int]] = {}
    for question, label in zip(questions, labels.tolist(), strict=True):
        verdicts.setdefault(question, set()).add(label)
    order = sorted(verdicts, key=lambda question: hashlib.sha256(f"{seed} {question}".encode()).digest())
    # Questions with both verdicts come in the middle, so that those of each class are adjacent and reach all folds.
    kinds = [[question for question in order if verdicts[question] == kind] for kind in ({0}, {0, 1}, {1})]
    count = min(folds, len(kinds[0] + kinds[1]), len(kinds[1] + kinds[2]))
    if count < 2:
        raise JudgeDecodingError(
            "A judge is tested on questions it was not trained on, so both correct and wrong tokens must occur in "
            "two or more questions; add cases with and without located errors."
        )
    fold_of = {question: number % count for number, question in enumerate(chain(*kinds))}
    share = {question: (n + 0.5) / len(kind) for kind in kinds for n, question in enumerate(kind)}
    return torch.tensor([fold_of[q] for q in questions]), torch.tensor([share[q] for q in questions])


@dataclass(frozen=True, slots=True)
class Validated:
    """A fit and its scores on questions that it was not trained on.

    Attributes:
        solution: fitted on all tokens, for standardised features [H + 1].
        scores: probability of CORRECT of each token [N], by a fit without its question.
        l2: the chosen weight decay.
        log_loss: log-loss of the scores, weighted as in training, in nats.
        tried: the weight decays that were tried, in order, each with its log-loss.
    """

    solution: Tensor
    scores: Tensor
    l2: float
    log_loss: float
    tried: tuple[tuple[float, float], ...] = ()


def cross_validate(
    features: Tensor,
    labels: Tensor,
    fold_of: Tensor,
    l2: Sequence[float],
    classes: ClassWeights = "balanced",
    wrong_weight: float = 1.0,
    *,
    train: Tensor | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Validated | None:
    """Choose a weight decay by the log-loss out of fold.

    The fits start from the strongest decay, each initialised with the previous one, and stop when the loss gets worse.

    Args:
        features: standardised [N, H].
        labels: 0 or 1 [N].
        fold_of: index of the fold of each token [N].
        l2: weight decays to try.
        classes: see `token_weights`.
        wrong_weight: see `token_weights`.
        train: bool [N], the tokens that may be used for training; all tokens are scored.
        progress: called after each weight decay.

    Returns:
        the best fit, or None if a training part lacks one of the classes.
    """
    used = torch.ones_like(labels, dtype=torch.bool) if train is None else train
    inside, own = (features, labels) if train is None else (features[used], labels[used])
    count = int(fold_of.max()) + 1
    parts = [own.where(fold_of[used] != k, -1) for k in range(count)]
    parts.append(own)
    if any(not (part == verdict).any() for part in parts for verdict in (0, 1)):
        return None
    weights = torch.stack([token_weights(part, classes, wrong_weight) for part in parts], 1)
    measure = token_weights(labels, classes, wrong_weight)
    sign = 2 * labels.float() - 1
    best: Validated | None = None
    tried: list[tuple[float, float]] = []
    solutions: Tensor | None = None
    spread = scatter(inside)
    for decay in sorted(l2, reverse=True):
        solutions = minimise(inside, own, weights, decay, solutions, spread)
        apart = linear(features, solutions[:count, :-1].contiguous(), solutions[:count, -1])
        logits = apart.gather(1, fold_of[:, None])[:, 0]
        loss = float((measure * softplus(-sign * logits)).sum())
        tried.append((decay, loss))
        progress()
        if best is not None and not loss < best.log_loss:
            break
        best = Validated(solutions[-1], torch.sigmoid(logits), decay, loss)
    return None if best is None else replace(best, tried=tuple(tried))
