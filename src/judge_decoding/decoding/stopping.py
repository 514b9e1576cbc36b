"""Where an answer ends without an end token: stop strings, and transformers' own stopping criteria."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy, deepcopy

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.token_bytes import TokenBytes

Stop = Callable[[Sequence[int]], int | None]
"""Called with the tokens of each round; returns how many of them the answer keeps if it ends there, else None."""


class StopStrings:
    """Ends an answer with the token that completes one of ``strings``; created anew for each request.

    Strings are matched in the text of all tokens, special ones included, like transformers' ``stop_strings``: a stop
    string may begin and end inside tokens, and may begin in the prompt. The answer keeps the whole token.
    """

    def __init__(
        self, strings: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int] = ()
    ) -> None:
        if not all(strings):
            raise JudgeDecodingError("A stop string is empty; give at least one character.")
        self._strings = tuple(string.encode("utf-8", "replace") for string in strings)
        self._longest = max(map(len, self._strings), default=0)
        self._bytes = TokenBytes.of(tokenizer)
        self._tail = b""
        for token in prompt_ids[-self._longest :]:
            self._push(token)

    def __call__(self, token_ids: Sequence[int]) -> int | None:
        """Return how many of these tokens the answer keeps if it ends among them, else None."""
        for position, token in enumerate(token_ids):
            if self._push(token):
                return position + 1
        return None

    def _push(self, token: int) -> bool:
        """Add ``token`` to the text; return whether a stop string ends in it."""
        new = self._bytes(token)
        if new is None:  # no stop string can span it
            self._tail = b""
            return False
        text, before = self._tail + new, len(self._tail)
        self._tail = text[-self._longest :]
        # A match that ends in the earlier text lies in the prompt, or would have ended the answer already.
        return any(text.find(string, max(before - len(string) + 1, 0)) >= 0 for string in self._strings if new)


class Criteria:
    """Ends an answer where transformers' stopping criteria do; they are called after each token as in ``generate``.

    Third-party criteria may keep state for each row of the batch they were created for (those of the
    lm-evaluation-harness record which rows have ended). Rows are checked one by one here, so each row has its own
    copies of the criteria, which are called with a batch of ``rows`` identical rows. ``prompt_ids`` [T] has its
    padding.
    """

    def __init__(self, criteria: StoppingCriteriaList, prompt_ids: Tensor, rows: int = 1) -> None:
        foreign = any(not type(c).__module__.startswith("transformers.") for c in criteria)
        shared = rows == 1 or not foreign
        self._criteria = criteria if shared else StoppingCriteriaList(map(_copied, criteria))
        self._ids = prompt_ids.repeat(1 if shared else rows, 1)

    def __call__(self, token_ids: Sequence[int]) -> int | None:
        """Return how many of these tokens the answer keeps if it ends among them, else None."""
        for position, token in enumerate(token_ids):
            self._ids = torch.cat((self._ids, self._ids.new_full((len(self._ids), 1), token)), dim=1)
            if bool(self._criteria(self._ids, None).all()):
                return position + 1
        return None


def either(stops: Sequence[Stop]) -> Stop | None:
    """Return a `Stop` that ends an answer where the first of ``stops`` does; None if ``stops`` is empty."""
    if len(stops) < 2:
        return stops[0] if stops else None

    def first(token_ids: Sequence[int]) -> int | None:
        return min((count for stop in stops if (count := stop(token_ids)) is not None), default=None)

    return first


def _copied(criterion: StoppingCriteria) -> StoppingCriteria:
    """Return a copy with state of its own; objects that it merely uses, such as a tokenizer, stay shared."""
    own = copy(criterion)
    for name, value in vars(own).items():
        if isinstance(value, list | dict | set | Tensor):
            setattr(own, name, deepcopy(value))
    return own
