"""The fit against its definition, and its validation over questions."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from judge_decoding import JudgeDecodingError
from judge_decoding.training import fitting
from judge_decoding.training.calibration import auc
from judge_decoding.training.fitting import cross_validate, deal, fold, minimise, standardise, token_weights


def fit_linear(
    features: Tensor,
    labels: Tensor,
    l2: float,
    classes: Literal["balanced", "none"] = "balanced",
    wrong_weight: float = 1.0,
) -> tuple[Tensor, float]:
    """Weighted logistic regression on ``features`` [N, H] and ``labels`` [N] of 0 and 1: weight [H] and bias.

    Features are standardised inside and the scaling folded into the result; see `token_weights` for the rest.
    """
    inside = features.float().clone()
    mean, scale = standardise(inside)
    weights = token_weights(labels, classes, wrong_weight)[:, None]
    return fold(minimise(inside, labels, weights, l2)[0], mean, scale)


def objective(parameters: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float) -> float:
    """Mean weighted cross-entropy on standardised features, both classes of equal weight in sum, plus l2 |w|²/2."""
    weight, bias = parameters[:-1], parameters[-1]
    logits = (x - x.mean(0)) / x.std(0, ddof=1) @ weight + bias
    losses = np.where(y == 1, np.logaddexp(0, -logits), np.logaddexp(0, logits))
    return float((losses[y == 1].mean() + losses[y == 0].mean()) / 2 + l2 * weight @ weight / 2)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_fit_minimises_its_objective(l2: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + torch.tensor([0.0, 5, -1, 2])
    y = (x[:, 0] + x[:, 1] / 10 + torch.randn(300, generator=generator) > 1.5).long()
    assert 0.1 < y.float().mean() < 0.4
    weight, bias = fit_linear(x, y, l2)
    best = minimize(objective, np.zeros(5), args=(x.double().numpy(), y.numpy(), l2), tol=1e-10)
    scale, mean = x.std(0).double().numpy(), x.mean(0).double().numpy()
    folded = best.x[:-1] / scale
    assert weight.tolist() == pytest.approx(folded.tolist(), rel=5e-3, abs=1e-4)
    assert bias == pytest.approx(best.x[-1] - folded @ mean, rel=5e-3, abs=1e-3)


def test_the_fit_bears_a_feature_that_never_changes() -> None:
    x = torch.cat((torch.randn(50, 1, generator=torch.Generator().manual_seed(0)), torch.full((50, 1), 7.0)), dim=1)
    weight, bias = fit_linear(x, (x[:, 0] > 0).long(), 1e-2)
    assert math.isfinite(bias)
    assert weight[0] > 0
    assert abs(float(weight[1])) < 1e-3


def planted(count: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of which one column tells the label, with noise, and about a fifth of wrong tokens."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator)
    y = (x[:, 0] + torch.randn(count, generator=generator) > -1.2).long()
    return x, y


def test_features_are_standardised_in_place() -> None:
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 30, 0.01]) + 5
    original = x.clone()
    mean, scale = standardise(x)
    torch.testing.assert_close(mean, original.mean(0))
    torch.testing.assert_close(scale, original.std(0), rtol=1e-4, atol=0)
    torch.testing.assert_close(x, (original - mean) / scale)


def test_both_classes_weigh_the_same_unless_told_otherwise() -> None:
    labels = torch.tensor([1, 1, 1, 0, -1])
    assert token_weights(labels).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2, 0])
    assert token_weights(labels, wrong_weight=3).tolist() == pytest.approx([1 / 12, 1 / 12, 1 / 12, 3 / 4, 0])
    assert token_weights(labels, "none").tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 4, 0])
    assert token_weights(labels, "none", 2).tolist() == pytest.approx([1 / 5, 1 / 5, 1 / 5, 2 / 5, 0])


def test_fits_side_by_side_are_those_alone() -> None:
    x, y = planted(300, 5)
    standardise(x)
    parts = [y, y.where(torch.arange(300) % 3 > 0, -1), y.where(torch.arange(300) < 200, -1)]
    weights = torch.stack([token_weights(part) for part in parts], 1)
    together = minimise(x, y, weights, 1e-2)
    for row, part in enumerate(parts):
        kept = part >= 0
        alone = minimise(x[kept], y[kept], token_weights(y[kept])[:, None], 1e-2)[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-2, atol=2e-3)


def test_correlated_features_take_few_looks_at_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They vary along few directions much and along the others little, as hidden states do."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(2000, 64, generator=generator)
    y = (kinds @ torch.randn(64, generator=generator) / 5 + torch.randn(2000, generator=generator) > -1).long()
    x = kinds * torch.logspace(0, -2, 64) @ torch.randn(64, 64, generator=generator)
    standardise(x)
    looks = 0

    def counted(*args: Tensor) -> Tensor:
        nonlocal looks
        looks += 1
        return torch.nn.functional.linear(*args)

    monkeypatch.setattr(fitting, "linear", counted)
    weights = token_weights(y)[:, None]
    solution = minimise(x, y, weights, 1e-4)[0]
    assert 3 < looks < 20
    looks = 0
    plain = minimise(x, y, weights, 1e-4, spread=torch.eye(64))[0]  # coordinates as they are
    assert looks > 80  # the steps run out
    losses = [
        float((weights[:, 0] * torch.nn.functional.softplus(-(2 * y - 1) * (x @ w[:-1] + w[-1]))).sum())
        + 5e-5 * float(w[:-1].square().sum())
        for w in (solution, plain)
    ]
    assert losses[0] < losses[1] + 1e-5


@pytest.mark.parametrize("l2", [0, 1e-4])
def test_features_that_are_the_same_have_a_fit(l2: float) -> None:
    x = planted(200, 1)[0].expand(200, 700).contiguous()
    standardise(x)
    y = planted(200, 1)[1]
    solution = minimise(x, y, token_weights(y)[:, None], l2)[0]
    assert solution.isfinite().all()
    assert auc(x @ solution[:-1], y) > 0.7


def test_features_in_blocks_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = planted(300, 5)
    standardise(x)
    weights = token_weights(y)[:, None]
    whole = minimise(x, y, weights, 1e-2)
    monkeypatch.setattr(fitting, "_BLOCK", 5 * 7)
    torch.testing.assert_close(minimise(x, y, weights, 1e-2), whole, rtol=1e-3, atol=1e-4)


def test_a_heavier_wrong_class_is_caught_more_often() -> None:
    x, y = planted(400, 3)
    caught = []
    for weight in (0.2, 1.0, 5.0):
        w, bias = fit_linear(x, y, 1e-3, wrong_weight=weight)
        caught.append(float(((x @ w + bias)[y == 0] < 0).float().mean()))
    assert caught == sorted(caught)
    assert caught[0] < caught[2] - 0.3


def questions(count: int, each: int = 4) -> list[str]:
    return [f"question {i}" for i in range(count) for _ in range(each)]


def test_a_question_is_in_one_fold_and_every_fold_has_wrong_tokens() -> None:
    names = questions(60)
    labels = torch.ones(240, dtype=torch.long)
    labels[::24] = 0  # in ten of the questions
    fold, rank = deal(names, labels, 5, 0)
    by_question: dict[str, set[int]] = {}
    for name, number in zip(names, fold.tolist(), strict=True):
        by_question.setdefault(name, set()).add(number)
    assert all(len(found) == 1 for found in by_question.values())
    assert [sum(next(iter(found)) == k for found in by_question.values()) for k in range(5)] == [12] * 5
    assert [int(((fold == k) & (labels == 0)).sum()) for k in range(5)] == [2] * 5
    # Half of the questions by rank are half of those with wrong tokens, too.
    assert len({name for name, share in zip(names, rank.tolist(), strict=True) if share < 0.5}) == 30
    assert int(((rank < 0.5) & (labels == 0)).sum()) == 5


def test_the_folds_depend_on_question_and_seed_alone() -> None:
    names, labels = questions(40, 1), torch.tensor([0, 1] * 20)
    fold = deal(names, labels, 5, 0)[0]
    backwards = deal(names[::-1], labels.flip(0), 5, 0)[0]
    assert backwards.flip(0).tolist() == fold.tolist()
    assert deal(names, labels, 5, 1)[0].tolist() != fold.tolist()


@given(st.lists(st.sampled_from([(0,), (1,), (0, 1)]), min_size=1, max_size=12), st.integers(2, 6))
def test_both_classes_can_be_trained_on_without_any_fold(verdicts: list[tuple[int, ...]], count: int) -> None:
    names = [f"question {i}" for i, own in enumerate(verdicts) for _ in own]
    labels = torch.tensor([label for own in verdicts for label in own])
    if min(sum(verdict in own for own in verdicts) for verdict in (0, 1)) < 2:
        with pytest.raises(JudgeDecodingError, match="in two or more questions"):
            deal(names, labels, count, 0)
        return
    fold = deal(names, labels, count, 0)[0]
    assert int(fold.max()) + 1 <= count
    for k in range(int(fold.max()) + 1):
        assert set(labels[fold != k].tolist()) == {0, 1}


def test_few_questions_have_few_folds() -> None:
    labels = torch.tensor([0, 1] * 3)
    assert int(deal(questions(3, 2), labels, 5, 0)[0].max()) + 1 == 3


@pytest.mark.parametrize("wrong", [[], [0], [0, 1, 2, 3]])
def test_wrong_tokens_of_one_question_are_too_few(wrong: list[int]) -> None:
    labels = torch.ones(24, dtype=torch.long)
    labels[wrong] = 0
    with pytest.raises(JudgeDecodingError, match="in two or more questions"):
        deal(questions(6), labels, 5, 0)
    with pytest.raises(JudgeDecodingError, match="in two or more questions"):
        deal(questions(6), 1 - labels, 5, 0)


def folds(count: int) -> Tensor:
    return torch.arange(count) % 5


def test_labels_learnt_by_heart_do_not_show_out_of_fold() -> None:
    """More features than tokens: random labels are fitted perfectly, and scored like chance."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 600, generator=generator)
    y = (torch.rand(400, generator=generator) > 0.3).long()
    standardise(x)
    found = cross_validate(x, y, folds(400), [1e-3])
    assert found is not None
    by_heart = x @ found.solution[:-1] + found.solution[-1]
    assert auc(by_heart, y) == 1.0
    assert 0.4 < auc(found.scores, y) < 0.6


