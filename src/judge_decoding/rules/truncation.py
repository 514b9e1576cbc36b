"""Rules whose verdict depends only on the target's distribution at the token's own position.

Such a rule splits the vocabulary into the tokens it would keep at that position, whoever proposed them, and the rest.
It is therefore a truncation of the target, like top-k and min-p sampling, and the fair comparison is with the target
sampled under the same truncation (arXiv 2607.26627; see `judge_decoding.evaluation.matched`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence


class Vocabulary:
    """The quantities of `Evidence` for all tokens instead of the draft: from logits [..., V], [..., V] or [..., 1]."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    @cached_property
    def token_probs(self) -> Tensor:
        """See `Evidence.token_probs`."""
        return self._logits.softmax(-1)

    @cached_property
    def token_ranks(self) -> Tensor:
        """See `Evidence.token_ranks`."""
        order = self._logits.argsort(dim=-1, descending=True, stable=True)
        ranks = order.argsort(-1)
        return ranks.masked_fill(self._logits == -torch.inf, torch.iinfo(ranks.dtype).max)

    @cached_property
    def gaps(self) -> Tensor:
        """See `Evidence.gaps`."""
        gaps: Tensor = self._logits - self._logits.amax(-1, keepdim=True)
        return gaps

    @cached_property
    def best_probs(self) -> Tensor:
        """See `Evidence.best_probs`."""
        return self.token_probs.amax(-1, keepdim=True)

    @cached_property
    def entropy(self) -> Tensor:
        """See `Evidence.entropy`."""
        entropy: Tensor = torch.special.entr(self.token_probs).sum(-1, keepdim=True)
        return entropy


Likelihood = Evidence | Vocabulary
"""The target's view of tokens: of draft tokens [B, M], or of the whole vocabulary [..., V]."""


class TruncationRule(VerificationRule):
    """A rule that keeps what standard verification keeps, and all tokens of a truncation of the target."""

    deterministic = True

    @abstractmethod
    def keeps(self, likelihood: Likelihood) -> Tensor:
        """Return which tokens meet this rule's own criterion, bool in the shape of ``likelihood``'s tensors."""

    def accept(self, evidence: Evidence) -> Tensor:
        """Keep a token that standard verification keeps or that meets the rule's criterion."""
        return evidence.agreed | self.keeps(evidence)


@dataclass(frozen=True, slots=True)
class Truncation:
    """The target's distribution restricted to the tokens that one of ``rules`` keeps."""

    rules: tuple[TruncationRule, ...]

    @classmethod
    def of(cls, rule: VerificationRule) -> Truncation | None:
        """Return the truncation of a rule; None if any part of it looks at more than the target's distribution."""
        parts = [part for part in rule.parts if isinstance(part, TruncationRule)]
        return cls(tuple(parts)) if len(parts) == len(rule.parts) else None

    def mask(self, logits: Tensor) -> Tensor:
        """Return which tokens remain, given the target's processed logits [..., V]: bool [..., V].

        The most probable token (the first if several tie) always remains: greedy standard verification keeps it.
        """
        likelihood = Vocabulary(logits)
        kept = torch.stack([rule.keeps(likelihood) for rule in self.rules]).any(0)
        return kept.scatter(-1, logits.argmax(-1, keepdim=True), True)

    def __str__(self) -> str:
        return " | ".join(map(str, self.rules))
