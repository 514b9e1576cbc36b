"""Decode both columns of the page, one after the other, and report each round as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any

import torch

from judge_decoding.core.rounds import FinishReason, Round, Stats
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Options
from judge_decoding.models.text import Detokenizer
from judge_decoding.playground.answers import HeldAnswer, TargetAnswer
from judge_decoding.playground.asking import AnswerPlan

EventSink = Callable[[dict[str, Any]], None]
"""Takes an event for the page, which is JSON."""

_PATIENCE = 0.1
"""Seconds between two looks whether somebody who waits for the models has left."""


@dataclass(slots=True)
class _ColumnState:
    rounds: list[Round]
    pieces: list[str]
    seconds: float
    finish_reason: FinishReason | None


class DecodingLock:
    """One decoding at a time, whatever the models: two at once would share the machine, and their times would lie."""

    def __init__(self) -> None:
        self._lock = Lock()

    def take(self, send: EventSink, stop: Event) -> bool:
        """Wait for one's turn; return False if ``stop`` came first."""
        if self._lock.acquire(blocking=False):
            return True
        send({"type": "waiting"})
        while not stop.is_set():
            if self._lock.acquire(timeout=_PATIENCE):
                return True
        return False

    def give(self) -> None:
        """End one's turn."""
        self._lock.release()


def answer(
    plan: AnswerPlan,
    send: EventSink,
    stop: Event,
    turns: DecodingLock,
    before: tuple[Sequence[Round], Sequence[str]] = ((), ()),
) -> HeldAnswer | None:
    """Answer a question, report each round, and return the answer by judge decoding.

    ``stop`` ends decoding at the next round. ``before`` has rounds to continue from, and the texts of their tokens but
    the last; see `HeldAnswer.before`. It returns None if it was stopped before its first token.
    """
    if not turns.take(send, stop):
        return None
    try:
        decoder, alone = plan.pair.ready(plan.settings.backend, lambda text: send({"type": "note", "text": text}))
        for why in decoder.fallbacks:
            send({"type": "fallback", "text": f"Not compiled: {why}."})
        own = None
        if plan.settings.with_target and not before[0]:
            column = _decode("target", alone, plan, plan.options, send, stop)
            own = TargetAnswer("".join(column.pieces), len(column.pieces), column.seconds)
        if stop.is_set():
            return None
        column = _decode("judge", decoder, plan, plan.judged, send, stop, *before)
    finally:
        turns.give()
    if not column.pieces:
        return None
    seconds = None if before[0] else column.seconds
    return HeldAnswer(plan, tuple(column.rounds), tuple(column.pieces), column.finish_reason, seconds, own)


def _decode(
    name: str, decoder: JudgeDecoder, plan: AnswerPlan, options: Options, send: EventSink, stop: Event,
    before: Sequence[Round] = (), known: Sequence[str] = (),
) -> _ColumnState:  # fmt: skip
    """Decode one column, after the rounds ``before``, whose tokens but the last have the texts ``known``."""
    text = Detokenizer(decoder.tokenizer, decoder.end_ids)
    ids = [token for event in before for token in event.token_ids]
    spelled = [text.push(token) for token in ids]
    pieces = [*known, *spelled[len(known) :]]
    column = _ColumnState([*before], pieces, 0.0, plan.limit)
    budget = plan.budget - len(ids)
    send({"type": "start", "column": name, "prompt_tokens": plan.ids.shape[1], "kept": len(known),
          "pieces": pieces[len(known) :]})  # fmt: skip
    if (ids and ids[-1] in decoder.end_ids) or budget < 1:
        column.finish_reason = plan.limit if budget < 1 else "stop"
        send({"type": "end", "column": name, "finish_reason": column.finish_reason, "tail": ""})
        return column
    prompt = torch.cat((plan.ids, torch.tensor([ids], dtype=plan.ids.dtype, device=plan.ids.device)), 1)
    stats, last = Stats(), None
    begin = time.perf_counter()
    for event in decoder.rounds(prompt, budget, **options):
        column.seconds += time.perf_counter() - begin  # sending is not timed
        last = event
        stats.add(event)
        texts = [text.push(token) for token in event.token_ids]
        column.rounds.append(event)
        column.pieces += texts
        send({"type": "round", "column": name, "pieces": texts, "causes": event.causes,
              "drafted": len(event.draft_ids), "figures": _figures(stats, column.seconds)})  # fmt: skip
        if stop.is_set():
            break
        begin = time.perf_counter()
    tail = text.flush()
    if tail:
        column.pieces[-1] += tail
    ended = last is not None and last.stopped
    column.finish_reason = "stop" if ended else None if stats.tokens < budget else plan.limit
    send({"type": "end", "column": name, "finish_reason": column.finish_reason, "tail": tail})
    return column


def _figures(stats: Stats, seconds: float) -> dict[str, Any]:
    """The figures of a column so far."""
    return {
        "tokens": stats.tokens,
        "seconds": seconds,
        "tokens_per_second": stats.tokens / seconds if seconds else None,
        "acceptance_rate": stats.acceptance_rate,
        "mean_acceptance_length": stats.tokens_per_forward,
        "accepted_per_round": stats.accepted_per_round,
        "distance": next(iter(stats.distances), None),
    }
