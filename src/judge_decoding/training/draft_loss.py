"""The distance between a draft model and its target along the target's answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.models.draft_vocabulary import compact
from judge_decoding.models.forward import undisturbed
from judge_decoding.models.hidden import output_size
from judge_decoding.training.draft_data import AnswerPart, expected, forwards, read
from judge_decoding.training.draft_options import Loss


class DraftLoss:
    """The loss of a draft at each token of the target's answers, in nats.

    A draft with a reduced output head is compared with the target's distribution over the tokens that the draft can
    propose. With cross-entropy, other tokens have no loss.

    Args:
        target: the target model.
        draft: the draft model.
        kind: the loss to compute.

    Attributes:
        size: the number of logits that the target gives for a token.
    """

    def __init__(self, target: PreTrainedModel, draft: PreTrainedModel, kind: Loss) -> None:
        self._target, self._draft, self._kind = target, draft, kind
        self.size = output_size(target)

    def gradients(self, pieces: Sequence[AnswerPart]) -> tuple[float, int]:
        """Add the gradients of the mean loss of ``pieces``; return the sum of the losses and the number of tokens."""
        total, batches = 0.0, list(forwards(pieces, self.size))
        counts = [self._counted(batch) for batch in batches]
        for batch, count in zip(batches, counts, strict=True):
            if count:
                loss = self.losses(batch)[0].sum()
                (loss / sum(counts)).backward()
                total += float(loss.detach())
        return total, sum(counts)

    def _counted(self, batch: Sequence[AnswerPart]) -> int:
        """The number of tokens of ``batch`` with a loss; with cross-entropy, only tokens that the draft can propose."""
        with compact(self._draft) as kept:
            if kept is None or self._kind == "kl":
                return sum(piece.count for piece in batch)
            return int(torch.isin(expected(batch), kept.cpu()).sum())

    def losses(self, batch: Sequence[AnswerPart], *, measuring: bool = False) -> tuple[Tensor, Tensor | None]:
        """The losses of the tokens that have one; if measuring, also whether draft and target agree [n]."""
        with compact(self._draft) as kept:
            draft_logits = read(self._draft, batch)
        target_logits, wants_target = None, measuring or self._kind == "kl"
        if wants_target:
            with undisturbed(self._target):
                target_logits = read(self._target, batch)
            target_logits = target_logits.to(draft_logits.device)
        agrees = None
        if measuring and target_logits is not None:
            best = draft_logits.argmax(-1)
            agrees = (best if kept is None else kept[best]) == target_logits.argmax(-1)
        log_probs = draft_logits.log_softmax(-1)
        if self._kind == "kl":
            assert target_logits is not None
            # Cloned, because tensors created in inference mode cannot be used in autograd.
            probs = (target_logits.clone() if kept is None else target_logits[:, kept].clone())[
                :, : draft_logits.shape[-1]
            ].softmax(-1)
            log_probs = log_probs[:, : probs.shape[-1]]
            return (torch.special.xlogy(probs, probs) - probs * log_probs).sum(-1), agrees
        ids = expected(batch).to(draft_logits.device)
        if kept is not None:
            indices = torch.searchsorted(kept, ids).clamp(max=len(kept) - 1)
            known = kept[indices] == ids
            log_probs, ids = log_probs[known], indices[known]
        return nn.functional.nll_loss(log_probs, ids, reduction="none"), agrees
