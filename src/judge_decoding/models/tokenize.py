"""Convert text to token ids: the only module that does, so that a prompt has the same token ids everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.core.spans import Span
from judge_decoding.errors import JudgeDecodingError, reason
from judge_decoding.models.chat import Message, is_rendered, render, turn_end
from judge_decoding.models.forward import input_rows
from judge_decoding.models.text import pieces

Prompt = str | Sequence[Message] | Tensor
"""A text, chat messages (``{"role": ..., "content": ...}``), or token ids [T] or [1, T]."""

_ANCHORS = ("\n", ":", "0", "a")
"""Texts to put before an answer, to tokenize it as a continuation."""


@dataclass(frozen=True, slots=True)
class PromptAnswer:
    """A tokenized question, from which decoding starts, and the answer that follows.

    Each token of ``answer`` has a character span in it, which is empty for tokens without text.
    """

    prompt: list[int]
    answer: list[int]
    spans: list[Span]


def bare_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token ids of ``text`` without special tokens around it."""
    return list(_encoded(text, tokenizer, add_special_tokens=False)["input_ids"])


def _encoded(text: str, tokenizer: PreTrainedTokenizerBase, **how: bool) -> BatchEncoding:
    try:
        encoding: BatchEncoding = tokenizer(text, verbose=False, **how)
    except Exception as error:  # tokenizers are third-party code, and reject lone surrogates
        raise JudgeDecodingError(
            f"The tokenizer of {tokenizer.name_or_path or 'the model'} cannot read the text {text[:40]!r} "
            f"({reason(error)}); correct the text, or the tokenizer's files."
        ) from error
    return encoding


def check_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer gives the character offsets of its tokens, as only fast ones do."""
    if not tokenizer.is_fast:
        raise JudgeDecodingError(
            f"{type(tokenizer).__name__} has no character offsets; use this model's fast tokenizer."
        )


def lead_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token ids that the tokenizer adds before a text: usually a begin token, or nothing."""
    for probe in ("a", "1", "."):
        bare, whole = bare_ids(probe, tokenizer), list(_encoded(probe, tokenizer)["input_ids"])
        for start in range(len(whole) - len(bare) + 1) if bare else ():
            if whole[start : start + len(bare)] == bare:
                return whole[:start]
    end = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    whole = list(_encoded("", tokenizer)["input_ids"])
    return [i for i in whole if i == tokenizer.bos_token_id or i not in end]


