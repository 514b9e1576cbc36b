"""Where proposals come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.decoding.sampling import Sampler
from judge_decoding.decoding.tokens import Tokens
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.abilities import can_batch, check_rewinds
from judge_decoding.models.cached_lm import CachedLM
from judge_decoding.models.context import context_length, rope_border
from judge_decoding.models.hidden import HiddenStateHook

if TYPE_CHECKING:
    from judge_decoding.decoding.static.lm import StaticLM


@dataclass(frozen=True, slots=True)
class Ask:
    """What one row of a batch wants drafted.

    Attributes:
        row: which row it is; a row keeps its number while others leave the batch.
        tokens: all of its tokens so far. They grow with the row: copy what you keep, and change nothing.
        count: how many draft tokens it wants at most.
        sampler: how it chooses them.
        stop_below: stop after a token to which the draft gives less than this probability.
        distribution: a greedy draft is to tell its distributions too.
        norm: the draft's hidden states at the draft tokens are wanted, taken there.
    """

    row: int
    tokens: Tokens
    count: int
    sampler: Sampler
    stop_below: float = 0.0
    distribution: bool = False
    norm: Norm | None = None

    @property
    def ids(self) -> Tensor:
        """All of the row's tokens so far [T], on the target's device."""
        return self.tokens.ids

    @property
    def plain(self) -> bool:
        """Greedy tokens are wanted, and nothing else."""
        return self.sampler.plain and not (self.stop_below or self.distribution or self.norm)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a draft lies in what a compiled draft model has left for all rows.

    Attributes:
        batch: the position of each row's last token, that token and its draft [B, 2 + M]: what a compiled target reads.
        row: which of them it is.
        tokens: what it goes on from, ``size`` tokens then.
        size: how many they were.
    """

    batch: Tensor
    row: int
    tokens: Tokens
    size: int

    def is_of(self, batch: Tensor, row: int, tokens: Tokens) -> bool:
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
    origin: Origin | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, origin: Origin, count: int) -> Draft:
        """The ``count`` tokens that lie there."""
        ids, device = origin.batch[origin.row, 2 : 2 + count], origin.tokens.device
        draft = cls(ids if ids.device == device else ids.to(device))
        object.__setattr__(draft, "origin", origin)
        return draft


@runtime_checkable
class Drafter(Protocol):
    """Anything that proposes tokens."""

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """A draft for each of ``asks``, of ``count`` tokens or fewer.

        A call may follow any other: nothing tells the drafter what was accepted but the ids themselves.
        """
        ...


class DraftFunction:
    """Makes a drafter of any function of the ids so far and the number of tokens wanted.

    What it proposes counts as certain (its draft probability is 1).

    Raises:
        JudgeDecodingError: when drafting, if the function gives something that is no sequence of token ids.
    """

    def __init__(self, function: Callable[[list[int], int], Sequence[int]]) -> None:
        self._function = function

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """What the function says of each row."""
        return [Draft(ask.ids.new_tensor(self._call(ask))) for ask in asks]

    def _call(self, ask: Ask) -> list[int]:
        given = self._function(list(ask.tokens.host), ask.count)
        try:
            ids = [int(i) for i in given][: ask.count]
        except (TypeError, ValueError) as error:
            raise JudgeDecodingError(
                f"The draft function gave {type(given).__name__}; it must give a sequence of token ids."
            ) from error
        return ids


class PromptLookup:
    """Proposes what followed the latest earlier occurrence of the last tokens (n-grams, longest first).

    Source: prompt lookup decoding, as in transformers' ``prompt_lookup_num_tokens``. Draws nothing, so above
    temperature 0 its proposals count as certain: their draft probability is 1.
    """

    def __init__(self, longest: int = 3) -> None:
        self._longest = longest

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """At most ``count`` tokens a row; none where nothing repeats."""
        return [Draft(self._look_up(ask.ids, ask.count)) for ask in asks]

    def _look_up(self, ids: Tensor, count: int) -> Tensor:
        for size in range(min(self._longest, len(ids) - 1), 0, -1):
            windows = ids.unfold(0, size, 1)[:-1]
            hits = (windows == ids[-size:]).all(-1).nonzero()
            if len(hits):
                start = int(hits[-1]) + size
                return ids[start : start + count]
        return ids[:0]


