"""The bounds of numeric options: one table by name, for command-line options and for Python parameters.

The bounds are wide. They only reject values that would fill the memory, run for ever, or overflow in a library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from judge_decoding.errors import JudgeDecodingError


@dataclass(frozen=True, slots=True)
class Bound:
    """The range from ``least``, excluded if ``open``, to ``most``; ``words`` describes it in messages, if given."""

    least: float
    most: float
    words: str = ""
    open: bool = False

    def allowed(self, value: float) -> str | None:
        """Describe the allowed values if ``value`` is not one of them; None if it is."""
        if not -math.inf < value < math.inf:
            return self.words or "a finite number"
        if value > self.most:
            return self.words or f"at most {self.most:,.0f}"
        if value < self.least or (self.open and value == self.least):
            return self.words or (f"above {self.least:,.0f}" if self.open else f"{self.least:,.0f} or more")
        return None


_ANY = Bound(-(10**18), 10**18)
_SHARE = Bound(0, 1, "between 0 and 1")
_POINTS = Bound(0, 100, "0 to 100")

BOUNDS: Mapping[str, Bound] = {
    # Work done at the same time, or held in memory.
    "batch_size": Bound(1, 2**16), "batch_tokens": Bound(1, 2**24), "concurrency": Bound(1, 1024),
    "threads": Bound(1, 1024), "retries": Bound(0, 100), "timeout": Bound(0, 86_400, open=True),
    # Amounts of output.
    "samples": Bound(1, 10_000), "votes": Bound(1, 1000), "requests": Bound(0, 10**7), "count": Bound(1, 100_000),
    "max_new_tokens": Bound(1, 10**9), "num_draft_tokens": Bound(1, 10_000), "suffix": Bound(1, 100_000),
    "draft_layers": Bound(1, 10_000), "repetitions": Bound(1, 10_000), "folds": Bound(2, 1000),
    "length_prompts": Bound(1, 10**6), "timed_prompts": Bound(1, 10**6),
    # Sampling.
    "seed": Bound(-(2**63), 2**64 - 1, "a whole number of at most 64 bits"),
    "temperature": Bound(0, 1e6), "top_p": Bound(0, 1, "above 0 and at most 1", open=True), "min_p": _SHARE,
    "no_repeat_ngram_size": Bound(0, 100_000), "encoder_no_repeat_ngram_size": Bound(0, 100_000),
    "top_k": Bound(0, 2**31), "repetition_penalty": Bound(0, 1e6, open=True),
    # Training and evaluation of a head.
    "points": _POINTS, "margin": _POINTS, "thresholds": _SHARE, "repeats": _SHARE,
    "exact_lengths": Bound(1, 10_000), "judge_lengths": Bound(1, 10_000),
    "wrong_weight": Bound(0, 1e6, open=True), "l2": Bound(0, 1e9),
    "layers": Bound(-10_000, -1, "-1, the last, or below"),
    "num_hidden_layers": Bound(0, 10_000),
    # Training of a draft.
    "num_layers": Bound(1, 10_000), "epochs": Bound(1, 10_000), "lora": Bound(1, 2**16),
    "learning_rate": Bound(0, 100, open=True), "held_out": Bound(0, 1, "between 0 and 1"), "vocab": Bound(1, 10**9),
}  # fmt: skip
"""Bounds by option, field or parameter name. A number with any other name must be finite, of at most 18 digits."""


def check_bound(name: str, value: object, shown: str = "") -> None:
    """Check a number, or every number in a list or tuple; skip other values, such as None or a string.

    ``name`` is one of `BOUNDS`; the error message says ``shown``, if given, instead.
    """
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, int | float) and not isinstance(one, bool):
            allowed = BOUNDS.get(name, _ANY).allowed(one)
            if allowed is not None:
                given = str(one) if len(str(one)) <= 20 else f"{str(one)[:20]}..."
                raise JudgeDecodingError(f"{shown or name} is {given}; it must be {allowed}.")


def check_bounds(thing: Any, names: Iterable[str] = ()) -> None:  # noqa: ANN401  (any data class)
    """Check all fields of a data class, or only those in ``names``."""
    for name in names or (field.name for field in fields(thing)):
        check_bound(name, getattr(thing, name))
