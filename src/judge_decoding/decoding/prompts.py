"""From what a user gives to token ids: text, chat messages, ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from judge_decoding.errors import JudgeDecodingError

Prompt = str | Sequence[Mapping[str, str]] | Tensor
"""A text, chat messages (``{"role": ..., "content": ...}``), or token ids [T] or [1, T]."""


def encode(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor:
    """Token ids [1, T] of a prompt.

    Raises:
        JudgeDecodingError: the prompt is empty, has tokens the target does not know, or is chat messages that the
            model's chat template does not take.
    """
    if isinstance(prompt, Tensor):
        ids = prompt if prompt.ndim == 2 else prompt[None]
    elif isinstance(prompt, str):
        ids = torch.tensor([tokenizer(prompt)["input_ids"] if prompt.strip() else []], dtype=torch.long)
    else:
        text = render(prompt, tokenizer)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]], dtype=torch.long)
    if ids.numel() == 0:
        raise JudgeDecodingError("The prompt is empty; give at least one token.")
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise JudgeDecodingError(f"The prompt's token ids have shape {tuple(ids.shape)}; give one prompt at a time.")
    if ids.min() < 0 or ids.max() >= vocab_size:
        raise JudgeDecodingError(
            f"The prompt has token ids {int(ids.min())} to {int(ids.max())}, but the target knows 0 to "
            f"{vocab_size - 1}; use the target's own tokenizer."
        )
    return ids.long()


def render(messages: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of chat messages, ready for an answer.

    Raises:
        JudgeDecodingError: there is no chat template, or it does not take these messages.
    """
    if not all(isinstance(message, Mapping) for message in messages):
        raise JudgeDecodingError(
            "The prompt is no text, no chat messages and no tensor of token ids; give one of these, one at a time."
        )
    if not messages:
        raise JudgeDecodingError("The prompt is empty; give at least one message.")
    if not tokenizer.chat_template:
        raise JudgeDecodingError("This model has no chat template; give the prompt as text.")
    plain = [dict(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise JudgeDecodingError(
            f"The model's chat template refuses these messages ({error}); give the roles and texts it expects."
        ) from error
    return str(text)
