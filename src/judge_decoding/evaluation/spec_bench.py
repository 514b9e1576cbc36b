"""Answers and counts as Spec-Bench (hemingkx/Spec-Bench) has them, so that its scripts can read our runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

from judge_decoding.core.results import ResultRow
from judge_decoding.core.rounds import Stats
from judge_decoding.core.samples import Sample
from judge_decoding.decoding.answer import Generation
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.tasks.base import Item


def answer_line(item: Item, turns: Sequence[Generation | Sample], model_id: str, when: float | None = None) -> str:
    """Return the line of Spec-Bench's answer file for one item, whose key is the question's number; line end included.

    Raises:
        JudgeDecodingError: an answer has no time of its own; Spec-Bench divides by it.
    """
    if not all(turn.seconds for turn in turns):
        raise JudgeDecodingError(
            f"The answers to question {item.key} have no individual times, which Spec-Bench needs; decode them one "
            "at a time."
        )
    counts = [[len(event.token_ids) for event in turn.rounds] for turn in turns]
    texts = [turn.text.strip() for turn in turns]  # as Spec-Bench does
    choice = {
        "index": 0,
        "turns": texts,
        "decoding_steps": [len(own) for own in counts],
        "new_tokens": [sum(own) for own in counts],
        "wall_time": [turn.seconds for turn in turns],
        "accept_lengths": [count for own in counts for count in own],
    }
    name = "\0".join((model_id, item.key, *texts))
    line = {
        "question_id": int(item.key) if item.key.isdecimal() else item.key,
        "category": item.category,
        "answer_id": hashlib.sha256(name.encode()).hexdigest()[:22],
        "model_id": model_id,
        "choices": [choice],
        "tstamp": time.time() if when is None else when,
    }
    return json.dumps(line) + "\n"


@dataclass(frozen=True, slots=True)
class Counting:
    """The same rounds counted by two conventions.

    They differ by 1, the target's own token, except in rounds without one: where an end token or a stop string lies
    inside the draft, the round ends there. ``mean_accepted_tokens == accepted_per_round + 1 - ended_in_draft``.

    Attributes:
        mean_accepted_tokens: Spec-Bench's "#Mean accepted tokens" (its ``evaluation/speed.py``): all tokens of a target
            forward, including the correction or bonus, averaged over all forwards of all answers; 1 for plain decoding.
            An end token counts and nothing after it does. Reading the prompt is not a separate forward, as in
            Spec-Bench's ``sps``, its method with a draft model. It is `Stats.tokens_per_forward`.
        accepted_per_round: the mean m* of Judge Decoding (arXiv 2501.19309, section 5): accepted draft tokens only; 0
            for plain decoding. It is `Stats.accepted_per_round`. The paper does not say how it counts an answer's last
            round; here it counts like any other.
        ended_in_draft: share of rounds that ended within their draft.
    """

    mean_accepted_tokens: float
    accepted_per_round: float
    ended_in_draft: float

    @classmethod
    def of(cls, counted: Stats | ResultRow) -> Counting:
        """Return the figures of these rounds; all are 0 if there are no rounds."""
        rounds = max(counted.rounds, 1)
        without_own = counted.rounds - (counted.tokens - counted.accepted)
        return cls(counted.tokens / rounds, counted.accepted / rounds, without_own / rounds)
