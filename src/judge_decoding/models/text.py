"""Decode token ids to text, one token at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # web pages of finished answers need no transformers
    from transformers import PreTrainedTokenizerBase

INCOMPLETE = "\ufffd"
"""The end of a decoded text whose last token ends inside a character."""


def decode_ids(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of ``ids`` without special tokens."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text if isinstance(text, str) else "".join(text)


class Detokenizer:
    """Returns the text that each token adds, so that the joined pieces are the text.

    A token that ends inside a character adds nothing; the token that completes the character adds it whole.
    Special tokens add nothing, nor do ``silent`` tokens, such as an end token that the tokenizer treats as text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, silent: Collection[int] = ()) -> None:
        self._tokenizer, self._silent = tokenizer, silent
        self._ids: list[int] = []
        # Tokens are decoded with a few tokens before them, as some tokenizers decode a token differently at the start.
        self._from = self._shown = 0

    def push(self, token: int) -> str:
        """Return the text that ``token`` adds."""
        if token in self._silent:
            return ""
        self._ids.append(token)
        before, now = self._texts()
        if now.endswith(INCOMPLETE) or len(now) <= len(before):
            return ""
        self._from, self._shown = self._shown, len(self._ids)
        return now[len(before) :]

    def flush(self) -> str:
        """Return the rest at the end: the replacement character for an incomplete character."""
        before, now = self._texts()
        self._from = self._shown = len(self._ids)
        return now[len(before) :]

    def _texts(self) -> tuple[str, str]:
        """Return the text up to the last token shown, and up to the last token."""
        recent = self._ids[self._from :]
        return decode_ids(self._tokenizer, recent[: self._shown - self._from]), decode_ids(self._tokenizer, recent)


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], silent: Collection[int] = ()) -> list[str]:
    """Return the text of each of ``ids``; see `Detokenizer`."""
    detokenizer = Detokenizer(tokenizer, silent)
    texts = [detokenizer.push(token) for token in ids]
    if texts:
        texts[-1] += detokenizer.flush()
    return texts
