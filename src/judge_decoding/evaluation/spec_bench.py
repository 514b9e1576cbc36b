"""Answers as Spec-Bench (hemingkx/Spec-Bench) has them, so that its scripts can read our runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence

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
