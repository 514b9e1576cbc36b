"""The distance of a prompt from a judge's training questions, in the target's hidden space.

It needs one hidden state: that of the prompt's last token, which the target reads together with the first draft
anyway. The state and the distance were chosen from the figures in ``benchmarks/results/familiarity.md``.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from judge_decoding.judge.config import MOST_RANK, FamiliarityConfig

LEAST = 40
"""Minimum number of different questions; with fewer, the 95% quantile is almost always the largest distance."""
_QUANTILE = 0.95
_MOST = 2000
_FOLDS = 10


class Familiarity(nn.Module):
    """A Gaussian of low rank over the target's hidden states at the last tokens of the training questions.

    The covariance is ``V diag(variances[:-1] - rest) V' + rest I``, with V the first principal components and
    ``rest = variances[-1]`` the variance in every other direction (probabilistic PCA, Tipping and Bishop 1999).
    For Mahalanobis distances to training data see Lee et al. 2018 (arXiv 1807.03888) and, for language models, Ren
    et al. 2022 (arXiv 2209.15558).
    """

    mean: Tensor
    components: Tensor
    variances: Tensor

    def __init__(self, config: FamiliarityConfig, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("components", torch.zeros(config.rank, hidden_size))
        self.register_buffer("variances", torch.ones(config.rank + 1))

    def forward(self, states: Tensor) -> Tensor:
        """Return the distances [...] of prompts whose last tokens have ``states`` [..., H].

        1 is the held-out 95% quantile. Computed on the device of the statistics, in float32, without synchronisation.
        """
        apart = states.to(self.mean.device, torch.float32) - self.mean
        along = apart @ self.components.T
        rest = apart - along @ self.components
        squares = (along.square() / self.variances[:-1]).sum(-1) + rest.square().sum(-1) / self.variances[-1]
        return (squares / len(self.mean)).sqrt() / self.config.limit

    @classmethod
    def fit(cls, states: Tensor) -> Self | None:
        """Fit the statistics to questions with ``states`` [N, H]; None for fewer than `LEAST` questions.

        The distance that counts as 1 is measured by tenfold cross-validation.
        """
        generator = torch.Generator().manual_seed(0)
        states = states[torch.randperm(len(states), generator=generator)[:_MOST]].float()
        count, size = states.shape
        if count < LEAST:
            return None
        # Several questions per direction, or the directions would fit the sample only.
        rank = max(min(MOST_RANK, count // 8, size // 2), 1)
        fold = torch.arange(count) % _FOLDS
        held_out = torch.empty(count)
        for out in (fold == number for number in range(_FOLDS)):
            held_out[out] = cls._fitted(states[~out], rank, 1.0)(states[out])
        # A new question of the same kind is equally likely to have any rank among them (conformal prediction).
        place = min(math.ceil((count + 1) * _QUANTILE), count)
        limit = float(held_out.kthvalue(place).values)
        return cls._fitted(states, rank, max(limit, 1e-6))

    @classmethod
    def _fitted(cls, states: Tensor, rank: int, limit: float) -> Self:
        count, size = states.shape
        fitted = cls(FamiliarityConfig(questions=count, rank=rank, limit=limit, quantile=_QUANTILE), size)
        mean = states.mean(0)
        _, values, directions = torch.linalg.svd(states - mean, full_matrices=False)
        variances = values.square() / (count - 1)
        rest = variances[rank:].sum() / (size - rank)
        # Directions without variance in training may still differ by rounding, also in 16-bit formats.
        floor = states.square().mean() * 1e-6 + 1e-12
        fitted.mean.copy_(mean)
        fitted.components.copy_(directions[:rank])
        fitted.variances.copy_(torch.cat((variances[:rank], rest[None])).clamp(min=float(floor)))
        return fitted
