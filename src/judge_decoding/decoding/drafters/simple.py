"""Drafters without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from judge_decoding.decoding.drafters.base import Draft, DraftRequest
from judge_decoding.errors import JudgeDecodingError


class DraftFunction:
    """A drafter made from any function of the ids so far and the number of tokens requested.

    Its proposals count as certain (their draft probability is 1).

    Raises:
        JudgeDecodingError: when drafting, if the function does not return a sequence of token ids.
    """

    def __init__(self, function: Callable[[list[int], int], Sequence[int]]) -> None:
        self._function = function

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Return the function's proposal for each row."""
        return [Draft(request.ids.new_tensor(self._call(request))) for request in requests]

    def _call(self, request: DraftRequest) -> list[int]:
        given = self._function(list(request.tokens.host), request.count)
        try:
            ids = [int(i) for i in given][: request.count]
        except (TypeError, ValueError) as error:
            raise JudgeDecodingError(
                f"The draft function returned {type(given).__name__}; it must return a sequence of token ids."
            ) from error
        return ids


class PromptLookup:
    """Proposes what followed the latest earlier occurrence of the last tokens (n-grams, longest first).

    Source: prompt lookup decoding, as in transformers' ``prompt_lookup_num_tokens``. It does not sample, so above
    temperature 0 its proposals count as certain: their draft probability is 1.
    """

    def __init__(self, longest: int = 3) -> None:
        self._longest = longest

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Propose at most ``count`` tokens per row; none if nothing repeats."""
        return [Draft(self._look_up(request.ids, request.count)) for request in requests]

    def _look_up(self, ids: Tensor, count: int) -> Tensor:
        for size in range(min(self._longest, len(ids) - 1), 0, -1):
            windows = ids.unfold(0, size, 1)[:-1]
            hits = (windows == ids[-size:]).all(-1).nonzero()
            if len(hits):
                start = int(hits[-1]) + size
                return ids[start : start + count]
        return ids[:0]
