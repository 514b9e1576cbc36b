"""Training data of a draft model, the target's answers in pieces whose logits fit into memory, and the loss on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from judge_decoding.data.sets import split_position
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.resume import Unfinished
from judge_decoding.models.draft_vocabulary import compact
from judge_decoding.models.forward import input_device, plain_forward, undisturbed
from judge_decoding.models.hidden import output_size
from judge_decoding.training.draft_options import DraftConfig, Loss

BATCH_TOKENS = 2048
"""Tokens of a forward pass, padding included."""
LOGITS = 2**26
"""Logits of a forward pass: a quarter of a gigabyte in float32, whatever the size of the vocabulary."""


class TargetAnswers(Unfinished[str, tuple[int, ...]]):
    """The target's answers as token ids, by prompt. They stay in the file, so no answer is generated twice."""

    row = TypeAdapter(tuple[str, tuple[int, ...]])
    suffix = ""


def divide_prompts(prompts: Sequence[str], config: DraftConfig) -> tuple[list[str], list[str]]:
    """Return the prompts to train on, without repeats, and the held-out ones; their texts and the seed decide.

    Raises:
        JudgeDecodingError: there are too few prompts.
    """
    known = list(dict.fromkeys(prompts))
    if len(known) < config.fewest_prompts:
        raise JudgeDecodingError(
            f"There are {len(known)} different prompts, and a draft needs at least {config.fewest_prompts} (a good "
            "one needs several hundred); give more."
        )
    ranked = sorted(known, key=lambda prompt: split_position(prompt, f"draft {config.seed}"))
    held_out = set(ranked[: max(round(config.held_out * len(known)), 1)])
    return [prompt for prompt in known if prompt not in held_out], [prompt for prompt in known if prompt in held_out]


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """A part of an answer that is read in one forward pass.

    Attributes:
        answer: index of the answer.
        ids: prompt and answer, up to the end of the part.
        begin: position of the first token of the part; tokens from there on count.
    """

    answer: int
    ids: tuple[int, ...]
    begin: int

    @property
    def count(self) -> int:
        """The number of tokens that count."""
        return len(self.ids) - self.begin


def answer_parts(answer: int, prompt: Sequence[int], answer_ids: Sequence[int], vocab_size: int) -> list[AnswerPart]:
    """Split an answer into parts that fit one forward pass; earlier parts become the prompt of later ones."""
    most, whole = most_rows(vocab_size), (*prompt, *answer_ids)
    begins = range(len(prompt), len(whole), most)
    return [AnswerPart(answer, whole[: begin + most], begin) for begin in begins]


def most_rows(vocab_size: int) -> int:
    """The number of tokens for which a forward pass may compute logits."""
    return max(LOGITS // vocab_size, 16)


def forwards(pieces: Sequence[AnswerPart], vocab_size: int) -> Iterator[list[AnswerPart]]:
    """Group pieces into forward passes, short pieces first, so that the parts of an answer come in order."""
    some: list[AnswerPart] = []
    for piece in sorted(pieces, key=lambda one: len(one.ids)):
        rows = [*some, piece]
        logits = len(piece.ids) - min(one.begin for one in rows)
        if some and (len(rows) * len(piece.ids) > BATCH_TOKENS or len(rows) * logits > most_rows(vocab_size)):
            yield some
            rows = [piece]
        some = rows
    if some:
        yield some


def read(model: PreTrainedModel, pieces: Sequence[AnswerPart]) -> Tensor:
    """Return a model's logits [n, V] at the tokens that count, piece after piece, in float32."""
    first = min(piece.begin for piece in pieces) - 1
    ids = pad_sequence([torch.tensor(piece.ids[:-1]) for piece in pieces], batch_first=True)
    logits = plain_forward(model, ids.to(input_device(model)), ids.shape[1] - first)
    parts = [row[piece.begin - 1 - first :][: piece.count] for row, piece in zip(logits, pieces, strict=True)]
    return torch.cat(parts).float()


def expected(pieces: Sequence[AnswerPart]) -> Tensor:
    """Return the tokens that count [n], in the order of `read`."""
    return torch.tensor([token for piece in pieces for token in piece.ids[piece.begin :]])


class DraftLoss:
    """The loss of a draft at each token of the target's answers, in nats.

    A draft with a reduced output head is compared with the target's distribution over the tokens that the draft can
    propose. With cross-entropy, other tokens have no loss. ``size`` is the number of logits that the target gives.
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
