"""Convert user prompts to token ids: texts, chat messages or token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.chat import Message, render
from judge_decoding.models.tokenize import bare_ids, prompt_ids

Prompt = str | Sequence[Message] | Tensor
"""A text, chat messages (``{"role": ..., "content": ...}``), or token ids [T] or [1, T]."""


def encode(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> Tensor:
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
