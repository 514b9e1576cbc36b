"""Where proposals come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.models import CachedLM
from judge_decoding.decoding.sampling import Sampler


@dataclass(frozen=True, slots=True)
class Draft:
    """Proposed tokens ``ids`` [1, M] and the distributions they were drawn from [1, M, V], None if not drawn."""

    ids: Tensor
    probs: Tensor | None = None


class Drafter(Protocol):
    """Anything that proposes tokens."""

    def propose(self, ids: Tensor, count: int, sampler: Sampler) -> Draft:
        """Up to ``count`` tokens to follow ``ids`` [1, T].

        A call may follow any other: nothing tells the drafter what was accepted but the ids themselves.
        """
        ...


class DraftModel:
    """A small causal LM with the target's vocabulary."""

    def __init__(self, model: PreTrainedModel, vocab_size: int) -> None:
        self._lm = CachedLM(model)
        self._vocab_size = vocab_size
        self._last_id = model.get_input_embeddings().get_parameter("weight").shape[0] - 1

    def propose(self, ids: Tensor, count: int, sampler: Sampler) -> Draft:
        """``count`` tokens, greedy or sampled as the target would."""
        # The cache may hold rejected tokens, and misses the last draft token when all were accepted.
        self._lm.rewind_to(ids.shape[1] - 1)
        drawn, probs = ids, []
        # The target may have said a token of its padding that is not there in ours; any known token will do.
        new = ids[:, self._lm.length :].clamp(max=self._last_id)
        for _ in range(count):
            logits = sampler.process(drawn, self._fit(self._lm.read(new, keep=1)))[:, -1]
            if sampler.greedy:
                token = logits.argmax(-1)
            else:
                probs.append(logits.softmax(-1))
                token = sampler.draw(probs[-1])
            new = token[:, None]
            drawn = torch.cat((drawn, new), dim=1)
        self._lm.check_rewinds()
        return Draft(drawn[:, ids.shape[1] :], torch.stack(probs, dim=1) if probs else None)

    def _fit(self, logits: Tensor) -> Tensor:
        """Cut or pad to the target's vocabulary size: one family pads its embeddings to different sizes."""
        missing = self._vocab_size - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits


class PromptLookup:
    """Proposes what followed the latest earlier occurrence of the last tokens (n-grams, longest first).

    Source: prompt lookup decoding, as in transformers' ``prompt_lookup_num_tokens``. Draws nothing, so above
    temperature 0 its proposals count as certain: their draft probability is 1.
    """

    def __init__(self, longest: int = 3) -> None:
        self._longest = longest

    def propose(self, ids: Tensor, count: int, sampler: Sampler) -> Draft:
        """At most ``count`` tokens; none where nothing repeats."""
        row = ids[0]
        found = row[:0]
        for size in range(min(self._longest, len(row) - 1), 0, -1):
            windows = row.unfold(0, size, 1)[:-1]
            hits = (windows == row[-size:]).all(-1).nonzero()
            if len(hits):
                start = int(hits[-1]) + size
                found = row[start : start + count]
                break
        return Draft(found[None])
