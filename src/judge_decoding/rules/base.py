"""The base class of verification rules, and the OR of several rules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, overload

import torch
from torch import Tensor

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.rules.evidence import Evidence
from judge_decoding.spelling import Value, spell


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """A rule that a compiled forward pass can apply: standard verification OR a score linear in a hidden state.

    The score of a draft token is ``sigmoid(weight . h + bias)``, with weight [1, H], bias [1], and h the target's
    hidden state at the token itself, read at ``source`` (None for standard verification alone). Tokens with a score
    above the threshold are kept; at 0 all tokens are.
    """

    source: HiddenSource | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    threshold: float = 1.0

    @overload
    def keeps(self, score: Tensor) -> Tensor: ...
    @overload
    def keeps(self, score: float) -> bool: ...
    def keeps(self, score: Tensor | float) -> Tensor | bool:
        """Whether tokens with these scores are kept even where standard verification rejects them."""
        # At threshold 0 nothing may be rejected, not even a score that float32 rounds to 0.
        return score >= 0 if self.threshold == 0 else score > self.threshold


class VerificationRule(ABC):
    """Decides which draft tokens to keep. A rule sees tensors, never models.

    Rules combine with ``|``: a token is kept if any of them keeps it. The parameters of a rule are those of its
    constructor, stored as attributes of the same names; ``repr`` gives the rule's spelling.

    Raises:
        JudgeDecodingError: a parameter is out of range.
    """

    name: ClassVar[str] = ""
    """The rule's name in its spelling."""
    STRICT: ClassVar[Mapping[str, Value] | None] = None
    """The parameters at which a lossy rule gives, token for token, what standard verification gives."""
    lossless: ClassVar[bool] = False
    """Whether the rule preserves the target's distribution; its tokens then count as agreed, never as rescued."""
    joinable: ClassVar[bool] = True
    """Whether the rule can be joined with others by ``|``."""
    deterministic: ClassVar[bool] = False
    """Whether the verdict is standard verification OR a criterion that draws no random numbers.

    Engines with samplers of their own apply only such rules above temperature 0.
    """
    needs_draft_probs: bool = False
    """Whether the rule needs the distributions of greedy drafts as well (`Evidence.draft_probs`)."""
    needs_draft_hidden: bool = False
    """Whether the rule reads the draft model's hidden states (`Evidence.draft_hidden`), at ``norm``."""
    norm: Norm | None = None
    """Whether the rule reads hidden states before or after the final norm; None if it reads no hidden states."""
    layer: int = -1
    """The target layer whose hidden states the rule reads; -1 is the last, and any other needs ``norm`` "before"."""

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401  (passed on)
        super().__init_subclass__(**kwargs)
        # A subclass that overrides the decision must not inherit its parent's fused form.
        if {"accept", "scores"} & vars(cls).keys() and "fused" not in vars(cls):
            cls.fused = VerificationRule.fused  # type: ignore[method-assign]

    @abstractmethod
    def accept(self, evidence: Evidence) -> Tensor:
        """Return the verdict on each draft token by itself, bool [B, M]; the loop keeps the accepted prefix.

        Verdicts on padding are ignored.
        """

    def scores(self, evidence: Evidence) -> Tensor | None:
        """Return a score of each draft token [B, M] to show to people; None if the rule has no scores."""
        return None

    def fused(self) -> Fused | None:
        """Return the fused form, which a compiled forward pass applies in greedy rounds; None if there is none."""
        return None

    def distance(self, hidden: Tensor) -> Tensor | None:
        """Return how unlike the rule's training data a prompt is, from the hidden state at its last token [..., H].

        Above 1 the prompt is unlike nearly all of that data; None for a rule that cannot measure it.
        """
        return None

    def replacement(self, evidence: Evidence, position: int | Tensor) -> Tensor:
        """Return the distribution [B, V] of the target's token after a rejection at ``position``, above temperature 0.

        ``position`` is an int for all rows or a tensor [B]; after a row's whole draft the result is the target's own
        distribution. At temperature 0 any rule replaces a rejected token by the target's most probable one.
        """
        return evidence.residual(position)

    @property
    def source(self) -> HiddenSource | None:
        """Where the rule reads hidden states; None if it reads none."""
        return None if self.norm is None else HiddenSource(self.layer, self.norm)

    @property
    def parts(self) -> tuple[VerificationRule, ...]:
        """The rules joined by ``|``, or the rule itself."""
        return (self,)

    @property
    def is_lossless(self) -> bool:
        """Whether the target's distribution is preserved: a lossless rule, or a lossy one at its strict setting."""
        given = self.STRICT or {}
        return self.lossless or (bool(given) and all(getattr(self, k) == v for k, v in given.items()))

    def require(self, parameter: str, good: bool, allowed: str) -> None:
        """Check a parameter that is already stored as an attribute.

        Raises:
            JudgeDecodingError: it is not ``good``; ``allowed`` describes the allowed values.
        """
        if not good:
            raise JudgeDecodingError(f"{self.name}'s {parameter} is {getattr(self, parameter)}; it must be {allowed}.")

    @classmethod
    def strict(cls, **others: Any) -> Self:  # noqa: ANN401  (what else the constructor needs)
        """Return the rule at its strict setting; ``others`` are further arguments, such as a judge's head.

        Raises:
            JudgeDecodingError: the rule is lossy and has no strict setting.
        """
        if cls.STRICT is None and not cls.lossless:
            raise JudgeDecodingError(f"The rule {cls.name} has no strict setting; use exact.")
        return cls(**others, **(cls.STRICT or {}))

    def __or__(self, other: VerificationRule) -> AnyOf:
        return AnyOf(self, other)

    def __repr__(self) -> str:
        return spell(self, self.name or type(self).__name__)


