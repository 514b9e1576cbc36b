"""Where an answer ends beside its end token: stop strings, and transformers' own stopping criteria."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteriaList

from judge_decoding.decoding.text import Detokenizer
from judge_decoding.errors import JudgeDecodingError


class StopStrings:
    """Ends an answer with the token that completes one of ``strings`` in its text; made afresh for every request.

    The text keeps the stop string, as transformers' ``stop_strings`` does.

    Raises:
        JudgeDecodingError: one of the strings is empty.
    """

    def __init__(self, strings: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        if not all(strings):
            raise JudgeDecodingError("A stop string is empty; give at least one character.")
        self._strings, self._longest = tuple(strings), max(map(len, strings), default=0)
        self._detokenizer = Detokenizer(tokenizer)
        self._tail = ""

    def __call__(self, token_ids: Sequence[int]) -> int | None:
        """How many of these tokens the answer keeps, if it ends among them."""
        for place, token in enumerate(token_ids):
            piece = self._detokenizer.push(token)
            self._tail = (self._tail + piece)[-(self._longest + len(piece)) :]
            if any(string in self._tail for string in self._strings):
                return place + 1
        return None


class Criteria:
    """Ends an answer where transformers' stopping criteria say so, asked after each token as ``generate`` does."""

    def __init__(self, criteria: StoppingCriteriaList, prompt_ids: Tensor) -> None:
        self._criteria = criteria
        self._ids = prompt_ids[None]

    def __call__(self, token_ids: Sequence[int]) -> int | None:
        """How many of these tokens the answer keeps, if it ends among them."""
        for place, token in enumerate(token_ids):
            self._ids = torch.cat((self._ids, self._ids.new_tensor([[token]])), dim=1)
            if bool(self._criteria(self._ids, None).all()):
                return place + 1
        return None
