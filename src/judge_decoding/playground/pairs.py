"""The models of the playground, by name, and their decoders in each back end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from threading import Lock

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.engines import Backend

WARM_UP = 4
"""Tokens that are decoded when the models are loaded, so that the first answer is as fast as the next."""


class ModelPair:
    """A target with its draft and, if there is one, its judge.

    Attributes:
        name: what it is called on the page.
        decoder: its decoder, in the back end it came with.
        target, draft, judge: names for files; "" if there is none, or it has no name.
    """

    def __init__(self, name: str, decoder: JudgeDecoder, *, target: str = "", draft: str = "", judge: str = "") -> None:
        self.name, self.decoder = name, decoder
        self.target, self.draft, self.judge = target, draft, judge
        self._made: dict[Backend, JudgeDecoder] = {decoder.backend: decoder}
        self._lock = Lock()

    def ready(self, backend: Backend, note: Callable[[str], None]) -> tuple[JudgeDecoder, JudgeDecoder]:
        """Return the decoder in a back end, and that of the target alone; ``note`` gets what is being compiled.

        `JudgeDecoder.fallbacks` lists what cannot be compiled.
        """
        with self._lock:
            new = backend not in self._made
            if new:
                other = copy.copy(self.decoder)
                other.backend = backend
                self._made[backend] = other
            decoder = self._made[backend]
            decoder.compile(note)
            if new:
                self._warm(decoder)
        return decoder, decoder.alone()

    def warm_up(self) -> None:
        """Decode a few tokens with and without a draft."""
        self._warm(self.decoder)

    @staticmethod
    def _warm(decoder: JudgeDecoder) -> None:
        for each in (decoder, decoder.alone()):
            each.generate("1 + 1 =", WARM_UP, temperature=0)
