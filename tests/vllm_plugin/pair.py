"""Prompts for the embedded pair, and its answers by this package's own loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch

from judge_decoding.core.rounds import Cause, Round
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.reference import pair
from judge_decoding.reference.problems import draw_many
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.judge import Judge

Answers = list[tuple[list[int], list[int]]]
"""The token ids of prompts and of what was answered."""
MAX_NEW_TOKENS = 150
"""No answer is that long: near the end of a budget our loop drafts less than vLLM."""
NUM_DRAFT_TOKENS = 8
GRAMMAR = r" Solution in numbers:( [0-9]+ [+*-] [0-9]+ = [0-9]+,){1,2} so there are [0-9]+ cards\."
"""For structured outputs; the tokenizer has no braces and no quotes, so JSON is not among them."""


def prompts(count: int, seed: int = 3) -> list[str]:
    """Test problems as the pair is asked them."""
    return [pair.prompt_of(problem) for problem in draw_many(seed, "test", count)]


PROMPTS = prompts(50)


def judged_by(decoder: JudgeDecoder, threshold: float | None = None) -> Judge:
    """The decoder's judge as a rule."""
    assert decoder.judge is not None
    return Judge(decoder.judge, threshold)


def are_ours(made: Answers, decoder: JudgeDecoder, rule: VerificationRule) -> list[Generation]:
    """Answers of vLLM are, token for token, those of our own loop after the first token; what our loop says of them.

    The first token is the target's own in vLLM, which begins to draft behind it.
    """
    ids = [torch.tensor([[*prompt, answer[0]]]) for prompt, answer in made]
    ours = decoder.generate_batch(ids, MAX_NEW_TOKENS, batch_size=25, rule=rule, num_draft_tokens=NUM_DRAFT_TOKENS)
    assert made == [(prompt, [answer[0], *one.token_ids]) for (prompt, answer), one in zip(made, ours, strict=True)]
    return ours


def accepted_by_cause(events: Iterable[Round], threshold: float) -> Counter[Cause]:
    """Accepted draft tokens as vLLM counts them: each draft to its end, even behind an end token."""
    counts: Counter[Cause] = Counter()
    for event in events:
        for token, own, score in zip(event.draft_ids, event.target_ids, event.scores or (), strict=False):
            if token != own and score <= threshold:
                break
            counts[Cause.AGREED if token == own else Cause.RESCUED] += 1
    return counts
