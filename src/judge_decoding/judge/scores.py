"""A head's scores for a few stored prompts: they show whether a target gives the states that the head was trained on.

Weights that are quantised cannot be compared with others number by number, and an engine may not give access to its
layers. Scores can be compared wherever the head works.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.judge.probe import spread_ids
from judge_decoding.models.teacher_forcing import hidden_states

PROMPTS = 16
LENGTH = 12


def scores_of(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], source: HiddenSource, log_odds: Callable[[Tensor], Tensor]
) -> list[float]:
    """Return the ``log_odds`` of the state [H] of ``model`` at the last token of each of ``prompts``."""
    states = hidden_states(model, prompts, source.norm, source.layer)
    return [float(log_odds(own[-1])) for own in states]


def prompt_ids(rows: int) -> list[list[int]]:
    """Return the prompts for a vocabulary of ``rows``; see `spread_ids`."""
    ids = spread_ids(rows, PROMPTS * LENGTH)
    return [ids[begin : begin + LENGTH] for begin in range(0, len(ids), LENGTH)]
