"""What a drafter is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.decoding.sampling import Sampler
from judge_decoding.decoding.tokens import TokenBuffer


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """What one row of a batch wants drafted.

    Attributes:
        row: which row it is; a row keeps its number while others leave the batch.
        tokens: all of its tokens so far. They grow with the row: copy what you keep, and change nothing.
        count: how many draft tokens it wants at most.
        sampler: how it chooses them.
        stop_below: stop after a token to which the draft gives less than this probability.
        distribution: a greedy draft is to tell its distributions too.
        norm: the draft's hidden states at the draft tokens are wanted, taken there.
        accepted: how many tokens of the row's last draft stayed; None before the first one.
        hidden: the target's hidden states [n, H] that the drafter needs (see `Drafter`), of the n tokens before the
            last one: those that the target has read since the last request and that stayed. At first that is the
            prompt without its last token, then that token and the accepted draft. Where the target reads all tokens
            again, as LongRoPE does once (`RopeBorder`), they take the place of those that were there.
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
        """Greedy tokens are wanted, and nothing else."""
        return self.sampler.plain and not (self.stop_below or self.distribution or self.norm)


@dataclass(frozen=True, slots=True)
class DraftBuffer:
    """Where a draft lies in what a compiled draft model has left for all rows.

    Attributes:
        batch: the position of each row's last token, that token and its draft [B, 2 + M]: what a compiled target reads.
        row: which of them it is.
        tokens: what it goes on from, ``size`` tokens then.
        size: how many they were.
    """

    batch: Tensor
    row: int
    tokens: TokenBuffer
    size: int

    def is_of(self, batch: Tensor, row: int, tokens: TokenBuffer) -> bool:
        """Whether it is this row of ``batch`` and goes on from ``tokens`` as they are now."""
        return self.batch is batch and self.row == row and self.tokens is tokens and self.size == len(tokens)


@dataclass(frozen=True, slots=True)
class Draft:
    """Proposed tokens and what is known about them.

    Attributes:
        ids: the tokens [M], on the target's device.
        probs: the distributions they were drawn from [M, V]; None if they were not drawn.
        distribution: of a greedy draft, its softmax [M, V] where asked for and there is one.
        hidden: the draft model's last hidden states at the tokens [M, Hd], where asked for and there are any.
        origin: set by `Draft.of`; a draft that is made from this one has none.
    """

    ids: Tensor
    probs: Tensor | None = None
    distribution: Tensor | None = None
    hidden: Tensor | None = None
    origin: DraftBuffer | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, origin: DraftBuffer, count: int) -> Draft:
        """The ``count`` tokens that lie there."""
        ids, device = origin.batch[origin.row, 2 : 2 + count], origin.tokens.device
        draft = cls(ids if ids.device == device else ids.to(device))
        object.__setattr__(draft, "origin", origin)
        return draft


@runtime_checkable
class Drafter(Protocol):
    """Anything that proposes tokens.

    A drafter that reads the target's hidden states has an attribute ``needs``, the `HiddenSource` of them, and finds
    them in each request (`DraftRequest.hidden`), with what was accepted of its last draft.
    """

    def propose(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """A draft for each of ``requests``, of ``count`` tokens or fewer; rows that have ended are not among them."""
        ...


def needs_of(drafter: object) -> HiddenSource | None:
    """Which of the target's hidden states a drafter reads; None if it reads none."""
    return getattr(drafter, "needs", None)
