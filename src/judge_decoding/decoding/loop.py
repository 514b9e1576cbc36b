"""The loop of judge decoding: ids in, rounds out.

Each round the drafter proposes M tokens; the target reads its last token and the whole draft in one
forward, which gives its distribution at M+1 positions and its hidden state *at* every draft token; the rule
says which draft tokens to keep; the longest accepted prefix stays, and one token of the target follows.
A batch shares these forwards and nothing else: each request has its own rule, sampler, draft length and guards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.rounds import FinishReason, Round, Seconds
from judge_decoding.decoding.backends.eager import EagerTarget, Target
from judge_decoding.decoding.drafters.base import Draft, Drafter, DraftRequest, needs_of
from judge_decoding.decoding.guards import Guard, History
from judge_decoding.decoding.lengths import DraftLength, Fixed
from judge_decoding.decoding.sampling import Sampler
from judge_decoding.decoding.timing import Stopwatch
from judge_decoding.decoding.tokens import Tokens
from judge_decoding.decoding.verification import verify
from judge_decoding.models.context import RopeBorder
from judge_decoding.rules.base import VerificationRule


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to decode.

    Attributes:
        prompt_ids: the prompt [T], T >= 1, on the target's device.
        rule: which draft tokens stay.
        sampler: how tokens are chosen.
        max_new_tokens: the token budget.
        length: how many tokens to draft each round; not shared between requests.
        end_ids: tokens that end the answer.
        guards: where no token may be rescued.
        stop: told of the tokens each round kept, says how many of them to keep if the answer ends there, else None.
        logprobs: tell the target's log-probability of every kept token.
        details: tell what is known about every draft token (`Round.details`).
        limit: what bounds ``max_new_tokens``, the caller's budget ("length") or the context.
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

    def finish_reason(self, last: Round) -> FinishReason:
        """Why the answer ended with its ``last`` round."""
        return "stop" if last.stopped else self.limit


class Row:
    """A request under way."""

    def __init__(self, number: int, request: Request) -> None:
        self.number, self.request = number, request
        self.tokens = Tokens(request.prompt_ids)
        self.history = History(list(self.tokens.host))
        self.left = request.max_new_tokens
        self.accepted: int | None = None
        self.hidden: Tensor | None = None

    def draft_request(self, border: RopeBorder | None) -> DraftRequest:
        """What to draft: never more than the budget leaves room for beside the target's own token.

        Nor more than the target can read in one forward, if its positions change their scale at a ``border``.
        """
        rule, length = self.request.rule, self.request.length
        count = max(min(length.next(), self.left - 1), 0)
        if border is not None and (longest := border.longest_draft(len(self.tokens))) is not None:
            count = min(count, longest)
        return DraftRequest(
            self.number, self.tokens, count, self.request.sampler,
            stop_below=length.stop_below, distribution=rule.needs_draft_probs or self.request.details,
            norm=rule.norm if rule.needs_draft_hidden else None,
            accepted=self.accepted, hidden=self.hidden,
        )  # fmt: skip

    def see(self, states: Tensor) -> None:
        """Keep the target's hidden states [n, H] at the next known tokens for the drafter's next request."""
        self.hidden = states if self.hidden is None else torch.cat((self.hidden, states))

    @property
    def is_new(self) -> bool:
        """No round has ended yet."""
        return self.left == self.request.max_new_tokens

    def take(self, event: Round) -> Round:
        """Go on after ``event``; it may end earlier than it did."""
        if self.request.stop and (count := self.request.stop(event.token_ids)) is not None:
            event = event.cut(count)
        self.left = 0 if event.stopped else self.left - len(event.token_ids)
        self.accepted = event.accepted
        self.tokens.extend(event.token_ids)
        self.history.add(event)
        self.request.length.observe(event)
        return event


def decode(
    target: PreTrainedModel | Target, drafter: Drafter | None, requests: Sequence[Request]
) -> Iterator[tuple[int, Round]]:
    """Decode all ``requests`` together, and yield each round with its request's number as it ends.

    Without a drafter this is plain decoding: rounds of an empty draft and one bonus token. Finished requests leave
    the batch. Memory is freed when the generator is exhausted or closed. A model is run by the eager back end. Source:
    Leviathan et al. 2023, algorithm 1; Judge Decoding (arXiv 2501.19309), section 4, for the judge's place in it.

    Raises:
        JudgeDecodingError: the target cannot be decoded from, the target's or the draft's cache cannot take tokens
            back, or logits are not finite.
    """
    target = EagerTarget(target) if isinstance(target, PreTrainedModel) else target
    rows = [Row(i, request) for i, request in enumerate(requests) if request.max_new_tokens > 0]
    if rows:
        target.check(drafts=drafter is not None)
    for batch in _batches(target, rows):
        yield from _decode(target, drafter, batch)


def _batches(target: Target, rows: list[Row]) -> Iterator[list[Row]]:
    """Rows that share forwards: all of them if they can, but for those that grow beyond a border of the positions."""
    border = target.border
    together = [
        row for row in rows
        if target.can_batch and (border is None or len(row.tokens) + row.left <= border.length)
    ]  # fmt: skip
    if together:
        yield together
    yield from ([row] for row in rows if row not in together)


def _decode(target: Target, drafter: Drafter | None, rows: list[Row]) -> Iterator[tuple[int, Round]]:
    watch = Stopwatch(target.model.device)
    needs = needs_of(drafter)
    wanted = {needs, *(row.request.rule.source for row in rows)} if drafter is not None else set()
    sources = {source for source in wanted if source is not None}
    nothing = Draft(torch.empty(0, dtype=torch.long, device=target.model.device))
    inference = torch.inference_mode()  # never while a round is handed out: it would be the caller's mode, too
    with closing(target.open(rows, sources)) as lm:
        with inference:
            lm.prefill([row.tokens.ids[:-1] for row in rows])
            if needs is not None:
                for row, states in zip(rows, lm.prefilled(needs), strict=True):
                    row.see(states)
        staying: list[int] = []
        while rows:
            watch.start()
            with inference:
                if staying:
                    lm.keep(staying, [len(row.tokens) - 1 for row in rows])
                requests = [row.draft_request(target.border) for row in rows]
                watch.lap("overhead")
                if drafter is not None and any(request.count for request in requests):
                    drafts = drafter.propose(requests)
                    for row in rows:
                        row.hidden = None
                else:
                    drafts = [nothing] * len(rows)
                watch.lap("draft")
                readings = lm.read([row.tokens for row in rows], drafts)
                watch.lap("verify")
                events = verify(rows, drafts, readings)
                if needs is not None:
                    for row, reading, event in zip(rows, readings, events, strict=True):
                        row.see(reading.states(needs)[: event.accepted + 1])
                watch.lap("rule")
                seconds = watch.seconds()
            for row, event in zip(rows, events, strict=True):
                yield row.number, row.take(_timed(event, seconds))
            staying = [i for i, row in enumerate(rows) if row.left > 0]
            rows = [rows[i] for i in staying]


def _timed(event: Round, seconds: Seconds) -> Round:
    """Fill in the time of a round, which nobody has seen yet; `replace` would cost more than its verification."""
    object.__setattr__(event, "seconds", seconds)
    return event
