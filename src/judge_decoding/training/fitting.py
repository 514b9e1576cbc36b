"""The fit of a head: weighted logistic regression, and its cross-validation over questions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from judge_decoding.errors import JudgeDecodingError

ClassWeights = Literal["balanced", "none"]
"""Whether both classes weigh the same in sum, or every token does."""

_STEPS = 100
"""More bring less than 1e-3 of the loss, and no ranking."""

_ROWS = 8192

_BLOCK = 2**19
"""Numbers of a block of features that stays in the processor's cache from the first to the second look at it."""


def standardise(features: Tensor) -> tuple[Tensor, Tensor]:
    """Bring every column of ``features`` [N, H] to mean 0 and deviation 1, in place; its mean and scale [H].

    In parts, as a copy of all features may not fit into memory.

    Raises:
        JudgeDecodingError: a feature is not finite, as half precision makes them.
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
    """Weight of each token in the loss, 1 in sum: from ``labels`` [N] of 0 (wrong), 1 (correct) and -1 (left out).

    Args:
        labels: the verdicts.
        classes: "balanced" gives both classes the same weight in sum.
        wrong_weight: a factor on that of the wrong tokens.
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
    """Several logistic regressions on the same features at once, each with token weights of its own.

    Minimises ``sum(weights * cross-entropy) + l2 |w|²/2`` for every column of ``weights`` by L-BFGS. Together they cost
    little more than one, since what takes time is to go through the features.

    Hidden states vary a thousand times as much along some directions as along others, which takes L-BFGS hundreds of
    steps. So it works in coordinates in which the bound of the second derivative, ``spread / 4 + l2`` (Böhning 1992),
    is the identity. That changes the way to the solution, not the solution.

    Args:
        features: standardised [N, H].
        labels: 0 or 1 [N].
        weights: [N, C], each column 1 in sum; tokens of weight 0 are not seen.
        l2: weight decay.
        start: a solution to start from, such as that of a larger ``l2``.
        spread: the `scatter` of the features, if it is known.

    Returns:
        C solutions [C, H + 1], the bias last.
    """
    width = features.shape[1]
    spread = scatter(features) if spread is None else spread
    # No less than what single precision can tell from nothing beside the largest direction, or there is no factor.
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
        # A row a fit and products in this order: many times as fast as with a column a fit.
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
    """A solution [H + 1] on standardised features as weight [H] and bias for those that they were made of."""
    weight = solution[:-1].double() / scale.double()
    return weight.float(), float(solution[-1].double() - weight @ mean.double())


def deal(questions: Sequence[str], labels: Tensor, folds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Deal the questions out to folds, so that every fold has its share of those with wrong tokens.

    Args:
        questions: of each token [N], under a name that equal ones share.
        labels: 0 or 1 [N].
        folds: how many; fewer, if fewer questions have wrong or correct tokens.
        seed: another one deals otherwise.

    Returns:
        fold [N] and rank [N]: the place of a token's question among those of its kind, as a share from 0 to 1. The
        order is that of hashes, so it does not depend on the order of the cases.

    Raises:
        JudgeDecodingError: a class has tokens of fewer than two questions.
    """
    verdicts: dict[str, set[int]] = {}
    for question, label in zip(questions, labels.tolist(), strict=True):
        verdicts.setdefault(question, set()).add(label)
    order = sorted(verdicts, key=lambda question: hashlib.sha256(f"{seed} {question}".encode()).digest())
    # Those with both verdicts in the middle: so the questions of each class are neighbours, and in all folds.
    kinds = [[question for question in order if verdicts[question] == kind] for kind in ({0}, {0, 1}, {1})]
    count = min(folds, len(kinds[0] + kinds[1]), len(kinds[1] + kinds[2]))
    if count < 2:
        raise JudgeDecodingError(
            "A judge is tested on questions it was not trained on, so both correct and wrong tokens must be there in "
            "two questions or more; add cases with and without located errors."
        )
    place = {question: number % count for number, question in enumerate(chain(*kinds))}
    share = {question: (n + 0.5) / len(kind) for kind in kinds for n, question in enumerate(kind)}
    return torch.tensor([place[q] for q in questions]), torch.tensor([share[q] for q in questions])


@dataclass(frozen=True, slots=True)
class Validated:
    """A fit and how it does on questions that it was not trained on.

    Attributes:
        solution: fitted on all tokens, standardised [H + 1].
        scores: probability of CORRECT of each token [N], by a fit without its question.
        l2: the weight decay chosen.
        log_loss: of the scores, weighted as in training, in nats.
    """

    solution: Tensor
    scores: Tensor
    l2: float
    log_loss: float


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

    From the strongest on, each fit starting at the one before it, until a weaker decay makes the loss worse.

    Args:
        features: standardised [N, H].
        labels: 0 or 1 [N].
        fold_of: number of the fold of each token [N].
        l2: weight decays to try.
        classes: see `token_weights`.
        wrong_weight: see `token_weights`.
        train: bool [N], tokens that may be trained on; all of them are scored.
        progress: called after each weight decay.

    Returns:
        the best, or None if some part to train on lacks one of the classes.
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
    solutions: Tensor | None = None
    spread = scatter(inside)
    for decay in sorted(l2, reverse=True):
        solutions = minimise(inside, own, weights, decay, solutions, spread)
        apart = linear(features, solutions[:count, :-1].contiguous(), solutions[:count, -1])
        logits = apart.gather(1, fold_of[:, None])[:, 0]
        loss = float((measure * softplus(-sign * logits)).sum())
        progress()
        if best is not None and not loss < best.log_loss:
            break
        best = Validated(solutions[-1], torch.sigmoid(logits), decay, loss)
    return best
