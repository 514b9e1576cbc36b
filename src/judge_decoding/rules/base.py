"""What a verification rule sees and says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self, overload

import torch
from torch import Tensor

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.spelling import Value, spell


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a rule may look at, for a draft of M tokens in each of B rows.

    Attributes:
        draft_ids: the draft [B, M].
        target_logits: the target's logits [B, M+1, V], float32, logits processors applied. Position i is the
            distribution of draft token i, position M what follows the whole draft.
        draft_probs: the distributions the draft was drawn from [B, M, V]; None for a greedy draft, whose tokens
            count as certain (q = 1).
        draft_distribution: of a greedy draft, the softmax of its logits [B, M, V]; None unless the rule asks for
            it (`VerificationRule.needs_draft_probs`), or if the drafter has none, as prompt lookup.
        hidden: the target's last hidden states at the draft tokens themselves [B, M, H], after it read them;
            None unless the rule asks for them.
        draft_hidden: the draft model's last hidden states at the draft tokens [B, M, Hd], taken where ``hidden`` is;
            None unless the rule asks for them (`VerificationRule.needs_draft_hidden`).
        uniform: one random number in [0, 1) a draft token [B, M], for rules that toss a coin.
        greedy: the target decodes at temperature 0.
        lengths: how many draft tokens each row has [B], the rest of the M being padding; None if all have M.
    """

    draft_ids: Tensor
    target_logits: Tensor
    draft_probs: Tensor | None = None
    hidden: Tensor | None = None
    uniform: Tensor | None = None
    greedy: bool = True
    draft_distribution: Tensor | None = None
    draft_hidden: Tensor | None = None
    lengths: Tensor | None = None
    _scores: dict[int, Tensor | None] = field(default_factory=dict, init=False, repr=False)

    def scores_of(self, rule: VerificationRule) -> Tensor | None:
        """The scores that ``rule`` gives [B, M], computed once however often they are asked for."""
        if id(rule) not in self._scores:
            self._scores[id(rule)] = rule.scores(self)
        return self._scores[id(rule)]

    @cached_property
    def target_ids(self) -> Tensor:
        """The target's most probable token at every position [B, M+1]."""
        return self.target_logits.argmax(-1)

    @cached_property
    def target_probs(self) -> Tensor:
        """The target's distributions [B, M+1, V]."""
        return self.target_logits.softmax(-1)

    @cached_property
    def token_probs(self) -> Tensor:
        """p(x), the target's probability of every draft token [B, M]."""
        return self.of_tokens(self.target_probs)

    @cached_property
    def token_draft_probs(self) -> Tensor:
        """q(x), the probability with which every draft token was drawn [B, M]; 1 for a greedy draft."""
        return torch.ones_like(self.token_probs) if self.draft_probs is None else self.of_tokens(self.draft_probs)

    @cached_property
    def token_ranks(self) -> Tensor:
        """How many tokens the target prefers to every draft token [B, M]; 0 is its own choice.

        A token that logits processors have ruled out ranks behind any number.
        """
        logits, ids = self.target_logits[:, :-1], self.draft_ids[..., None]
        own = logits.gather(-1, ids)
        # 16-bit logits tie often. The first of equals ranks first, as for argmax, or rank 0 would not be exact.
        first = torch.arange(logits.shape[-1], device=logits.device) < ids
        ranks = ((logits > own) | ((logits == own) & first)).sum(-1)
        return ranks.masked_fill(own[..., 0] == -torch.inf, torch.iinfo(ranks.dtype).max)

    @cached_property
    def gaps(self) -> Tensor:
        """Log p(x) minus the log probability of the target's best token, for every draft token [B, M]; at most 0."""
        gaps: Tensor = self.of_tokens(self.target_logits) - self.target_logits[:, :-1].amax(-1)
        return gaps

    @cached_property
    def best_probs(self) -> Tensor:
        """The probability of the target's best token in the place of every draft token [B, M]."""
        return self.target_probs[:, :-1].amax(-1)

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy, in nats, of the target's distribution of every draft token [B, M]."""
        entropy: Tensor = torch.special.entr(self.target_probs[:, :-1]).sum(-1)
        return entropy

    @cached_property
    def agreed(self) -> Tensor:
        """Standard verification's verdict on every draft token, bool [B, M].

        Greedy: the token is the target's own. Sampled: kept with probability min(1, p/q), algorithm 1 of
        Leviathan et al. 2023; a draft without distributions counts as certain (q = 1).
        """
        if self.greedy:
            return self.draft_ids == self.target_ids[:, :-1]
        return self.coins * self.token_draft_probs < self.token_probs

    @property
    def coins(self) -> Tensor:
        """The uniform numbers [B, M], which are there above temperature 0."""
        if self.uniform is None:
            raise RuntimeError("sampled verification needs uniform numbers")
        return self.uniform

    @cached_property
    def drafted(self) -> Tensor:
        """Which of the M places hold a draft token and not padding, bool [B, M]."""
        if self.lengths is None:
            return torch.ones_like(self.draft_ids, dtype=torch.bool)
        return torch.arange(self.draft_ids.shape[1], device=self.draft_ids.device) < self.lengths[:, None]

    def window(self, start: int, count: int, hidden: Tensor | None = None) -> Evidence:
        """The evidence of a greedy draft of ``count`` tokens from ``start`` on, in the place of the whole draft.

        For many windows of one long text: what concerns each position by itself is computed once for all of them.
        ``hidden`` [B, M, H] are the whole text's states, if they are needed.
        """
        stop = start + count
        part = Evidence(
            draft_ids=self.draft_ids[:, start:stop],
            target_logits=self.target_logits[:, start : stop + 1],
            hidden=None if hidden is None else hidden[:, start:stop],
        )
        for name, more in _BY_POSITION.items():
            vars(part)[name] = getattr(self, name)[:, start : stop + more]  # where `cached_property` keeps it
        return part

    def of_tokens(self, values: Tensor) -> Tensor:
        """The draft tokens' entries [B, M] in ``values`` [B, M or M+1, V]."""
        count = self.draft_ids.shape[1]
        return values[:, :count].gather(-1, self.draft_ids[..., None])[..., 0]

    def draft_distributions(self, rule: VerificationRule) -> Tensor:
        """The draft's distributions [B, M, V] for a rule that compares them with the target's.

        Raises:
            JudgeDecodingError: the drafter has none.
        """
        probs = self.draft_probs if self.draft_probs is not None else self.draft_distribution
        if not self.draft_ids.shape[1]:
            return self.target_probs[:, :0]
        if probs is None:
            raise JudgeDecodingError(
                f"The rule {rule} compares the draft's probabilities with the target's, and this drafter has none "
                "(prompt lookup, for one, only copies); use a draft model, or a rule that needs none."
            )
        return probs

    @cached_property
    def drawn_from(self) -> Tensor:
        """What the draft tokens were drawn from [B, M, V]: the draft's distributions, or one-hots of a greedy draft."""
        if self.draft_probs is not None:
            return self.draft_probs
        size = self.target_logits.shape[-1]
        return torch.nn.functional.one_hot(self.draft_ids, size).to(self.target_logits)

    def target_at(self, position: int | Tensor) -> Tensor:
        """The target's distribution at one position of each row [B, V]; ``position`` is one for all or [B]."""
        return self.target_probs[torch.arange(len(self.draft_ids), device=self.draft_ids.device), position]

    def draft_at(self, position: int | Tensor) -> Tensor:
        """What each row's draft token was drawn from there [B, V]: a one-hot if greedy, zeros after the row's draft."""
        rows = torch.arange(len(self.draft_ids), device=self.draft_ids.device)
        count, target = self.draft_ids.shape[1], self.target_at(position)
        if not count:
            return torch.zeros_like(target)
        place = torch.as_tensor(position, device=rows.device).expand(len(rows))
        inside = place.clamp(max=count - 1)
        if self.draft_probs is None:
            draft = torch.nn.functional.one_hot(self.draft_ids[rows, inside], target.shape[-1]).to(target)
        else:
            draft = self.draft_probs[rows, inside]
        ends = count if self.lengths is None else self.lengths
        return draft * (place < ends)[:, None]

    def residual(self, position: int | Tensor) -> Tensor:
        """Distribution of the token after standard verification rejects at ``position``: norm((p-q)+), [B, V].

        ``position`` is one for all rows or one a row [B]; after a row's whole draft it is the target's own.
        """
        return normalized_excess(self.target_at(position), self.draft_at(position))


_BY_POSITION = {
    "target_ids": 1, "target_probs": 1, "token_probs": 0, "token_ranks": 0, "gaps": 0, "best_probs": 0, "entropy": 0
}  # fmt: skip
"""What of `Evidence` concerns each position by itself; 1 where it is there for the place behind the draft, too."""


def normalized_excess(wanted: Tensor, drawn: Tensor, otherwise: Tensor | None = None) -> Tensor:
    """``norm((wanted - drawn)+)`` of distributions [..., V]; where nothing is left, ``otherwise`` or ``wanted``."""
    rest = (wanted - drawn).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    # The two can be equal up to rounding; then a rejection is rounding too, and the target's own will do.
    return torch.where(total > 0, rest / total, wanted if otherwise is None else otherwise)


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


class AnyOf(VerificationRule):
    """Keeps a token that any of its rules keeps; the first with scores provides them.

    Raises:
        JudgeDecodingError: no rules, rules that cannot be joined, rules that need hidden states of different sources,
            or that replace a rejected token in different ways.
    """

    def __init__(self, *rules: VerificationRule) -> None:
        if not rules:
            raise JudgeDecodingError("any_of has no rules; give one or more.")
        self.rules = tuple(part for rule in rules for part in rule.parts)
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
