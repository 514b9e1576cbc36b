"""The decoding methods to benchmark, all greedy and from token ids to token ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import CompileConfig, GenerationConfig, PreTrainedModel

from judge_decoding.core.rounds import Round
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.lengths import DraftLength, Fixed
from judge_decoding.rules.base import VerificationRule

MethodFamily = Literal["generate", "assisted", "plain", "exact", "judge", "vllm"]
"""The kind of method: transformers without and with a draft; ours without a draft, exact, and with the judge."""


@dataclass(frozen=True, slots=True)
class ContenderLabel:
    """Identifies a row, for people and programs.

    Attributes:
        family: the kind of method.
        backend: back end of our own loop, "eager" or "static"; "static" also for assisted generation with a static
            cache; "" for others.
        num_draft_tokens: draft length M; 0 without a draft, or where a policy or a default chooses.
        note: how the draft length was chosen, such as "best" or "equal".
    """

    family: MethodFamily
    backend: str = ""
    num_draft_tokens: int = 0
    note: str = ""

    @property
    def name(self) -> str:
        """The title of the row, unique within a batch size."""
        length = f"M={self.num_draft_tokens}" if self.num_draft_tokens else ""
        return ", ".join(filter(None, (self.family, self.backend, length, self.note)))


@dataclass(frozen=True, slots=True)
class BatchAnswers:
    """The answers to a batch.

    Attributes:
        tokens: the new tokens of each prompt, up to and including the end token.
        seconds: time from prompt ids to new token ids.
        forwards: target forwards, not counting a separate forward over the prompts; None if not known.
        rounds: the rounds of each prompt, for our own loop.
    """

    tokens: tuple[tuple[int, ...], ...]
    seconds: float
    forwards: int | None = None
    rounds: tuple[tuple[Round, ...], ...] = ()


class Contender(Protocol):
    """One decoding method."""

    @property
    def label(self) -> ContenderLabel:
        """The name and kind of the method in the tables."""
        ...

    @property
    def same_tokens(self) -> bool:
        """Whether its tokens must equal those of plain greedy decoding."""
        ...

    def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
        """Decode prompts [T_i] together."""
        ...


@dataclass(frozen=True, slots=True)
class Assistance:
    """The draft settings of transformers' assisted generation.

    Attributes:
        num_draft_tokens: ``num_assistant_tokens``; None for its default.
        confidence: ``assistant_confidence_threshold``, below which a draft ends; 0 for drafts of full length.
            transformers' default is 0.4.
    """

    num_draft_tokens: int | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """``generate`` of transformers; with a ``draft``, it is assisted, and prompts are decoded one at a time.

    With ``static``, the target has a static cache and its forward is compiled. In assisted generation transformers
    allows that from 5.24 on.
    """

    label: ContenderLabel
    target: PreTrainedModel
    end_ids: frozenset[int]
    max_new_tokens: int
    draft: PreTrainedModel | None = None
    assistance: Assistance = field(default_factory=Assistance)
    static: bool = False

    @property
    def same_tokens(self) -> bool:
        """True: plain and assisted generation are both greedy."""
        return True

    def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
        """See `Contender.answer`; shorter prompts are padded on the left."""
        width = max(map(len, prompts))
        pad = min(self.end_ids, default=0)
        ids = torch.stack([torch.cat((row.new_full((width - len(row),), pad), row)) for row in prompts])
        lengths = torch.tensor([len(row) for row in prompts], device=ids.device)
        mask = (torch.arange(width, device=ids.device) >= width - lengths[:, None]).long()
        # Set explicitly, since the model's own generation configuration may sample.
        config = GenerationConfig(
            max_new_tokens=self.max_new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0,
            eos_token_id=sorted(self.end_ids) or None, pad_token_id=pad, **(_compiled() if self.static else {}),
        )  # fmt: skip
        more: dict[str, Any] = {}
        if self.draft is not None:
            more["assistant_model"] = self.draft
        # A new hook would have the forward compiled again.
        counting: AbstractContextManager[list[int] | list[None]] = (
            nullcontext([None]) if self.static else counted(self.target)
        )
        with torch.inference_mode(), self._assisted(), counting as forwards:
            synchronize(ids.device)
            begin = time.perf_counter()
            output: Tensor = self.target.generate(  # type: ignore[operator]  # its mixin is not typed
                ids, attention_mask=mask, generation_config=config, **more
            )
            found = output[:, width:].tolist()
            seconds = time.perf_counter() - begin
        return BatchAnswers(tuple(up_to_end(row, self.end_ids) for row in found), seconds, forwards[0])

    @contextmanager
    def _assisted(self) -> Iterator[None]:
        """Set the assistance in the assistant's generation configuration while the block runs."""
        if self.draft is None:
            yield
            return
        config = self.draft.generation_config
        assert config is not None
        wanted: dict[str, Any] = {"num_assistant_tokens": self.assistance.num_draft_tokens}
        wanted["assistant_confidence_threshold"] = self.assistance.confidence
        wanted["num_assistant_tokens_schedule"] = None if self.assistance.num_draft_tokens is None else "constant"
        before = {name: getattr(config, name, None) for name in wanted}
        try:
            for name, value in wanted.items():
                setattr(config, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(config, name, value)


@dataclass(frozen=True, slots=True)
class OwnLoop:
    """Our own loop; ``policy`` makes the draft-length policy of each answer from ``num_draft_tokens``."""

    label: ContenderLabel
    decoder: JudgeDecoder
    max_new_tokens: int
    rule: VerificationRule
    num_draft_tokens: int = 1
    policy: Callable[[int], DraftLength] = Fixed

    @property
    def same_tokens(self) -> bool:
        """False for lossy rules, whose tokens may differ from greedy decoding."""
        return self.decoder.draft is None or self.rule.is_lossless

    def answer(self, prompts: Sequence[Tensor]) -> BatchAnswers:
        """See `Contender.answer`."""
        synchronize(self.decoder.target.device)
        given = self.decoder.generate_batch(
            list(prompts), self.max_new_tokens, batch_size=len(prompts), rule=self.rule,
            num_draft_tokens=self.num_draft_tokens, draft_length=self.policy, temperature=0,
        )  # fmt: skip
        return BatchAnswers(
            tuple(one.token_ids for one in given),
            given[0].seconds,
            max(len(one.rounds) for one in given),
            tuple(one.rounds for one in given),
        )


def _compiled() -> dict[str, Any]:
    """Return the options of ``generate`` for a static cache and a compiled forward, on a CPU too.

    transformers compiles by itself on GPUs only, and has a switch for its own tests to do so elsewhere.
    """
    config = CompileConfig()
    config._compile_all_devices = True  # type: ignore[assignment]  # declared as None
    return {"cache_implementation": "static", "compile_config": config}


@contextmanager
def counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """Count the forwards of ``model`` while the block runs."""
    forwards = [0]

    def count(module: torch.nn.Module, _: object) -> None:
        forwards[0] += module is model  # a draft that is part of the target can share its hooks

    hook = model.register_forward_pre_hook(count)
    try:
        yield forwards
    finally:
        hook.remove()


def up_to_end(ids: Sequence[int], end_ids: frozenset[int]) -> tuple[int, ...]:
    """Return ``ids`` up to and including the first of ``end_ids``."""
    end = next((place + 1 for place, token in enumerate(ids) if token in end_ids), len(ids))
    return tuple(ids[:end])


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
