"""From logits to tokens: temperature and the usual truncations, using transformers' own classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import (
    EpsilonLogitsWarper,
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from judge_decoding.bounds import check_bounds
from judge_decoding.errors import JudgeDecodingError

if TYPE_CHECKING:
    from judge_decoding.rules.truncation import Truncation


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens are chosen; temperature 0 is greedy.

    A value of None follows the model's generation configuration; without one the option is off.

    Attributes:
        temperature: divides the logits; the truncations below apply only above 0.
        top_p: nucleus sampling; 1 is off.
        top_k: sample from the k most probable tokens; 0 is off.
        min_p: minimum probability, relative to the best token's; 0 is off.
        repetition_penalty: values above 1 reduce repetition; 1 is off.
        seed: makes sampling reproducible.
        truncation: applied last: restricts the output to tokens that a verification rule would keep, whoever proposes
            them. It is the baseline of that rule; see `judge_decoding.evaluation.matched`.

    Raises:
        JudgeDecodingError: a value is out of range, or there is a truncation at temperature 0.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    truncation: Truncation | None = None

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.truncation is not None and not self.temperature:
            raise JudgeDecodingError(
                f"The truncation {self.truncation} has no effect at temperature 0, where nothing is sampled; give a "
                "temperature above 0."
            )


Processor = Callable[[Tensor, Tensor], Tensor]
"""Maps ids [1, T] and logits [1, K, V] to new logits, where position i follows all but the last ``K - 1 - i`` ids."""


class Sampler:
    """Processes logits and samples tokens, reproducibly for a given seed.

    Args:
        params: how tokens are chosen.
        device: the device of the logits.
        processor: replaces the logits processors of ``params``; only whether the temperature is 0 and the seed still
            apply. It is called several times for a position, for the draft and for the target, so its result may depend
            only on its arguments. See `along` for one of transformers' processors.
        constraint: the part of ``processor`` that forbids tokens (by a logit of minus infinity) for what they are,
            not because others are more probable. No rule may keep such a token, whoever proposed it.
    """

    def __init__(
        self,
        params: SamplingParams,
        device: torch.device,
        processor: Processor | None = None,
        constraint: Processor | None = None,
    ) -> None:
        self.greedy = params.temperature == 0
        self._generator = torch.Generator(device)
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)
        self._processor = _processor(params) if processor is None else processor
        self._constraint = constraint

    @property
    def is_bare(self) -> bool:
        """Whether logits are left unchanged."""
        return self._processor is None and self._constraint is None

    @property
    def plain(self) -> bool:
        """Whether tokens are the argmax of unprocessed logits."""
        return self.greedy and self.is_bare

    def process(self, ids: Tensor, logits: Tensor) -> Tensor:
        """Process ``logits`` [1, K, V], where position i follows all but the last ``K - 1 - i`` of ``ids`` [1, T]."""
        return logits if self._processor is None else self._processor(ids, logits)

    def allowed(self, ids: Tensor, logits: Tensor, draft_ids: Tensor) -> Tensor | None:
        """Return which of ``draft_ids`` [M], the last of ``ids`` [1, T], are not forbidden: bool [M]; None is all.

        ``logits`` [1, M + 1, V] are unprocessed.
        """
        if self._constraint is None or not len(draft_ids):
            return None
        constrained = self._constraint(ids, logits)[0, :-1]
        return constrained.gather(1, draft_ids[:, None])[:, 0] > torch.finfo(constrained.dtype).min

    def draw(self, probabilities: Tensor) -> Tensor:
        """Sample a token from each distribution [B, V]: [B]. The exponential race needs no synchronisation."""
        race = torch.empty_like(probabilities).exponential_(generator=self._generator)
        return (probabilities / race).argmax(-1)

    def uniform(self, count: int) -> Tensor:
        """Return ``count`` uniform numbers [1, count], or zeros when greedy."""
        device = self._generator.device
        if self.greedy:
            return torch.zeros(1, count, device=device)
        return torch.rand(1, count, generator=self._generator, device=device)


class TruncationWarper(LogitsProcessor):
    """Forbids all tokens outside a truncation by a logit of minus infinity."""

    def __init__(self, truncation: Truncation) -> None:
        self._truncation = truncation

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the masked logits [1, V]."""
        return scores.masked_fill(~self._truncation.mask(scores), -torch.inf)


OF_LOGITS_ALONE = (
    EpsilonLogitsWarper, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper,
    TypicalLogitsWarper, TruncationWarper,
)  # fmt: skip
"""Logits processors that process each row by its logits alone, and have no tensors of their own."""

RowProcessor = Callable[[Tensor, Tensor], Tensor]
"""A logits processor as transformers calls it: maps ids [B, T] and logits [B, V] of the next token to new logits."""


def along(processors: Sequence[RowProcessor]) -> Processor:
    """Return the processor of all positions of a draft: these logits processors, one after the other.

    Each is called with the ids before each position; those of `OF_LOGITS_ALONE` once, with all positions as rows. This
    is not transformers' `LogitsProcessorList`, which inspects a processor's signature at every call.
    """

    def process(ids: Tensor, logits: Tensor) -> Tensor:
        rows = logits[0]
        before = ids.shape[1] + 1 - len(rows)
        for processor in processors:
            if type(processor) in OF_LOGITS_ALONE:
                rows = processor(ids, rows)
            else:
                rows = torch.cat([processor(ids[:, : before + i], rows[i : i + 1]) for i in range(len(rows))])
        return rows[None]

    return process


def _processor(params: SamplingParams) -> Processor | None:
    """Return the classes that ``generate`` of transformers would use, in its order; None if none applies."""
    processors: list[Any] = []  # transformers annotates tensors by the legacy LongTensor and FloatTensor
    if params.repetition_penalty not in (None, 1):
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature not in (0, 1):
        processors.append(TemperatureLogitsWarper(params.temperature))
    if params.temperature and params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.temperature and params.top_p is not None and params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.temperature and params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    if params.truncation is not None:
        processors.append(TruncationWarper(params.truncation))
    return along(processors) if processors else None
