"""Labels of single tokens: what becomes of an answer if the draft's token takes the place of the target's.

Both ways to label a swap, by likelihood and by equivalence, look at the *mismatches*: the positions of an answer where
the draft's most probable token is another one. These are the tokens on which a judge decides; all others are kept
anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.data.cases import Case
from judge_decoding.data.tokens import fingerprint
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.abilities import can_batch
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.context import rope_border
from judge_decoding.models.forward import check_finite
from judge_decoding.models.text import pieces


def draft_model(decoder: JudgeDecoder) -> PreTrainedModel:
    """The decoder's draft, which must be a model here.

    Raises:
        JudgeDecodingError: there is none.
    """
    if not isinstance(decoder.draft, PreTrainedModel):
        raise JudgeDecodingError("Labelling swaps needs a draft model; give one of the target's family.")
    return decoder.draft


def prompt_ids(decoder: JudgeDecoder, question: str) -> list[int]:
    """Token ids of a question."""
    return list(decoder.encode(question)[0].tolist())


@torch.inference_mode()
def log_probs(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], keep: Sequence[int], batch_size: int = 8
) -> list[torch.Tensor]:
    """Log-probabilities, float32 on the CPU [keep_i, V], behind the last ``keep[i]`` tokens of each of ``rows``."""
    results: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    border = rope_border(model)
    size = batch_size if can_batch(model) and border is None else 1
    for first in range(0, len(order), size):
        chosen = order[first : first + size]
        inputs = [torch.tensor(list(rows[i]), device=model.device) for i in chosen]
        lm, kept = CachedLM(model, len(chosen), rewinds=False), [keep[i] for i in chosen]
        if border is not None and len(inputs[0]) > border.length:
            # What stands before the border is read as in decoding, before the sequence is long.
            early = max(kept[0] - (len(inputs[0]) - border.length), 0)
            before = lm.read([inputs[0][: border.length]], [early])[0]
            lm.prepare([len(inputs[0])])
            rest = lm.read([inputs[0][lm.lengths[0] :]], [kept[0] - early])[0]
            read = [torch.cat((before, rest))]
        else:
            read = lm.read(inputs, kept)
        for i, logits in zip(chosen, read, strict=True):
            check_finite(logits)
            results[i] = logits.log_softmax(-1).cpu()
    return results


def draft_choices(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], batch_size: int = 8
) -> list[list[int]]:
    """The model's most probable token at each position of each answer, given what is before it there."""
    rows = [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers, strict=True)]
    return [found.argmax(-1).tolist() for found in log_probs(model, rows, [len(a) for a in answers], batch_size)]


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
    """The case of an answer in which only the tokens at positions ``swaps`` have a verdict; None if none has a text.

    ``ends`` are the tokens that end an answer of the target; by default the tokenizer's end token.
    """
    ended = bool(answer) and answer[-1] in ({tokenizer.eos_token_id} if ends is None else ends)
    # Behind the prompt, as some tokenizers drop the space at the beginning of a text.
    texts = pieces(tokenizer, [*prompt, *answer])[len(prompt) :]
    if ended:
        texts[-1] = ""  # an end token may have a text, which is no part of the answer
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
