"""Guards, which forbid rescues that the rule wants.

A guard looks at the tokens kept so far and at the draft, and permits some of the rescues that the rule wants. Where it
forbids a rescue, verification is standard. All guards are off by default; a request turns them on by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from judge_decoding.core.rounds import Cause, Round
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.rules.evidence import Evidence
from judge_decoding.spelling import construct, guess, read, spell


@dataclass(slots=True)
class History:
    """The history of a request: the prompt's ids, its new tokens, and why each was kept."""

    prompt_ids: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)

    def add(self, event: Round) -> None:
        """Count one more round."""
        self.token_ids.extend(event.token_ids)
        self.causes.extend(event.causes)


class Guard(ABC):
    """Permits or forbids rescues.

    Raises:
        JudgeDecodingError: a parameter is out of range.
    """

    name: ClassVar[str]
    """The guard's name in its spelling."""

    @abstractmethod
    def permit(self, rescued: Tensor, evidence: Evidence, history: History) -> Tensor:
        """Return which of the wanted rescues, bool [M], are permitted; ``history`` ends where the draft begins."""

    def bound(self, encode: Callable[[str], Sequence[int]]) -> Guard:
        """Return the guard for a tokenizer; ``encode`` returns a text's token ids without added special tokens."""
        return self

    def __repr__(self) -> str:
        return spell(self, self.name)


class StrictStart(Guard):
    """No rescue among the first ``tokens`` new tokens.

    The opening decides whether an unsafe request is refused; lossy verification weakens that (SecureSD, arXiv
    2610.08678, which keeps 1 to 8 tokens strict).
    """

    name = "strict_start"

    def __init__(self, tokens: int) -> None:
        _check(tokens >= 1, self, "tokens", tokens, "1 or more")
        self.tokens = tokens

    def permit(self, rescued: Tensor, evidence: Evidence, history: History) -> Tensor:
        """Permit rescues after the first tokens."""
        positions = torch.arange(len(rescued), device=rescued.device) + len(history.token_ids)
        return rescued & (positions >= self.tokens)


class Budget(Guard):
    """At most ``tokens`` rescued tokens in the whole answer (the cap of ASD, arXiv 2608.03447)."""

    name = "budget"

    def __init__(self, tokens: int) -> None:
        _check(tokens >= 0, self, "tokens", tokens, "0 or more")
        self.tokens = tokens

    def permit(self, rescued: Tensor, evidence: Evidence, history: History) -> Tensor:
        """Permit the first rescues, while the budget lasts."""
        left = self.tokens - history.causes.count(Cause.RESCUED)
        return rescued & (rescued.long().cumsum(0) <= left)


class Overshoot(Guard):
    """No rescue where the draft's probability of the token exceeds ``ratio`` times the target's.

    Lossy rules lose quality by accepting tokens where q is far above p (arXiv 2607.26627). A greedy draft without
    probabilities counts as certain (q = 1).
    """

    name = "overshoot"

    def __init__(self, ratio: float) -> None:
        _check(ratio >= 1, self, "ratio", ratio, "1 or more")
        self.ratio = ratio

    def permit(self, rescued: Tensor, evidence: Evidence, history: History) -> Tensor:
        """Permit tokens that are probable enough under the target."""
        target = evidence.token_probs[0]
        probs = evidence.draft_probs
        draft = torch.ones_like(target) if probs is None else evidence.of_tokens(probs)[0]
        return rescued & (draft <= self.ratio * target)


class Phase(Guard):
    """Rescues only ``where`` ("inside" or "outside") the span between two markers, such as a thinking phase.

    ``begin`` and ``end`` are the markers as token ids, or as text, which the decoder converts to ids. The phase may
    already be open at the end of the prompt, as with the chat templates of thinking models.

    Raises:
        JudgeDecodingError: a marker is empty, or ``where`` is neither of the two.
    """

    name = "phase"

    def __init__(self, begin: str | Sequence[int], end: str | Sequence[int], where: str = "inside") -> None:
        _check(where in ("inside", "outside"), self, "where", where, '"inside" or "outside"')
        if not begin or not end:
            raise JudgeDecodingError("The guard phase has an empty marker; give what begins and what ends the phase.")
        self.begin, self.end, self.where = begin, end, where

    def bound(self, encode: Callable[[str], Sequence[int]]) -> Phase:
        """Return the guard with its markers as token ids."""
        begin, end = (tuple(encode(m)) if isinstance(m, str) else tuple(m) for m in (self.begin, self.end))
        return Phase(begin, end, self.where)

    def permit(self, rescued: Tensor, evidence: Evidence, history: History) -> Tensor:
        """Permit rescues on the right side of the markers, which themselves count as outside."""
        before = [*history.prompt_ids, *history.token_ids]
        draft = evidence.draft_ids[0].tolist()
        inside = self._inside(before + draft)[len(before) :]
        allowed = torch.tensor(inside, dtype=torch.bool, device=rescued.device)
        return rescued & (allowed if self.where == "inside" else ~allowed)

    def _inside(self, ids: list[int]) -> list[bool]:
        flags: list[bool] = []
        open_ = False
        begin, end = list(self.begin), list(self.end)
        for i in range(len(ids)):
            closing = ids[max(i + 1 - len(end), 0) : i + 1] == end
            flags.append(open_ and not closing)
            opening = ids[max(i + 1 - len(begin), 0) : i + 1] == begin
            open_ = opening or (open_ and not closing)
        return flags


