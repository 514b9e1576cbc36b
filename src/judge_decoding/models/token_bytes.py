"""The bytes that each token adds to a text, including tokens that are only part of a character."""

from __future__ import annotations

import json
from typing import cast
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from judge_decoding.models.tokenize import bare_ids

_BYTES = {sign: byte for byte, sign in bytes_to_unicode().items()}
"""The characters that byte-level tokenizers use for bytes."""

_BASE = "abcdef"


class TokenBytes:
    """The bytes of tokens inside a text, including special tokens; computed once per requested token.

    They are the same as in transformers' ``StopStringCriteria``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._kinds, self._size = tokenizer, _decoders(tokenizer), len(tokenizer)
        self._base = cast(list[str], tokenizer.convert_ids_to_tokens(bare_ids(_BASE, tokenizer)))
        # If these letters are unknown, transformers cannot search, and tokens without a name simply add no text.
        self._nameless = None if _BASE in tokenizer.convert_tokens_to_string(self._base) else b""
        self._known: dict[int, bytes | None] = {}

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> TokenBytes:
        """Return the shared instance for this tokenizer."""
        found = _KNOWN.get(tokenizer)
        if found is None or found._size != len(tokenizer):
            found = _KNOWN[tokenizer] = cls(tokenizer)
        return found

    def __call__(self, token: int) -> bytes | None:
        """Return the bytes that ``token`` adds; None if the tokenizer has no such token; no match spans it."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def _find(self, token: int) -> bytes | None:
        try:
            name = cast(str | None, self._tokenizer.convert_ids_to_tokens(token))
        except (IndexError, KeyError, OverflowError):
            name = None
        if name is None:
            return self._nameless
        if "ByteFallback" in self._kinds and len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
            try:
                return bytes.fromhex(name[3:5])
            except ValueError:
                pass
        elif "ByteLevel" in self._kinds and all(sign in _BYTES for sign in name):
            return bytes(_BYTES[sign] for sign in name)
        # After other tokens, as some tokenizers decode a token differently at the start.
        text = self._tokenizer.convert_tokens_to_string([*self._base, name])
        before, found, after = text.partition(_BASE)
        if not found:  # a tokenizer that does not know these letters
            before = self._tokenizer.convert_tokens_to_string(self._base)
            after = text.removeprefix(before)
        return after.encode("utf-8", "replace")


_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, TokenBytes] = WeakKeyDictionary()


def _decoders(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the types of the decoders that a fast tokenizer chains."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return set()
    found, left = set[str](), [json.loads(decoder.__getstate__())]
    while left:
        one = left.pop()
        found.add(one["type"])
        left += one.get("decoders", ())
    return found
