"""From token ids to text, one token at a time."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\ufffd"


class Detokenizer:
    """Gives the text each token adds, so that the pieces joined are the text.

    A token that ends inside a character adds nothing; the token that completes the character adds it whole.
    Special tokens add nothing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # Decoded together with a few tokens before them, as some tokenizers write a token differently at the start.
        self._from = self._shown = 0

    def push(self, token: int) -> str:
        """The text that ``token`` adds."""
        self._ids.append(token)
        before, now = self._decode(self._ids[self._from : self._shown]), self._decode(self._ids[self._from :])
        if now.endswith(_INCOMPLETE) or len(now) <= len(before):
            return ""
        self._from, self._shown = self._shown, len(self._ids)
        return now[len(before) :]

    def flush(self) -> str:
        """What is left at the end: the replacement character of a character that was never completed."""
        before, now = self._decode(self._ids[self._from : self._shown]), self._decode(self._ids[self._from :])
        self._from = self._shown = len(self._ids)
        return now[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text if isinstance(text, str) else "".join(text)


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Iterable[int]) -> list[str]:
    """The text of each of ``ids``; see `Detokenizer`."""
    detokenizer = Detokenizer(tokenizer)
    texts = [detokenizer.push(token) for token in ids]
    if texts:
        texts[-1] += detokenizer.flush()
    return texts
