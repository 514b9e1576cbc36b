"""The timing of a round's phases, measured without stalling the device."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Literal

import torch

from judge_decoding.core.rounds import Seconds

RoundPart = Literal["draft", "verify", "rule", "overhead"]


class Stopwatch:
    """Adds up the time between laps.

    On a CUDA device, work continues after a call has returned, so laps are device events, which are read after the
    round's own synchronisation.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[RoundPart | None, float | torch.cuda.Event]] = []

    def start(self) -> None:
        """Begin a round."""
        self._marks = [(None, self._now())]

    def lap(self, phase: RoundPart) -> None:
        """Count the time since the last lap for ``phase``."""
        self._marks.append((phase, self._now()))

    def seconds(self) -> Seconds:
        """Return the time spent in the round so far."""
        spent: dict[str, float] = {}
        for (_, before), (phase, after) in pairwise(self._marks):
            if isinstance(before, float) and isinstance(after, float):
                passed = after - before
            else:
                assert isinstance(before, torch.cuda.Event) and isinstance(after, torch.cuda.Event)  # noqa: PT018
                after.synchronize()
                passed = before.elapsed_time(after) / 1000
            assert phase is not None
            spent[phase] = spent.get(phase, 0.0) + passed
        return Seconds(**spent)

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
