"""What a verification rule sees and says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from judge_decoding.decoding.models import Norm
from judge_decoding.errors import JudgeDecodingError


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a rule may look at, for a draft of M tokens.

    Attributes:
        draft_ids: the draft [B, M].
        target_logits: the target's logits [B, M+1, V], float32, logits processors applied. Position i is the
            distribution of draft token i, position M what follows the whole draft.
        draft_probs: the distributions the draft was drawn from [B, M, V]; None for a greedy draft.
        hidden: the target's last hidden states at the draft tokens themselves [B, M, H], after it read them;
            None unless the rule asks for them.
        uniform: one random number in [0, 1) a draft token [B, M], for rules that toss a coin.
        greedy: the target decodes at temperature 0.
    """

    draft_ids: Tensor
    target_logits: Tensor
    draft_probs: Tensor | None = None
    hidden: Tensor | None = None
    uniform: Tensor | None = None
    greedy: bool = True

    @cached_property
    def target_ids(self) -> Tensor:
        """The target's most probable token at every position [B, M+1]."""
        return self.target_logits.argmax(-1)

    @cached_property
    def target_probs(self) -> Tensor:
        """The target's distributions [B, M+1, V]."""
        return self.target_logits.softmax(-1)

    @cached_property
    def agreed(self) -> Tensor:
        """Standard verification's verdict on every draft token, bool [B, M].

        Greedy: the token is the target's own. Sampled: kept with probability min(1, p/q), algorithm 1 of
        Leviathan et al. 2023; a draft without distributions counts as certain (q = 1).
        """
        if self.greedy:
            return self.draft_ids == self.target_ids[:, :-1]
        if self.uniform is None:
            raise RuntimeError("sampled verification needs uniform numbers")
        target = self.target_probs[:, :-1].gather(-1, self.draft_ids[..., None])[..., 0]
        if self.draft_probs is None:
            return self.uniform < target
        draft = self.draft_probs.gather(-1, self.draft_ids[..., None])[..., 0]
        return self.uniform * draft < target

    def residual(self, position: int) -> Tensor:
        """Distribution of the token after standard verification rejects at ``position``: norm((p-q)+), [B, V]."""
        target = self.target_probs[:, position]
        if self.draft_probs is None:
            draft = torch.nn.functional.one_hot(self.draft_ids[:, position], target.shape[-1]).to(target)
        else:
            draft = self.draft_probs[:, position]
        rest = (target - draft).clamp(min=0)
        total = rest.sum(-1, keepdim=True)
        # The two can be equal up to rounding; then a rejection is rounding too, and the target's own will do.
        return torch.where(total > 0, rest / total, target)


class VerificationRule(ABC):
    """Decides which draft tokens stay. A rule sees tensors, never models.

    Rules combine with ``|``: a token stays if any of them keeps it.
    """

    norm: Norm | None = None
    """Where the hidden states this rule needs are taken; None if it needs none."""

    @abstractmethod
    def accept(self, evidence: Evidence) -> Tensor:
        """Verdict on every draft token taken by itself, bool [B, M]; the loop keeps the accepted prefix."""

    def scores(self, evidence: Evidence) -> Tensor | None:
        """A score of every draft token [B, M] worth showing to people, if the rule has one."""
        return None

    def replacement(self, evidence: Evidence, position: int) -> Tensor:
        """Distribution [B, V] of the target's token after this rule rejects at ``position``."""
        return evidence.residual(position)

    def __or__(self, other: VerificationRule) -> AnyOf:
        return AnyOf(self, other)


class AnyOf(VerificationRule):
    """Keeps a token that any of its rules keeps; the first with scores provides them.

    Raises:
        JudgeDecodingError: no rules, or rules that need hidden states of different places.
    """

    def __init__(self, *rules: VerificationRule) -> None:
        if not rules:
            raise JudgeDecodingError("any_of has no rules; give one or more.")
        norms = {rule.norm for rule in rules if rule.norm}
        if len(norms) > 1:
            raise JudgeDecodingError(
                "One of these judges reads hidden states before and one after the final norm; join judges of one kind."
            )
        self.rules = rules
        self.norm = next(iter(norms), None)

    def accept(self, evidence: Evidence) -> Tensor:
        """The verdicts' logical OR, bool [B, M]."""
        return torch.stack([rule.accept(evidence) for rule in self.rules]).any(0)

    def scores(self, evidence: Evidence) -> Tensor | None:
        """The scores of the first rule that has any."""
        return next((s for rule in self.rules if (s := rule.scores(evidence)) is not None), None)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.rules))