class LoopGuard(Guard):
    """Turns rescues off for the rest of the answer once an n-gram with a rescued token has occurred ``times`` times.

    A lossy rule can carry a draft's repetitions into the answer (arXiv 2607.08690), which the target alone would avoid.
    """

    name = "loop"

    def __init__(self, tokens: int = 8, times: int = 3) -> None:
        _check(tokens >= 1, self, "tokens", tokens, "1 or more")
        _check(times >= 2, self, "times", times, "2 or more")
        self.tokens, self.times = tokens, times

    def permit(self, rescued: Tensor, evidence: Evidence, history: History) -> Tensor:
        """Permit rescues up to the token that completes the last repetition."""
        draft, wanted = evidence.draft_ids[0].tolist(), rescued.tolist()
        ids = [*history.token_ids, *draft]
        flags = [*(cause is Cause.RESCUED for cause in history.causes), *wanted]
        seen: dict[tuple[int, ...], int] = {}
        first = len(history.token_ids)
        for end in range(self.tokens, len(ids) + 1):
            gram = tuple(ids[end - self.tokens : end])
            seen[gram] = seen.get(gram, 0) + 1
            if seen[gram] >= self.times and any(flags[end - self.tokens : end]):
                positions = torch.arange(len(rescued), device=rescued.device)
                return rescued & (positions < end - first)
        return rescued


def permitted(guards: Sequence[Guard], rescued: Tensor, evidence: Evidence, history: History) -> Tensor:
    """Return which of one request's wanted rescues [M] every guard permits."""
    for guard in guards:
        rescued = guard.permit(rescued, evidence, history)
    return rescued


GUARDS: dict[str, type[Guard]] = {guard.name: guard for guard in (StrictStart, Budget, Overshoot, Phase, LoopGuard)}


def parse_guard(spelling: str) -> Guard:
    """Parse a guard's spelling, such as ``strict_start(tokens=8)``.

    Raises:
        JudgeDecodingError: the spelling cannot be parsed, a guard or parameter is unknown, or a value is out of range.
    """
    calls = read(spelling, "guard", "strict_start(tokens=8)")
    if len(calls) != 1:
        raise JudgeDecodingError(f"The guard {spelling!r} names several guards; give each one separately.")
    ((name, tokens),) = calls
    if name not in GUARDS:
        raise JudgeDecodingError(
            f"There is no guard {name[:40]}{guess(name, GUARDS)}; the guards are {', '.join(GUARDS)}."
        )
    return construct(GUARDS[name], name, tokens, "guard")


def parse_guards(spellings: Iterable[str]) -> tuple[Guard, ...]:
    """Parse the guards of one request.

    Raises:
        JudgeDecodingError: a spelling is wrong, see `parse_guard`, or a guard is given twice.
    """
    guards = tuple(map(parse_guard, spellings))
    _check_once(guards)
    return guards


def check_guards(guards: Sequence[Guard], encode: Callable[[str], Sequence[int]]) -> tuple[Guard, ...]:
    """Return the guards of one request, bound to a tokenizer; see `Guard.bound`.

    Raises:
        JudgeDecodingError: a guard is given twice.
    """
    _check_once(guards)
    return tuple(guard.bound(encode) for guard in guards)


def _check_once(guards: Sequence[Guard]) -> None:
    names = [guard.name for guard in guards]
    for name in names:
        if names.count(name) > 1:
            raise JudgeDecodingError(
                f"The guard {name} is given twice, and the two may contradict each other; keep one."
            )


def _check(good: bool, guard: Guard, name: str, value: object, allowed: str) -> None:
    if not good:
        raise JudgeDecodingError(f"The guard {guard.name}'s {name} is {value}; it must be {allowed}.")
