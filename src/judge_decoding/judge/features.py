"""The target's hidden states over labelled answers: what a head is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.decoding.models import HiddenTap, Norm


@torch.inference_mode()
def hidden_states(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    norm: Norm,
    *,
    batch_size: int = 32,
    progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """The model's last hidden state at every token of ``sequences``: float32 on the CPU, [T_i, H] each.

    The sequences are read in batches of like length, right-padded; a causal model does not see the padding.
    ``progress`` is told how many sequences each batch held.
    """
    order = sorted((i for i in range(len(sequences)) if sequences[i]), key=lambda i: len(sequences[i]))
    states: list[Tensor] = [torch.empty(0)] * len(sequences)
    decoder = model.get_decoder()
    with HiddenTap(model, norm) as tap:
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            width = len(sequences[rows[-1]])
            ids = torch.zeros(len(rows), width, dtype=torch.long, device=model.device)
            for row, i in enumerate(rows):
                ids[row, : len(sequences[i])] = torch.tensor(sequences[i])
            decoder(input_ids=ids, use_cache=False)
            batch = tap.states.float().cpu()
            for row, i in enumerate(rows):
                states[i] = batch[row, : len(sequences[i])].clone()
            if progress is not None:
                progress(len(rows))
    return states
