"""Where in a model hidden states are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from judge_decoding.errors import JudgeDecodingError

Norm = Literal["before", "after"]
"""Whether a hidden state is read before or after the model's final norm."""


@dataclass(frozen=True, slots=True, order=True)
class HiddenSource:
    """Which hidden state of a token: after which layer, and before or after the final norm.

    Attributes:
        layer: the layer, counted from the end; -1 is the last.
        norm: "before" or "after" the final norm; "after" is valid for the last layer only.
    """

    layer: int = -1
    norm: Norm = "after"

    def __post_init__(self) -> None:
        if self.layer > -1:
            raise JudgeDecodingError(f"layer is {self.layer}; it must be -1, the last, or below.")
        if self.layer < -1 and self.norm != "before":
            raise JudgeDecodingError(
                f"norm is {self.norm} at layer {self.layer}; the final norm follows the last layer only, so it must be "
                "before."
            )

    def __str__(self) -> str:
        return f"last layer, {self.norm} the norm" if self.layer == -1 else f"layer {self.layer}"


LAST = HiddenSource()
"""The last hidden state, which the language-model head reads."""
