"""What a verification rule is, and how rules join."""

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
    """A rule that a compiled forward decides by: standard verification, or else a score that is linear in a state.

    The score of a draft token is ``sigmoid(weight . h + bias)`` with h the target's hidden state at the token itself.

    Attributes:
        source: where the hidden states are taken; None for standard verification alone.
        weight: [1, H].
        bias: [1].
        threshold: tokens with a higher score stay; at 0 all do.
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
        """Which tokens with these scores stay even where standard verification rejects them."""
        # At 0 nothing may be rejected, not even a score that float32 rounds to 0.
        return score >= 0 if self.threshold == 0 else score > self.threshold


class VerificationRule(ABC):
    """Decides which draft tokens stay. A rule sees tensors, never models.

    Rules combine with ``|``: a token stays if any of them keeps it. The parameters of a rule are those of its
    constructor, kept as attributes of the same names; ``repr`` gives the rule's spelling.
    """

    name: ClassVar[str] = ""
    """The rule's name in its spelling."""
    STRICT: ClassVar[Mapping[str, Value] | None] = None
    """The parameters at which a lossy rule gives, token for token, what standard verification gives."""
    lossless: ClassVar[bool] = False
    """The target's distribution is kept: what this rule keeps counts as agreed, none of it as rescued."""
    joinable: ClassVar[bool] = True
    """Can be joined with others by ``|``."""
    needs_draft_probs: bool = False
    """Compares distributions: a greedy draft must hand over its own (`Evidence.draft_distribution`)."""
    needs_draft_hidden: bool = False
    """Reads the draft model's hidden states (`Evidence.draft_hidden`), taken where ``norm`` says."""
    norm: Norm | None = None
    """Where the hidden states this rule needs are taken; None if it needs none."""
    layer: int = -1
    """Of which of the target's layers they are, -1 being the last; below it, ``norm`` is "before"."""

    def __init_subclass__(cls, **kwargs: Any) -> None:  # noqa: ANN401  (passed on)
        super().__init_subclass__(**kwargs)
        # A subclass that decides in another way does not do what its parent has fused.
        if {"accept", "scores"} & vars(cls).keys() and "fused" not in vars(cls):
            cls.fused = VerificationRule.fused  # type: ignore[method-assign]

    @abstractmethod
    def accept(self, evidence: Evidence) -> Tensor:
        """Verdict on every draft token taken by itself, bool [B, M]; the loop keeps the accepted prefix.

        What it says of padding does not count.
        """

    def scores(self, evidence: Evidence) -> Tensor | None:
        """A score of every draft token [B, M] worth showing to people, if the rule has one."""
        return None

    def fused(self) -> Fused | None:
        """What a compiled forward must do to decide by this rule in a greedy round; None if it cannot."""
        return None

    def distance(self, hidden: Tensor) -> Tensor | None:
        """How unlike what this rule was trained on a prompt is, from the hidden state at its last token [..., H].

        Above 1 it is unlike nearly all of that; None for a rule that does not know.
        """
        return None

    def replacement(self, evidence: Evidence, position: int | Tensor) -> Tensor:
        """Distribution [B, V] of the target's token after this rule rejects at ``position``, above temperature 0.

        ``position`` is one for all rows or one a row [B]; after a row's whole draft it is the target's own. At
        temperature 0 a rejected token gives way to the target's most probable one, whatever the rule.
        """
        return evidence.residual(position)

    @property
    def source(self) -> HiddenSource | None:
        """Where the hidden states that this rule needs are taken; None if it needs none."""
        return None if self.norm is None else HiddenSource(self.layer, self.norm)

    @property
    def parts(self) -> tuple[VerificationRule, ...]:
        """The rules that were joined by ``|``; the rule itself if none were."""
        return (self,)

    @property
    def is_lossless(self) -> bool:
        """What it keeps has the target's distribution: a lossless rule, or a lossy one at its strict setting."""
        given = self.STRICT or {}
        return self.lossless or (bool(given) and all(getattr(self, k) == v for k, v in given.items()))

    def require(self, parameter: str, good: bool, allowed: str) -> None:
        """Check a parameter, which is an attribute by now.

        Raises:
            JudgeDecodingError: it is not ``good``, that is, not what ``allowed`` says in words.
        """
        if not good:
            raise JudgeDecodingError(f"{self.name}'s {parameter} is {getattr(self, parameter)}; it must be {allowed}.")

    @classmethod
    def strict(cls, **others: Any) -> Self:  # noqa: ANN401  (what else the constructor needs)
        """The rule at its strict setting; ``others`` are further arguments, such as a judge's head.

        Raises:
            JudgeDecodingError: a lossy rule that names none.
        """
        if cls.STRICT is None and not cls.lossless:
            raise JudgeDecodingError(f"The rule {cls.name} has no strict setting; use exact.")
        return cls(**others, **(cls.STRICT or {}))

    def __or__(self, other: VerificationRule) -> AnyOf:
        return AnyOf(self, other)

    def __repr__(self) -> str:
        return spell(self, self.name or type(self).__name__)


def check_is_rule(rule: object) -> VerificationRule:
    """The rule that is given.

    Raises:
        JudgeDecodingError: it is something else.
    """
    if not isinstance(rule, VerificationRule):
        shown = rule.__name__ if isinstance(rule, type) else repr(rule)[:80]
        raise JudgeDecodingError(
            f"{shown} is no verification rule; give one such as TopK(4), or parse_rule('top_k(k=4)')."
        )
    return rule


class AnyOf(VerificationRule):
    """Keeps a token that any of its rules keeps; the first with scores provides them.

    Raises:
        JudgeDecodingError: no rules, rules that cannot be joined, rules that need hidden states of different sources,
            or that replace a rejected token in different ways.
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
                raise JudgeDecodingError(f"{rule} decides about a draft as a whole; use it without other rules.")
        replacing = [rule for rule in self.rules if type(rule).replacement is not VerificationRule.replacement]
        if len(replacing) > 1:
            raise JudgeDecodingError(
                f"{replacing[0]} and {replacing[1]} replace a rejected token each in its own way; join at most one of "
                "such rules with others."
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
        """All of them are."""
        return all(rule.is_lossless for rule in self.rules)

    def accept(self, evidence: Evidence) -> Tensor:
        """The verdicts' logical OR, bool [B, M]."""
        return torch.stack([rule.accept(evidence) for rule in self.rules]).any(0)

    def scores(self, evidence: Evidence) -> Tensor | None:
        """The scores of the first rule that has any."""
        return next((s for rule in self.rules if (s := evidence.scores_of(rule)) is not None), None)

    def distance(self, hidden: Tensor) -> Tensor | None:
        """That of the first rule that knows."""
        return next((d for rule in self.rules if (d := rule.distance(hidden)) is not None), None)

    def replacement(self, evidence: Evidence, position: int | Tensor) -> Tensor:
        """As the rule with a way of its own does it, else as standard verification."""
        if self._replacing is None:
            return evidence.residual(position)
        return self._replacing.replacement(evidence, position)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.rules))
