"""Rules whose verdict depends on the target's distribution at the token's own place, and on nothing else.

Such a rule splits the vocabulary in two: what it would keep there, whoever proposed it, and the rest. So it is a
truncation of the target in disguise, as top-k and min-p sampling are, and is fairly compared with the target sampled
under the same truncation (arXiv 2607.26627; see `judge_decoding.evaluation.matched`).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.evidence import Evidence


class Likelihood(Protocol):
    """What the target says of tokens: of the draft's [B, M] in `Evidence`, of a whole `Vocabulary` [..., V]."""

    @property
    def token_probs(self) -> Tensor:
        """The probability of each."""

    @property
    def token_ranks(self) -> Tensor:
        """How many tokens are preferred to each; the first of equals ranks first."""

    @property
    def gaps(self) -> Tensor:
        """Log probability of each less that of the best token."""

    @property
    def best_probs(self) -> Tensor:
        """The probability of the best token at the place of each."""

    @property
    def entropy(self) -> Tensor:
        """Entropy, in nats, at the place of each."""


class Vocabulary:
    """What `Evidence` tells of the draft tokens, of all tokens: from logits [..., V], each [..., V] or [..., 1]."""

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


class TruncationRule(VerificationRule):
    """A rule that keeps, beside what standard verification keeps, all tokens of a truncation of the target."""

    @abstractmethod
    def keeps(self, seen: Likelihood) -> Tensor:
        """Which tokens pass by this rule's own criterion, bool in the shape of the figures."""

    def accept(self, evidence: Evidence) -> Tensor:
        """Agreed, or good by the rule's criterion."""
        return evidence.agreed | self.keeps(evidence)


@dataclass(frozen=True, slots=True)
class Truncation:
    """What is left of the target's distribution where only what one of ``rules`` keeps may be said."""

    rules: tuple[TruncationRule, ...]

    @classmethod
    def of(cls, rule: VerificationRule) -> Truncation | None:
        """That of a rule; None if it, or a rule joined with it, looks at more than the target's distribution."""
        parts = [part for part in rule.parts if isinstance(part, TruncationRule)]
        return cls(tuple(parts)) if len(parts) == len(rule.parts) else None

    def kept(self, logits: Tensor) -> Tensor:
        """The tokens that are left where the target's processed logits are these [..., V]: bool [..., V].

        The most probable token (the first of equals) always is: at temperature 0 standard verification keeps it.
        """
        seen = Vocabulary(logits)
        kept = torch.stack([rule.keeps(seen) for rule in self.rules]).any(0)
        return kept.scatter(-1, logits.argmax(-1, keepdim=True), True)

    def __str__(self) -> str:
        return " | ".join(map(str, self.rules))