def test_scores_out_of_fold_are_those_of_fits_without_the_fold() -> None:
    x, y = planted(200, 4)
    standardise(x)
    fold = folds(200)
    found = cross_validate(x, y, fold, [1e-2])
    assert found is not None
    for k in range(5):
        kept = fold != k
        alone = minimise(x[kept], y[kept], token_weights(y[kept])[:, None], 1e-2)[0]
        expected = torch.sigmoid(x[fold == k] @ alone[:-1] + alone[-1])
        torch.testing.assert_close(found.scores[fold == k], expected, rtol=0, atol=5e-3)


def test_the_weight_decay_is_that_of_the_least_loss() -> None:
    """Many useless features want a strong decay, one good feature a weak one; the search ends behind the best."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(200, 150, generator=generator)
    y = (noisy[:, 0] + 2 * torch.randn(200, generator=generator) > 0).long()
    clear = torch.stack((y * 2.0 - 1 + 0.3 * torch.randn(200, generator=generator),), 1)
    chosen = []
    for x in (noisy, clear):
        standardise(x)
        tried: list[int] = []
        found = cross_validate(x, y, folds(200), [1e-4, 1.0, 1e-2], progress=partial(tried.append, 1))
        alone = {l2: cross_validate(x, y, folds(200), [l2]) for l2 in (1e-4, 1e-2, 1.0)}
        assert found is not None
        losses = {l2: one.log_loss for l2, one in alone.items() if one}
        assert found.l2 == min(losses, key=lambda l2: losses[l2])
        assert found.log_loss == pytest.approx(losses[found.l2], abs=2e-3)
        chosen.append((found.l2, len(tried)))
    assert chosen == [(1.0, 2), (1e-4, 3)]


def test_trained_on_a_part_all_are_scored() -> None:
    x, y = planted(300, 4)
    standardise(x)
    part = torch.arange(300) < 60
    found = cross_validate(x, y, folds(300), [1e-2], train=part)
    assert found is not None
    assert found.scores.shape == (300,)
    changed = x.clone()
    changed[~part] = 0
    again = cross_validate(changed, y, folds(300), [1e-2], train=part)
    assert again is not None
    torch.testing.assert_close(found.solution, again.solution)


def test_a_part_without_wrong_tokens_cannot_be_trained_on() -> None:
    x, y = planted(100, 2)
    assert cross_validate(x, y, folds(100), [1e-2], train=y == 1) is None


def test_states_that_are_not_finite_are_refused() -> None:
    x = planted(100, 2)[0]
    x[3, 0] = torch.inf
    with pytest.raises(JudgeDecodingError, match="not finite; load the model in another dtype"):
        standardise(x)
