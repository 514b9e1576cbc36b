"""The interface of drafters: a row's tokens, requests, drafts and the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.decoding.sampling import Sampler


class TokenBuffer:
    """Token ids on the host, and as a tensor on request. A drafter may read but not change them.

    A compiled round needs only the last few ids, which it sends to the device with its other inputs; each small tensor
    operation would cost it as much as some thousand weights of a model.

    Args:
        ids: the first ids [T], on the device of the tensor.

    Attributes:
        host: all ids.
    """

    __slots__ = ("_ids", "host")

    def __init__(self, ids: Tensor) -> None:
        self._ids = ids
        self.host: list[int] = ids.tolist()

    def __len__(self) -> int:
        return len(self.host)

    @property
    def device(self) -> torch.device:
        """The device of the tensor."""
        return self._ids.device

    def extend(self, ids: Sequence[int]) -> None:
        """Append ``ids``."""
        self.host.extend(ids)

    @property
    def ids(self) -> Tensor:
        """All ids as a tensor [T]."""
        known = self._ids.shape[0]
        if known < len(self.host):
            new = torch.tensor(self.host[known:], device=self._ids.device)
            self._ids = torch.cat((self._ids, new))
        return self._ids


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """A request for a draft of one row of a batch.

    Attributes:
        row: the row's number, which it keeps while others leave the batch.
        tokens: all of the row's tokens so far. They grow with the row: copy what you keep, and change nothing.
        count: the maximum number of draft tokens.
        sampler: how draft tokens are chosen.
        stop_below: stop after a token to which the draft gives less than this probability.
        distribution: whether a greedy draft must return its distributions too.
        norm: which hidden states of the draft model, at the draft tokens, must be returned; None if none are needed.
        accepted: the number of accepted tokens of the row's last draft; None before the first draft.
        hidden: the target's hidden states [n, H] that the drafter needs (see `Drafter`), of the n tokens before the
            last one that the target has read since the last request and that stayed: at first the prompt without its
            last token, then that token and the accepted draft. If the target reads all tokens again, as LongRoPE does
            once (`RopeBorder`), they replace all earlier ones.
    """

    row: int
    tokens: TokenBuffer
    count: int
    sampler: Sampler
    stop_below: float = 0.0
    distribution: bool = False
    norm: Norm | None = None
    accepted: int | None = None
    hidden: Tensor | None = None

    @property
    def ids(self) -> Tensor:
        """All of the row's tokens so far [T], on the target's device."""
        return self.tokens.ids

    @property
    def plain(self) -> bool:
        """Whether only greedy tokens are requested."""
        return self.sampler.plain and not (self.stop_below or self.distribution or self.norm)


@dataclass(frozen=True, slots=True)
class DraftBuffer:
    """The location of a draft in the output of a compiled draft model for all rows.

    ``batch`` [B, 2 + M], the input of a compiled target, has each row's last position, last token and draft; this draft
    is its row ``row``, and continues ``tokens`` when they were ``size``.
    """

    batch: Tensor
    row: int
    tokens: TokenBuffer
    size: int

    def is_of(self, batch: Tensor, row: int, tokens: TokenBuffer) -> bool:
        """Whether the draft is this row of ``batch`` and continues ``tokens`` as they are now."""
        return self.batch is batch and self.row == row and self.tokens is tokens and self.size == len(tokens)


@dataclass(frozen=True, slots=True)
class Draft:
    """Proposed tokens with their probabilities and hidden states.

    Attributes:
        ids: the tokens [M], on the target's device.
        probs: the draft's distributions [M, V]. At temperature 0 the softmax of its logits, if requested and available;
            otherwise those the tokens were sampled from, None if they were not sampled.
        hidden: the draft model's last hidden states at the tokens [M, Hd], if requested and available.
        buffer: set by `Draft.from_buffer`; not passed on to drafts made from this one.
    """

    ids: Tensor
    probs: Tensor | None = None
    hidden: Tensor | None = None
    buffer: DraftBuffer | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def from_buffer(cls, buffer: DraftBuffer, count: int) -> Draft:
        """Return the draft of the first ``count`` tokens at ``buffer``."""
        ids, device = buffer.batch[buffer.row, 2 : 2 + count], buffer.tokens.device
        draft = cls(ids if ids.device == device else ids.to(device))
        object.__setattr__(draft, "buffer", buffer)
        return draft


@runtime_checkable
class Drafter(Protocol):
    """Anything that proposes tokens.

    A drafter that reads the target's hidden states has an attribute ``needs``, their `HiddenSource`, and finds them in
    each request (`DraftRequest.hidden`), with the number of accepted tokens of its last draft.
    """

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Return a draft for each of ``requests``, of at most ``count`` tokens; finished rows send no request."""
        ...


def needs_of(drafter: object) -> HiddenSource | None:
    """Return which of the target's hidden states a drafter reads; None if it reads no hidden states."""
    return getattr(drafter, "needs", None)
