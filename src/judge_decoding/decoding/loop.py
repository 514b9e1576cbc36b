"""The loop of judge decoding: ids in, rounds out.

In each round the drafter proposes M tokens. The target reads its last token and the whole draft in one
forward pass, which yields its distribution at M+1 positions and its hidden state *at* every draft token. The rule
decides which draft tokens to keep; the longest accepted prefix stays, and one token of the target follows.
A batch shares only these forward passes: each request has its own rule, sampler, draft length and guards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.core.rounds import Round, Seconds
from judge_decoding.decoding.backends.base import TargetBackend, VerifyOutput
from judge_decoding.decoding.backends.eager import EagerTarget
from judge_decoding.decoding.drafters.base import Draft, Drafter, DraftRequest, needs_of
from judge_decoding.decoding.request import Request, SequenceState
from judge_decoding.decoding.timing import Stopwatch
from judge_decoding.decoding.verification import verify


def decode(
    target: PreTrainedModel | TargetBackend, drafter: Drafter | None, requests: Sequence[Request]
) -> Iterator[tuple[int, Round]]:
    """Decode all ``requests`` together, and yield each finished round with its request's number.

    Without a drafter this is plain decoding: rounds of an empty draft and one bonus token. Finished requests leave
    the batch. Memory is freed when the generator is exhausted or closed. A model runs in the eager back end. Source:
    Leviathan et al. 2023, algorithm 1; Judge Decoding (arXiv 2501.19309), section 4, for the judge's place in it.

    Raises:
        JudgeDecodingError: the target cannot be decoded from, the KV cache of target or draft cannot be rolled back,
            or logits are not finite.
    """
    target = EagerTarget(target) if isinstance(target, PreTrainedModel) else target
    rows = [SequenceState(i, request) for i, request in enumerate(requests) if request.max_new_tokens > 0]
    if rows:
        target.check(drafts=drafter is not None)
    for batch in _batches(target, rows):
        yield from _decode(target, drafter, batch)


def _batches(target: TargetBackend, rows: list[SequenceState]) -> Iterator[list[SequenceState]]:
    """Group rows that share forward passes: all rows if possible, except those that may cross the RoPE border."""
    border = target.border
    together = [
        row for row in rows
        if target.can_batch and (border is None or len(row.tokens) + row.left <= border.length)
    ]  # fmt: skip
    if together:
        yield together
    yield from ([row] for row in rows if row not in together)


def _decode(target: TargetBackend, drafter: Drafter | None, rows: list[SequenceState]) -> Iterator[tuple[int, Round]]:
    """Decode rows that share all their forward passes."""
    watch = Stopwatch(target.model.device)
    needs = needs_of(drafter)
    wanted = {needs, *(row.request.rule.source for row in rows)} if drafter is not None else set()
    session = target.open(rows, {source for source in wanted if source is not None})
    nothing = Draft(torch.empty(0, dtype=torch.long, device=target.model.device))
    inference = torch.inference_mode()  # never active at a yield, or it would apply to the caller, too
    with inference:
        read_before = session.prefill([row.tokens.ids[:-1] for row in rows], needs)
    if needs is not None:
        for row, states in zip(rows, read_before, strict=True):
            row.append_hidden(states)
    staying: list[int] = []
    while rows:
        watch.start()
        with inference:
            if staying:  # other rows have ended; rejected tokens leave the cache
                session.retain(staying, [len(row.tokens) - 1 for row in rows])
            requests = [row.draft_request(session.longest_draft(i, len(row.tokens))) for i, row in enumerate(rows)]
            watch.lap("overhead")
            drafts = _draft(drafter, rows, requests, nothing)
            watch.lap("draft")
            outputs = session.read([row.tokens for row in rows], drafts)
            watch.lap("verify")
            events = verify(rows, drafts, outputs, drafter is not None)
            if needs is not None:
                _pass_hidden(needs, rows, outputs, events)
            watch.lap("rule")
            seconds = watch.seconds()
        for row, event in zip(rows, events, strict=True):
            yield row.number, row.commit(_timed(event, seconds))
        staying = [i for i, row in enumerate(rows) if row.left > 0]
        rows = [rows[i] for i in staying]


def _draft(
    drafter: Drafter | None, rows: Sequence[SequenceState], requests: Sequence[DraftRequest], nothing: Draft
) -> list[Draft]:
    """Return a draft for each row: ``nothing`` if there is no drafter, or no row is to be drafted for."""
    if drafter is None or not any(request.count for request in requests):
        return [nothing] * len(rows)
    drafts = drafter.propose(requests)
    for row in rows:
        row.hidden, row.drafted = None, True
    return drafts


def _pass_hidden(
    needs: HiddenSource, rows: Sequence[SequenceState], outputs: Sequence[VerifyOutput], events: Sequence[Round]
) -> None:
    """Pass the drafter the target's hidden states at each row's last token and accepted draft."""
    for row, output, event in zip(rows, outputs, events, strict=True):
        # Where all tokens are read again, as after a LongRoPE border, their hidden states are new.
        if 0 < len(before := output.states_before(needs)) == len(row.tokens) - 1:
            row.hidden = before
        row.append_hidden(output.states(needs)[: event.accepted + 1])


def _timed(event: Round, seconds: Seconds) -> Round:
    """Set the time of a round that has not been yielded yet; `replace` would cost more than its verification."""
    object.__setattr__(event, "seconds", seconds)
    return event
