"""Render questions with a model's chat template, for ``fit`` and ``court collect``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from judge_decoding.loading.models import load_tokenizer
from judge_decoding.models.chat import Message, render


def renderer(model: str) -> Callable[[Sequence[Message]], str]:
    """The chat template of a model: a Hub name or folder."""
    tokenizer = load_tokenizer(model)
    return lambda messages: render(messages, tokenizer)
