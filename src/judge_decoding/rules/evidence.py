"""What a verification rule sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from judge_decoding.errors import JudgeDecodingError

if TYPE_CHECKING:
    from judge_decoding.rules.base import VerificationRule


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