class DraftModel:
    """A small causal LM with the target's vocabulary; it drafts for one decoding at a time.

    Where its context is full it proposes nothing.

    Args:
        model: the draft.
        vocab_size: that of the target's logits.

    Raises:
        JudgeDecodingError: tokens cannot be taken back from its KV cache.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int) -> None:
        check_rewinds(model, "draft")
        self._model = model
        self._border = rope_border(model)
        self._lm: CachedLM | StaticLM | None = None
        self._rows: tuple[int, ...] = ()
        self._vocab_size = vocab_size
        self._last_id = model.get_input_embeddings().get_parameter("weight").shape[0] - 1
        self._can_batch = can_batch(model) and self._border is None
        self._single: dict[int, DraftModel] = {}
        self._context = context_length(model) or 2**31

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        """``count`` tokens a row, greedy or sampled as the target would; fewer where the context ends."""
        if all(len(ask.tokens) + ask.count <= self._context for ask in asks):
            return self._propose(asks)
        fitting = {
            ask.row: replace(ask, count=min(ask.count, self._context - len(ask.tokens)))
            for ask in asks
            if len(ask.tokens) < self._context
        }
        drafts = dict(zip(fitting, self._propose(list(fitting.values())) if fitting else [], strict=True))
        return [drafts.get(ask.row) or Draft(ask.ids[:0]) for ask in asks]

    def _propose(self, asks: Sequence[Ask]) -> list[Draft]:
        if not self._can_batch and (len(asks) > 1 or self._single):  # then each row has a cache of its own
            another = partial(type(self), self._model, self._vocab_size)
            self._single = {ask.row: self._single.get(ask.row) or another() for ask in asks}
            return [self._single[ask.row]._propose([ask])[0] for ask in asks]
        rows = [_Row(ask, self._vocab_size) for ask in asks]
        unchanged = self._unchanged(asks)
        lm = self._narrowed(tuple(ask.row for ask in asks))
        # The cache may hold rejected tokens, and misses the last draft token when all were accepted.
        lm.rewind_to(unchanged)
        if self._border is not None:
            lm.prepare([len(ask.tokens) for ask in asks])
        new = [self._known(ask.ids[length:]) for ask, length in zip(asks, lm.lengths, strict=True)]
        if not max(lm.lengths) and max(map(len, new)) > 1:  # a prompt's logits would be V numbers a token
            lm.read([ids[:-1] for ids in new], [0] * len(rows))
            new = [ids[-1:] for ids in new]
        norm = next((ask.norm for ask in asks if ask.norm), None)
        with HiddenStateHook(self._model, HiddenSource(-1, norm)) if norm else nullcontext() as tap:
            while any(row.open for row in rows):
                logits = lm.read(new, [1] * len(rows))
                if tap:
                    _collect(rows, tap)
                # A row that has all it wants reads nothing while the others go on.
                new = [self._known(row.draw(own)) for row, own in zip(rows, logits, strict=True)]
            if tap:  # the state at the last token is there once it has been read
                lm.read(new, [0] * len(rows))
                _collect(rows, tap)
        return [row.draft() for row in rows]

    def _unchanged(self, asks: Sequence[Ask]) -> list[int]:
        """How many tokens of each row may stay in the cache; the last one is read again, for its logits."""
        return [len(ask.tokens) - 1 for ask in asks]

    def _known(self, ids: Tensor) -> Tensor:
        return ids.clamp(max=self._last_id).to(self._model.device)

    def _narrowed(self, rows: tuple[int, ...]) -> CachedLM | StaticLM:
        """The cache of these rows: that of the last call without the rows that have left, or a new one."""
        if self._lm is not None and rows == self._rows:
            return self._lm
        places = [self._rows.index(row) for row in rows if row in self._rows]
        if self._lm is None or len(places) < len(rows) or places != sorted(places):
            self._lm = self._new_lm(len(rows))
        else:
            self._lm.select(places)
        self._rows = rows
        return self._lm

    def _new_lm(self, rows: int) -> CachedLM | StaticLM:
        return CachedLM(self._model, rows)


class _Row:
    """The draft of one row as it grows."""

    def __init__(self, ask: Ask, vocab_size: int) -> None:
        self._ask = ask
        self._vocab_size = vocab_size
        self._ids = ask.ids
        self._probs: list[Tensor] = []
        self._states: list[Tensor] = []
        self.open = ask.count > 0

    def draw(self, logits: Tensor) -> Tensor:
        """The next token [1] by the draft's ``logits`` [1, V'], or none if the draft is finished."""
        ask, sampler = self._ask, self._ask.sampler
        if not self.open:
            return self._ids[:0]
        logits = sampler.process(self._ids[None], self._fit(logits.to(self._ids.device))[None])[0]
        if not sampler.greedy or ask.distribution or ask.stop_below:
            self._probs.append(logits.softmax(-1))
        token = logits.argmax(-1) if sampler.greedy else sampler.draw(self._probs[-1])
        self._ids = torch.cat((self._ids, token))
        unsure = ask.stop_below and bool(self._probs[-1][0, token[0]] < ask.stop_below)
        self.open = self.drawn < ask.count and not unsure
        return token

    @property
    def drawn(self) -> int:
        """How many tokens there are."""
        return len(self._ids) - len(self._ask.ids)

    def see(self, state: Tensor) -> None:
        """Take the hidden state [Hd] at the last token drawn, once."""
        if len(self._states) < self.drawn:
            self._states.append(state.to(self._ids.device))

    def draft(self) -> Draft:
        """All of it."""
        probs = torch.cat(self._probs) if self._probs else None
        greedy = self._ask.sampler.greedy
        return Draft(
            self._ids[len(self._ask.ids) :],
            probs=None if greedy else probs,
            distribution=probs if greedy else None,
            hidden=torch.stack(self._states) if self._states else None,
        )

    def _fit(self, logits: Tensor) -> Tensor:
        """Cut or pad to the target's vocabulary size: one family pads its embeddings to different sizes."""
        missing = self._vocab_size - logits.shape[-1]
        return torch.nn.functional.pad(logits, (0, missing), value=-torch.inf) if missing else logits


def _collect(rows: Sequence[_Row], tap: HiddenStateHook) -> None:
    """Hand each row the hidden state at the token it has just read: rows read one token each, or none."""
    for row, states in zip(rows, tap.states, strict=True):
        row.see(states[0])
