"""A head's scores for a few stored prompts: they tell whether a target gives the states that the head was trained on.

Weights that are quantised cannot be compared with others number by number, and an engine may not give access to its
layers. Scores can be compared wherever the head works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.judge.config import StoredScores
from judge_decoding.models.forward import input_rows
from judge_decoding.models.teacher_forcing import hidden_states

PROMPTS = 16
LENGTH = 12


def store_scores(model: PreTrainedModel, source: HiddenSource, log_odds: Callable[[Tensor], Tensor]) -> StoredScores:
    """Score prompts with the states of ``model`` at ``source``, by ``log_odds`` of states [..., H]: [...]."""
    prompts = prompt_ids(input_rows(model))
    return StoredScores(prompts=prompts, scores=scores_of(model, prompts, source, log_odds))


def scores_of(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    source: HiddenSource,
    log_odds: Callable[[Tensor], Tensor],
) -> list[float]:
    """Return the log-odds at the last token of each of ``prompts``."""
    states = hidden_states(model, prompts, source.norm, source.layer)
    return [float(log_odds(own[-1])) for own in states]


def prompt_ids(rows: int) -> list[list[int]]:
    """Return prompts of ids from the lower half of a vocabulary of ``rows``, as the upper end may be padding.

    Golden-section steps keep them far apart and unordered.
    """
    half = max(rows // 2, 1)
    ids = [int(half * (number * 0.6180339887498949 % 1)) for number in range(1, PROMPTS * LENGTH + 1)]
    return [ids[begin : begin + LENGTH] for begin in range(0, len(ids), LENGTH)]
