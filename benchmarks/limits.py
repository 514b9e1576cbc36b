"""How fast a round could be: compiled calls with nothing around them, and what the machine's memory and cores allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.backends.static.compiling import CompileProgress
from judge_decoding.decoding.backends.static.draft import CompiledDraft
from judge_decoding.decoding.backends.static.kv_cache import StaticKVCache
from judge_decoding.decoding.backends.static.lm import CompiledForwards
from judge_decoding.evaluation.bench.contenders import synchronize
from judge_decoding.models.hidden import output_size

LEAST_SECONDS = 0.02
"""A bare call is repeated for so long, and at least `LEAST_CALLS` times: it is measured again behind every batch."""
LEAST_CALLS = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """What a round looks like.

    Attributes:
        rows: prompts that are decoded together.
        num_draft_tokens: draft length M; 0 for none.
        context: tokens a row has before it.
    """

    rows: int
    num_draft_tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class Bare:
    """Seconds of compiled calls of one shape, with nothing around them.

    Attributes:
        verify: the target reads M+1 tokens a row.
        draft: the draft model chooses M tokens a row in the calls the engine makes for that, divided by M.
        draft_alone: it chooses one token a row in a call of its own.
    """

    verify: float
    draft: float = 0.0
    draft_alone: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine can do, as measured.

    Attributes:
        bandwidth: bytes per second that are read from memory.
        flops: floating-point operations per second of a matrix product.
    """

    bandwidth: float
    flops: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a round has to do.

    Attributes:
        bytes: weights, once a forward, and keys and values that are attended to.
        flops: floating-point operations, two for each multiply-add.
    """

    bytes: float
    flops: float

    def plus(self, other: Work, times: int = 1) -> Work:
        """The sum of this work and ``times`` the other."""
        return Work(self.bytes + times * other.bytes, self.flops + times * other.flops)


def efficiency(num_draft_tokens: int, bare: Bare, lap: float) -> float:
    """(M * t_draft + t_verify) / measured round: 1 for a loop that costs nothing beside its compiled calls."""
    return (num_draft_tokens * bare.draft + bare.verify) / lap


class BareCalls:
    """The compiled forwards of a pair, as the static back end runs them.

    Args:
        target: the target.
        draft: the draft model, if there is one.
        sources: where the judge reads hidden states; the compiled forward is the engine's own then.
        progress: told before something is compiled.
        folder: where the compiled code is kept.

    Raises:
        CannotCompileError: a model cannot be compiled.
    """

    def __init__(
        self,
        target: PreTrainedModel,
        draft: PreTrainedModel | None,
        sources: set[HiddenSource],
        progress: CompileProgress = lambda _: None,
        folder: Path | None = None,
    ) -> None:
        self._target = target
        _, self._verify = CompiledForwards(target, progress, folder).for_sources(sources)
        self._draft = None
        if draft is not None:
            self._draft = CompiledDraft(draft, output_size(target), progress=progress, folder=folder)

    @torch.inference_mode()
    def measure(self, shape: Shape) -> Bare:
        """Medians for rounds of this shape."""
        device, rows, count = self._target.device, shape.rows, shape.num_draft_tokens
        memory = StaticKVCache(self._target, rows, shape.context + count + 1)
        tokens = nn.functional.pad(
            torch.ones(rows, count + 1, dtype=torch.long, device=device), (1, 0), value=shape.context
        )
        keep = torch.arange(count + 1, device=device)
        weight = torch.zeros(1, self._target.config.get_text_config().hidden_size, device=device)
        bias = torch.zeros(1, device=device)
        columns = memory.columns(shape.context + count + 1)

        def verify() -> list[Tensor]:
            return self._verify(tokens, columns, keep, weight, bias, memory.cache)

        if self._draft is None or not count:
            return Bare(*timed([verify], device))
        draft, last = self._draft, tokens[:, :2].contiguous()
        own = StaticKVCache(draft.model, rows, shape.context + count + draft.steps)

        def several() -> Tensor:
            return draft.draft_greedily(last, own, shape.context, count)

        # In turns, as in a round: what one has left of the processor's caches is what the other finds.
        t_verify, t_draft = timed([verify, several], device)
        return Bare(
            t_verify, t_draft / count, *timed([lambda: draft.draft_greedily(last, own, shape.context, 1)], device)
        )


def work(model: PreTrainedModel, tokens: int, context: float, rows: int) -> Work:
    """What one forward of ``tokens`` a row has to do, behind ``context`` tokens.

    The table of embeddings is read in a few rows only, and not counted; as the language-model head it is read whole.
    """
    config = model.config.get_text_config()
    table = model.get_input_embeddings().get_parameter("weight")
    head = model.get_output_embeddings().weight
    counted: dict[int, nn.Parameter] = {id(weight): weight for weight in model.parameters()}
    counted.pop(id(table), None)
    counted[id(head)] = head
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    end, layers = context + tokens, config.num_hidden_layers
    cache = 2 * layers * (kv_heads or heads) * size * end * rows * head.element_size()
    products = 2 * sum(weight.numel() for weight in counted.values() if weight.ndim > 1) * tokens * rows
    attention = 4 * layers * heads * size * end * tokens * rows
    return Work(sum(weight.nbytes for weight in counted.values()) + cache, products + attention)


def round_work(target: PreTrainedModel, draft: PreTrainedModel | None, shape: Shape) -> Work:
    """What a round has to do: one forward of the target, and M of the draft."""
    count = shape.num_draft_tokens
    own = work(target, count + 1, shape.context, shape.rows)
    return own.plus(work(draft, 1, shape.context, shape.rows), count) if draft is not None else own


def measure_machine(device: torch.device, dtype: torch.dtype, megabytes: int = 512, size: int = 1536) -> Machine:
    """Bandwidth and speed of this machine, with as many threads as decoding has.

    Args:
        device: where the models are.
        dtype: of their numbers.
        megabytes: how much is read; far more than the caches hold.
        size: of the square matrices that are multiplied.
    """
    count = megabytes * 2**20 // dtype.itemsize
    data = torch.ones(count // 4096, 4096, dtype=dtype, device=device)
    half, vector = len(data) // 2, torch.ones(4096, dtype=dtype, device=device)
    ways: list[tuple[Callable[[], Any], int]] = [
        (lambda: data[:half].copy_(data[half : 2 * half]), 2 * half * 4096 * dtype.itemsize),
        (lambda: torch.mv(data, vector), data.nbytes),
        (data.sum, data.nbytes),
    ]
    bandwidth = max(amount / min(times([way], device, 0.1, 7)[0]) for way, amount in ways)
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    return Machine(bandwidth, 2 * size**3 / min(times([lambda: a @ b], device, 0.1, 7)[0]))


def timed(calls: Sequence[Callable[[], Any]], device: torch.device) -> list[float]:
    """Median seconds of each of some calls; see `times`."""
    return [median(found) for found in times(calls, device)]


def times(
    calls: Sequence[Callable[[], Any]], device: torch.device, least_seconds: float = 0.0, least_calls: int = 0
) -> list[list[float]]:
    """Seconds of each of some calls, which are made in turns; the first of each is not counted."""
    found: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    synchronize(device)
    enough = max(least_seconds, LEAST_SECONDS) * len(calls)
    while len(found[0]) < max(least_calls, LEAST_CALLS) or sum(map(sum, found)) < enough:
        for call, own in zip(calls, found, strict=True):
            begin = time.perf_counter()
            call()
            synchronize(device)
            own.append(time.perf_counter() - begin)
    return found
