"""Labels of single tokens: how an answer changes if the draft's token replaces the target's.

Both methods to label a swap, by likelihood and by equivalence, look at the *mismatches*: the positions of an answer
where the draft's most probable token is a different one. A judge decides on these tokens; all others are kept anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import fingerprint
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.teacher_forcing import ForcedOutputs, log_probability, read_given
from judge_decoding.models.text import pieces


def check_draft_model(decoder: JudgeDecoder) -> PreTrainedModel:
    """The decoder's draft, which must be a model here.

    Raises:
        JudgeDecodingError: the decoder has no draft model.
    """
    if (model := decoder.draft_model) is None:
        raise JudgeDecodingError("Labelling swaps needs a draft model; give one of the target's family.")
    return model


def prompt_ids(decoder: JudgeDecoder, question: str) -> list[int]:
    """The token ids of a question."""
    return list(decoder.encode(question)[0].tolist())


@torch.inference_mode()
def log_probs(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """The log-probability of each token of each answer, given the tokens before it: float32 on the CPU [T_i]."""
    found = [torch.zeros(0)] * len(prompts)
    for piece in _read(model, prompts, answers):
        ids = torch.tensor(answers[piece.number])[piece.positions - len(prompts[piece.number])]
        found[piece.number] = torch.cat((found[piece.number], log_probability(piece.logits, ids)))
    return found


@torch.inference_mode()
def draft_choices(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> list[list[int]]:
    """The model's most probable token at each position of each answer, given the tokens before it."""
    found: list[list[int]] = [[] for _ in prompts]
    for piece in _read(model, prompts, answers):
        found[piece.number] += piece.logits.argmax(-1).tolist()
    return found


def _read(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> Iterator[ForcedOutputs]:
    """The model's predictions for the tokens of each answer."""
    both = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return read_given(model, both, [range(len(p), len(ids)) for p, ids in zip(prompts, both, strict=True)])


def swap_case(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    prompt: Sequence[int],
    answer: Sequence[int],
    swaps: Sequence[int],
    *,
    wrong: bool,
    source: str,
    score: float | None = None,
    ends: Collection[int] | None = None,
) -> Case | None:
    """The case of an answer with verdicts only for the tokens at positions ``swaps``; None if none of them has text.

    ``ends`` are the tokens that end an answer of the target; by default the tokenizer's end token.
    """
    ended = bool(answer) and answer[-1] in ({tokenizer.eos_token_id} if ends is None else ends)
    # The prompt comes first, because some tokenizers drop the space at the beginning of a text.
    texts = pieces(tokenizer, [*prompt, *answer])[len(prompt) :]
    if ended:
        texts[-1] = ""  # an end token may have text, which is not part of the answer
    starts = [0]
    for text in texts:
        starts.append(starts[-1] + len(text))
    spans = [(starts[at], starts[at + 1]) for at in swaps if texts[at] or (ended and at == len(answer) - 1)]
    if not spans:
        return None
    return Case(
        question=question,
        answer="".join(texts),
        errors=tuple(spans) if wrong else (),
        ended=ended,
        source=source,
        judged=tuple(spans),
        token_ids=(*prompt, *answer),
        tokenizer=fingerprint(tokenizer),
        score=score,
    )
