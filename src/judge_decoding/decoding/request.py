"""A request for one answer, and its state during decoding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from judge_decoding.core.rounds import FinishReason, Round
from judge_decoding.decoding.drafters.base import DraftRequest, TokenBuffer
from judge_decoding.decoding.guards import Guard, History
from judge_decoding.decoding.lengths import DraftLength, Fixed
from judge_decoding.decoding.sampling import Sampler
from judge_decoding.rules.base import VerificationRule, check_is_rule


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one answer.

    Attributes:
        prompt_ids: the prompt [T], T >= 1, on the target's device.
        rule: the rule that decides which draft tokens to keep.
        sampler: how tokens are chosen.
        max_new_tokens: the token budget.
        length: how many tokens to draft each round; not shared between requests.
        end_ids: tokens that end the answer.
        guards: guards that forbid rescues.
        stop: called with each round's kept tokens; returns how many of them to keep if the answer ends there, else
            None.
        logprobs: return the target's log-probability of each kept token.
        details: return details of each draft token (`Round.details`).
        limit: what bounds ``max_new_tokens``: the caller's budget ("length") or the context ("context").

    Raises:
        JudgeDecodingError: ``rule`` is not a verification rule.
    """

    prompt_ids: Tensor
    rule: VerificationRule
    sampler: Sampler
    max_new_tokens: int
    length: DraftLength = field(default_factory=lambda: Fixed(16))
    end_ids: Collection[int] = ()
    guards: Sequence[Guard] = ()
    stop: Callable[[Sequence[int]], int | None] | None = None
    logprobs: bool = False
    details: bool = False
    limit: FinishReason = "length"

    def __post_init__(self) -> None:
        check_is_rule(self.rule)

    def finish_reason(self, last: Round) -> FinishReason:
        """Return why the answer ended with its ``last`` round."""
        return "stop" if last.stopped else self.limit


class SequenceState:
    """The decoding state of a request."""

    def __init__(self, number: int, request: Request) -> None:
        self.number, self.request = number, request
        self.tokens = TokenBuffer(request.prompt_ids)
        self.history = History(list(self.tokens.host))
        self.left = request.max_new_tokens
        self.accepted: int | None = None
        self.drafted = False
        self.hidden: Tensor | None = None

    def draft_request(self, longest: int | None) -> DraftRequest:
        """Return what to draft: at most the remaining budget less the target's own token.

        The draft is also no longer than ``longest``, the most the target can read now.
        """
        rule, length = self.request.rule, self.request.length
        count = max(min(length.next(), self.left - 1), 0)
        if longest is not None:
            count = min(count, longest)
        return DraftRequest(
            self.number, self.tokens, count, self.request.sampler,
            stop_below=length.stop_below, distribution=rule.needs_draft_probs or self.request.details,
            norm=rule.norm if rule.needs_draft_hidden else None,
            accepted=self.accepted, hidden=self.hidden,
        )  # fmt: skip

    def append_hidden(self, states: Tensor) -> None:
        """Append the target's hidden states [n, H] at the next known tokens, for the drafter's next request."""
        if self.hidden is None or not len(self.hidden):
            self.hidden = states
        else:
            self.hidden = torch.cat((self.hidden, states))

    @property
    def is_new(self) -> bool:
        """Whether no round has ended yet."""
        return self.left == self.request.max_new_tokens

    def commit(self, event: Round) -> Round:
        """Update the state by ``event`` and return it, cut where the answer ends."""
        if self.request.stop and (count := self.request.stop(event.token_ids)) is not None:
            event = event.cut(count)
        self.left = 0 if event.stopped else self.left - len(event.token_ids)
        if self.drafted:  # a round without a draft does not replace the last draft
            self.accepted, self.drafted = event.accepted, False
        self.tokens.extend(event.token_ids)
        self.history.add(event)
        self.request.length.observe(event)
        return event