def prompt_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the token ids of a prompt.

    A rendered chat already has all special tokens it needs; other texts get the tokens that the tokenizer adds before
    a text, unless they begin with them. Tokens that it adds after a text, such as an end token, are left out, as an
    answer will follow.
    """
    ids = bare_ids(text, tokenizer)
    return [*_missing_lead(text, ids, tokenizer), *ids]


def encode_prompt(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor:
    """Return the token ids [1, T] of a prompt."""
    if isinstance(prompt, Tensor):
        ids = prompt if prompt.ndim == 2 else prompt[None]
    elif isinstance(prompt, str):
        ids = torch.tensor([prompt_ids(prompt, tokenizer) if prompt.strip() else []], dtype=torch.long)
    else:
        ids = torch.tensor([bare_ids(render(prompt, tokenizer), tokenizer)], dtype=torch.long)
    if ids.numel() == 0:
        raise JudgeDecodingError("The prompt is empty; give at least one token.")
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise JudgeDecodingError(f"The prompt's token ids have shape {tuple(ids.shape)}; give one prompt at a time.")
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise JudgeDecodingError(
            f"The prompt has token ids {int(ids.min())} to {int(ids.max())}, but the target's ids are 0 to "
            f"{vocab_size - 1}; use the target's own tokenizer."
        )
    return ids.long()


def split(question: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> PromptAnswer:
    """Tokenize a question as decoding reads it, and its answer as the continuation.

    The answer has the tokens that it has in the whole text. If a token crosses the border between question and answer,
    the answer is tokenized on its own, so that after the prompt it decodes to the same text.
    """
    bare = bare_ids(question, tokenizer)
    lead = _missing_lead(question, bare, tokenizer)
    prompt = [*lead, *bare]
    ids, spans = _ids_and_spans(question + answer, tokenizer)
    whole = [*lead, *ids]
    # Unknown words on both sides of the border have the same id as one word across it.
    across = bool(bare) and len(spans) >= len(bare) and spans[len(bare) - 1][1] > len(question)
    if whole[: len(prompt)] == prompt and not across:
        found = whole[len(prompt) :]
        return PromptAnswer(prompt, found, _shifted(spans, len(found), len(question), len(answer)))
    for anchor in ("", *filter(None, (tokenizer.bos_token, tokenizer.eos_token)), *_ANCHORS):
        before = bare_ids(anchor, tokenizer) if anchor else []
        ids, spans = _ids_and_spans(anchor + answer, tokenizer)
        found = ids[len(before) :]
        if ids[: len(before)] == before and "".join(pieces(tokenizer, [*prompt, *found])[len(prompt) :]) == answer:
            return PromptAnswer(prompt, found, _shifted(spans, len(found), len(anchor), len(answer)))
    # No tokens reproduce the answer; `check_spelling` reports this.
    ids, spans = _ids_and_spans(answer, tokenizer)
    return PromptAnswer(prompt, ids, _shifted(spans, len(ids), 0, len(answer)))


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the tokens that end an answer of ``model``, from its generation config or else its tokenizer."""
    config = getattr(model, "generation_config", None)  # models with custom code may lack it
    size = input_rows(model)
    for end in (getattr(config, "eos_token_id", None), tokenizer.eos_token_id):
        ends = end if isinstance(end, list | tuple) else () if end is None else (end,)
        if not all(isinstance(i, int) for i in ends):
            raise JudgeDecodingError(
                f"The end tokens of {model.name_or_path or type(model).__name__} are {end!r}, which are no token ids; "
                "correct eos_token_id in its generation_config.json."
            )
        # The default of a configuration may exceed a smaller vocabulary.
        if known := tuple(i for i in ends if i < size):
            return known
    return ()


def end_token(question: str, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> int | None:
    """Return the token of ``ends`` with which the model ends its answer to ``question``; None if ``ends`` is empty.

    After a chat it is the token that the chat template writes after an assistant message, otherwise the tokenizer's.
    """
    if len(ends) > 1 and is_rendered(question, tokenizer):
        for token in bare_ids(turn_end(tokenizer), tokenizer):
            if token in ends:
                return token
    own = tokenizer.eos_token_id
    return own if own in ends else next(iter(ends), None)


def _missing_lead(text: str, ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that the tokenizer adds before a text, without those that ``ids`` of ``text`` begin with."""
    lead = lead_ids(tokenizer)
    if not lead or is_rendered(text, tokenizer):
        return []
    # Some templates start with white space.
    start = ids if text[:1].strip() else bare_ids(text.lstrip(), tokenizer)
    there = next(n for n in range(min(len(lead), len(start)), -1, -1) if lead[len(lead) - n :] == start[:n])
    return [] if start is not ids and there else lead[: len(lead) - there]


def _ids_and_spans(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[Span]]:
    if not tokenizer.is_fast:
        ids = bare_ids(text, tokenizer)
        spans, at = list[Span](), 0
        for piece in pieces(tokenizer, ids):
            spans.append((at, at + len(piece)))
            at += len(piece)
        return ids, [(begin + len(text) - at, end + len(text) - at) for begin, end in spans]
    encoding = _encoded(text, tokenizer, add_special_tokens=False, return_offsets_mapping=True)
    return list(encoding["input_ids"]), [(begin, end) for begin, end in encoding["offset_mapping"]]


def _shifted(spans: list[Span], count: int, start: int, length: int) -> list[Span]:
    """Return the last ``count`` of ``spans``, shifted by ``start`` and clipped to a text of ``length`` characters."""
    last = spans[len(spans) - count :]
    return [(min(max(begin - start, 0), length), min(max(end - start, 0), length)) for begin, end in last]
