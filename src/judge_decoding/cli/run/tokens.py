"""Split cases into the tokens of a tokenizer, for ``court check``, ``stats`` and ``view``."""

from __future__ import annotations

from collections.abc import Callable

from judge_decoding.data.cases import Case
from judge_decoding.data.summary import Spans
from judge_decoding.data.tokens import check_tokens, token_spans
from judge_decoding.loading.models import load_tokenizer


def check_with(tokenizer: str) -> Callable[[Case], None]:
    """A check whether a case survives a tokenizer: a Hub name or folder."""
    loaded = load_tokenizer(tokenizer)
    return lambda case: check_tokens(case, loaded)


def spans_with(tokenizer: str) -> Spans:
    """A function that cuts an answer into tokens."""
    loaded = load_tokenizer(tokenizer)
    return lambda case: token_spans(case, loaded)