def check_is_rule(rule: object) -> VerificationRule:
    """Return ``rule`` if it is a verification rule."""
    if not isinstance(rule, VerificationRule):
        shown = rule.__name__ if isinstance(rule, type) else repr(rule)[:80]
        raise JudgeDecodingError(
            f"{shown} is not a verification rule; give one such as TopK(4), or parse_rule('top_k(k=4)')."
        )
    return rule


class AnyOf(VerificationRule):
    """Keeps a token that any of its rules keeps; scores come from the first rule that has them.

    Raises:
        JudgeDecodingError: there are no rules, or the rules cannot be joined, read hidden states of different sources,
            or replace a rejected token in different ways.
    """

    def __init__(self, *rules: VerificationRule) -> None:
        if not rules:
            raise JudgeDecodingError("any_of has no rules; give one or more.")
        self.rules = tuple(part for rule in rules for part in check_is_rule(rule).parts)
        sources = {rule.source for rule in self.rules if rule.source}
        if len(sources) > 1:
            raise JudgeDecodingError(
                "One of these judges reads hidden states before and one after the final norm, or of another layer; "
                "join judges of one kind."
            )
        for rule in self.rules:
            if not rule.joinable and len(self.rules) > 1:
                raise JudgeDecodingError(f"{rule} decides on a draft as a whole; use it without other rules.")
        replacing = [rule for rule in self.rules if type(rule).replacement is not VerificationRule.replacement]
        if len(replacing) > 1:
            raise JudgeDecodingError(
                f"{replacing[0]} and {replacing[1]} replace a rejected token each in its own way; join at most one "
                "such rule with others."
            )
        self._replacing = replacing[0] if replacing else None
        source = next(iter(sources), None)
        self.norm, self.layer = (source.norm, source.layer) if source else (None, -1)
        self.needs_draft_probs = any(rule.needs_draft_probs for rule in self.rules)
        self.needs_draft_hidden = any(rule.needs_draft_hidden for rule in self.rules)

    @property
    def parts(self) -> tuple[VerificationRule, ...]:
        """The joined rules."""
        return self.rules

    @property
    def is_lossless(self) -> bool:
        """Whether all joined rules are lossless."""
        return all(rule.is_lossless for rule in self.rules)

    def accept(self, evidence: Evidence) -> Tensor:
        """Return the logical OR of the verdicts, bool [B, M]."""
        return torch.stack([rule.accept(evidence) for rule in self.rules]).any(0)

    def scores(self, evidence: Evidence) -> Tensor | None:
        """Return the scores of the first rule that has any."""
        return next((s for rule in self.rules if (s := evidence.scores_of(rule)) is not None), None)

    def distance(self, hidden: Tensor) -> Tensor | None:
        """Return the distance of the first rule that has one."""
        return next((d for rule in self.rules if (d := rule.distance(hidden)) is not None), None)

    def replacement(self, evidence: Evidence, position: int | Tensor) -> Tensor:
        """Use the replacement of the rule that defines its own, else that of standard verification."""
        if self._replacing is None:
            return evidence.residual(position)
        return self._replacing.replacement(evidence, position)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.rules))
