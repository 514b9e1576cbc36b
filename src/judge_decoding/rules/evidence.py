"""The evidence that a verification rule decides by."""

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
    """Everything a rule may look at, for a draft of M tokens in each of B rows.

    Attributes:
        draft_ids: the draft [B, M].
        target_logits: the target's logits [B, M+1, V], float32, logits processors applied. Position i is the
            distribution of draft token i, position M that of the token after the whole draft.
        draft_probs: the draft's distributions [B, M, V]; None if the drafter has none, such as prompt lookup. Above
            temperature 0 those the draft was sampled from. At temperature 0 the softmax of its logits, which standard
            verification does not read (the tokens count as certain); None unless the rule asks for it
            (`VerificationRule.needs_draft_probs`).
        hidden: the target's last hidden states at the draft tokens themselves [B, M, H], after it has read them;
            None unless the rule asks for them.
        draft_hidden: the draft model's last hidden states at the draft tokens [B, M, Hd], at the same place as
            ``hidden``; None unless the rule asks for them (`VerificationRule.needs_draft_hidden`).
        uniform: one random number in [0, 1) per draft token [B, M], for randomised rules.
        greedy: whether the target decodes at temperature 0.
        lengths: the number of draft tokens in each row [B], the rest of M being padding; None if all rows have M.
    """

    draft_ids: Tensor
    target_logits: Tensor
    draft_probs: Tensor | None = None
    hidden: Tensor | None = None
    uniform: Tensor | None = None
    greedy: bool = True
    draft_hidden: Tensor | None = None
    lengths: Tensor | None = None
    _scores: dict[int, Tensor | None] = field(default_factory=dict, init=False, repr=False)

    def scores_of(self, rule: VerificationRule) -> Tensor | None:
        """Return the scores of ``rule`` [B, M]; they are computed only once."""
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
        """p(x), the target's probability of each draft token [B, M]."""
        return self.of_tokens(self.target_probs)

    @cached_property
    def token_draft_probs(self) -> Tensor:
        """q(x), the probability with which each draft token was sampled [B, M]; 1 for a greedy draft."""
        return torch.ones_like(self.token_probs) if self._sampled is None else self.of_tokens(self._sampled)

    @cached_property
    def token_ranks(self) -> Tensor:
        """How many tokens the target prefers to each draft token [B, M]; 0 is its own choice.

        A token that logits processors forbid has the largest possible rank.
        """
        logits, ids = self.target_logits[:, :-1], self.draft_ids[..., None]
        own = logits.gather(-1, ids)
        # 16-bit logits often tie. Ties rank in order of id, as for argmax; otherwise rank 0 would not be exact.
        first = torch.arange(logits.shape[-1], device=logits.device) < ids
        ranks = ((logits > own) | ((logits == own) & first)).sum(-1)
        return ranks.masked_fill(own[..., 0] == -torch.inf, torch.iinfo(ranks.dtype).max)

    @cached_property
    def gaps(self) -> Tensor:
        """Log p(x) minus the log probability of the target's best token, for each draft token [B, M]; at most 0."""
        gaps: Tensor = self.of_tokens(self.target_logits) - self.target_logits[:, :-1].amax(-1)
        return gaps

    @cached_property
    def best_probs(self) -> Tensor:
        """The probability of the target's best token at the position of each draft token [B, M]."""
        return self.target_probs[:, :-1].amax(-1)

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy, in nats, of the target's distribution at the position of each draft token [B, M]."""
        entropy: Tensor = torch.special.entr(self.target_probs[:, :-1]).sum(-1)
        return entropy

    @cached_property
    def agreed(self) -> Tensor:
        """Standard verification's verdict on each draft token, bool [B, M].

        Greedy: the token is the target's own. Sampled: kept with probability min(1, p/q), algorithm 1 of
        Leviathan et al. 2023; a draft without distributions counts as certain (q = 1).
        """
        if self.greedy:
            return self.draft_ids == self.target_ids[:, :-1]
        return self.coins * self.token_draft_probs < self.token_probs

    @property
    def coins(self) -> Tensor:
        """The uniform random numbers [B, M], which exist only above temperature 0."""
        if self.uniform is None:
            raise RuntimeError("sampled verification needs uniform numbers")
        return self.uniform

    @cached_property
    def drafted(self) -> Tensor:
        """Which of the M positions hold a draft token rather than padding, bool [B, M]."""
        if self.lengths is None:
            return torch.ones_like(self.draft_ids, dtype=torch.bool)
        return torch.arange(self.draft_ids.shape[1], device=self.draft_ids.device) < self.lengths[:, None]

    def window(self, start: int, count: int, hidden: Tensor | None = None) -> Evidence:
        """Return the evidence of a greedy draft that is only the ``count`` tokens from ``start`` on.

        Meant for many windows of one long text: per-position quantities are computed once for all windows.
        ``hidden`` [B, M, H] are the hidden states of the whole text, if they are needed.
        """
        stop = start + count
        part = Evidence(
            draft_ids=self.draft_ids[:, start:stop],
            target_logits=self.target_logits[:, start : stop + 1],
            hidden=None if hidden is None else hidden[:, start:stop],
        )
        for name, more in _BY_POSITION.items():
            vars(part)[name] = getattr(self, name)[:, start : stop + more]  # fills the `cached_property`
        return part

    def of_tokens(self, values: Tensor) -> Tensor:
        """Return the draft tokens' entries [B, M] in ``values`` [B, M or M+1, V]."""
        count = self.draft_ids.shape[1]
        return values[:, :count].gather(-1, self.draft_ids[..., None])[..., 0]

    def draft_distributions(self, rule: VerificationRule) -> Tensor:
        """Return the draft's distributions [B, M, V] for a rule that compares them with the target's.

        Raises:
            JudgeDecodingError: the drafter has no distributions.
        """
        if not self.draft_ids.shape[1]:
            return self.target_probs[:, :0]
        if self.draft_probs is None:
            raise JudgeDecodingError(
                f"The rule {rule} compares the draft's probabilities with the target's, and this drafter has none "
                "(prompt lookup, for example, only copies); use a draft model, or a rule that needs none."
            )
        return self.draft_probs

    @property
    def _sampled(self) -> Tensor | None:
        """The distributions the draft was sampled from [B, M, V]; None if its tokens count as certain."""
        return None if self.greedy else self.draft_probs

    @cached_property
    def drawn_from(self) -> Tensor:
        """The distributions the draft was sampled from [B, M, V]; one-hot for a greedy draft."""
        if self._sampled is not None:
            return self._sampled
        size = self.target_logits.shape[-1]
        return torch.nn.functional.one_hot(self.draft_ids, size).to(self.target_logits)

    def target_at(self, position: int | Tensor) -> Tensor:
        """Return the target's distribution at one position of each row [B, V]; ``position`` is an int or [B]."""
        return self.target_probs[torch.arange(len(self.draft_ids), device=self.draft_ids.device), position]

    def draft_at(self, position: int | Tensor) -> Tensor:
        """Return the draft's distribution at ``position`` [B, V]: one-hot if greedy, zeros after the row's draft."""
        rows = torch.arange(len(self.draft_ids), device=self.draft_ids.device)
        count, target = self.draft_ids.shape[1], self.target_at(position)
        if not count:
            return torch.zeros_like(target)
        place = torch.as_tensor(position, device=rows.device).expand(len(rows))
        inside = place.clamp(max=count - 1)
        if self._sampled is None:
            draft = torch.nn.functional.one_hot(self.draft_ids[rows, inside], target.shape[-1]).to(target)
        else:
            draft = self._sampled[rows, inside]
        ends = count if self.lengths is None else self.lengths
        return draft * (place < ends)[:, None]

    def residual(self, position: int | Tensor) -> Tensor:
        """Return norm((p-q)+) [B, V], the distribution of the token after a standard rejection at ``position``.

        ``position`` is an int for all rows or a tensor [B]; after a row's whole draft the result is the target's own.
        """
        return normalized_excess(self.target_at(position), self.draft_at(position))


_BY_POSITION = {
    "target_ids": 1, "target_probs": 1, "token_probs": 0, "token_ranks": 0, "gaps": 0, "best_probs": 0, "entropy": 0
}  # fmt: skip
"""The per-position properties of `Evidence`; 1 for those that also cover the position after the draft."""


def normalized_excess(wanted: Tensor, drawn: Tensor, otherwise: Tensor | None = None) -> Tensor:
    """Return ``norm((wanted - drawn)+)`` of distributions [..., V]; where it is empty, ``otherwise`` or ``wanted``."""
    rest = (wanted - drawn).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    # If both are equal up to rounding, the rejection was a rounding error too, and the fallback is good enough.
    return torch.where(total > 0, rest / total, wanted if otherwise is None else otherwise)
