"""Selects the back end that runs a decoder's models: eager (as they are) or static (compiled ahead of time)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from transformers import PreTrainedModel

from judge_decoding.decoding.backends.base import TargetBackend
from judge_decoding.decoding.backends.eager import EagerTarget
from judge_decoding.decoding.choices import AnyDraft, as_drafter
from judge_decoding.decoding.drafters.base import Drafter, needs_of
from judge_decoding.errors import CannotCompileError, JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.models.hidden import output_size

if TYPE_CHECKING:
    from judge_decoding.decoding.backends.static.compiling import CompileProgress
    from judge_decoding.decoding.backends.static.draft import CompiledDraft

logger = logging.getLogger(__name__)

Backend = Literal["eager", "static"]
"""eager: any causal LM of transformers, as it is. static: compiled once ahead of time, with a preallocated KV cache."""

T = TypeVar("T")


class Engine:
    """A target and a draft in a back end. A model that cannot be compiled runs eager; ``fallbacks`` gives the reasons.

    The target must return the hidden states that ``judge`` reads. ``progress`` is called before something is compiled.
    """

    def __init__(
        self,
        target: PreTrainedModel,
        draft: AnyDraft | None,
        judge: JudgeHead | None,
        backend: Backend,
        progress: CompileProgress = lambda _: None,
    ) -> None:
        check_backend(backend)
        self.fallbacks: tuple[str, ...] = ()
        self.target: TargetBackend = EagerTarget(target)
        self.draft = draft
        self._compiled: CompiledDraft | None = None
        if backend == "static":
            # The static back end is imported only on demand.
            from judge_decoding.decoding.backends.static.draft import CompiledDraft  # noqa: PLC0415  (imported only on demand)
            from judge_decoding.decoding.backends.static.target import StaticTarget  # noqa: PLC0415  (imported only on demand)

            sources = {judge.config.source} if judge else set()
            if needs_of(draft) is None:
                self.target = self._or_eager(lambda: StaticTarget(target, sources, progress=progress)) or self.target
            else:
                self.fallbacks += ("the drafter reads the target's hidden states, which the compiled prompt lacks",)
            if isinstance(draft, PreTrainedModel):
                self._compiled = self._or_eager(lambda: CompiledDraft(draft, output_size(target), progress=progress))

    def alone(self) -> Engine:
        """Return an engine with the same target, compiled or not, and no draft."""
        engine = copy.copy(self)
        engine.draft = engine._compiled = None
        return engine

    def drafter(self) -> Drafter | None:
        """Return the drafter for one decoding."""
        return self._compiled.drafter() if self._compiled else as_drafter(self.draft, self.target.model)

    def _or_eager(self, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except CannotCompileError as error:
            self.fallbacks += (str(error),)
            logger.warning("Running eager: %s.", error)
            return None


def check_backend(backend: str) -> None:
    """Check that there is such a back end."""
    if backend not in get_args(Backend):
        raise JudgeDecodingError(f"The back end is {backend!r}; it must be {' or '.join(get_args(Backend))}.")
