"""Estimate whether a recipe fits its GPUs and how fast it could be, from byte counts and a roofline model.

The time of a forward pass over n tokens is the maximum of memory time (weights and KV cache) and compute time on each
GPU, plus two all-reduces per layer and the launch overhead. A round is M forward passes of the draft (one token each)
and one of the target (M + 1 tokens). The judge costs one dot product per token, which is negligible and left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.serving.recipe import WEIGHT_BYTES, Gpus, Model, Recipe

ALLOWANCE = 3e9
"""Bytes on each GPU for activations, CUDA graphs and the communication library: an assumption, not measured."""
LAUNCH = 100e-6
"""Seconds to launch a forward pass and sample its token, with CUDA graphs: an assumption, not measured."""
SHARES = (1.0, 0.7)
"""Shares of the GPUs' bandwidth and FLOPs: 1, the upper bound, and the share that gpt-fast reaches.

Its README reports 1,397 GB/s on a GPU with 2,039 (Llama 2 7B in 16 bits on an A100 80 GB), a share of 0.69.
"""
_PUBLISHED_WEIGHTS = ("bf16", "fp8", "fp8-mlp")
"""The types of weights in which a published figure may have been measured."""
RATES = (0.6, 0.7, 0.8, 0.9, 0.95)
"""Acceptance rates per token for which the best draft length is reported."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory use in bytes on each GPU."""

    target: float
    draft: float
    cache: float
    allowance: float
    usable: float

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Return what a recipe needs. By default, vLLM shards the draft over the same GPUs as the target."""
        gpus = recipe.gpus.count
        tokens = recipe.context * recipe.sequences
        number = 1 if recipe.kv_cache == "fp8" else 2
        return cls(
            target=recipe.target.weight_bytes / gpus,
            draft=recipe.draft.weight_bytes / gpus,
            cache=float(tokens * sum(m.kv_bytes(gpus, number) for m in (recipe.target, recipe.draft))),
            allowance=ALLOWANCE,
            usable=recipe.gpus.memory * recipe.memory_share,
        )

    @property
    def spare(self) -> float:
        """The remaining bytes; negative if memory is missing."""
        return self.usable - self.target - self.draft - self.cache - self.allowance

    @property
    def fits(self) -> bool:
        """Whether the recipe fits into memory."""
        return self.spare >= 0


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """Seconds of one forward pass: memory or compute, communication between GPUs, and launch."""

    work: float
    all_reduce: float
    launch: float

    @classmethod
    def of(
        cls, model: Model, tokens: int, context: int, gpus: Gpus, share: float, number: int = 2, sequences: int = 1
    ) -> Self:
        """Return the time for ``tokens`` of each sequence after a ``context``, at a share of bandwidth and FLOPs.

        ``number``: bytes per number in the KV cache. FP8 compute is used only if all weights are FP8. Weights are read
        once for all ``sequences``, the KV cache for each.
        """
        tokens *= sequences
        read = model.bytes_read(tokens) / gpus.count + sequences * context * model.kv_bytes(gpus.count, number)
        flops = 2 * tokens * (model.attention + model.active_mlp + model.embedding)
        flops += 4 * tokens * context * model.layers * model.heads * model.head_dim
        peak = gpus.fp8_flops if WEIGHT_BYTES[model.weights] == (1, 1) else gpus.bf16_flops
        sent = 2 * (gpus.count - 1) / gpus.count * tokens * model.hidden_size * 2 / gpus.link_bandwidth
        return cls(
            work=max(read / (gpus.bandwidth * share), flops / gpus.count / (peak * share)),
            all_reduce=2 * model.layers * (gpus.all_reduce_latency + sent) if gpus.count > 1 else 0.0,
            launch=LAUNCH,
        )

    @property
    def seconds(self) -> float:
        """The total time."""
        return self.work + self.all_reduce + self.launch


@dataclass(frozen=True, slots=True)
class RoundCost:
    """The costs of a draft forward (``num_draft_tokens`` per round), of the verification, and of plain decoding.

    Each covers all ``sequences`` together.
    """

    num_draft_tokens: int
    draft: ForwardCost
    verify: ForwardCost
    plain: ForwardCost
    sequences: int = 1

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        share: float,
        num_draft_tokens: int | None = None,
        draft_gpus: int | None = None,
        sequences: int = 1,
    ) -> Self:
        """Return the cost for half-full contexts, with the draft on all GPUs or on ``draft_gpus`` of them."""
        length = num_draft_tokens or recipe.num_draft_tokens
        context, gpus = recipe.context // 2, recipe.gpus
        drafting = gpus.model_copy(update={"count": draft_gpus or gpus.count})
        number = 1 if recipe.kv_cache == "fp8" else 2
        return cls(
            length,
            draft=ForwardCost.of(recipe.draft, 1, context, drafting, share, number, sequences=sequences),
            verify=ForwardCost.of(recipe.target, length + 1, context, gpus, share, number, sequences=sequences),
            plain=ForwardCost.of(recipe.target, 1, context, gpus, share, number, sequences=sequences),
            sequences=sequences,
        )

    @property
    def seconds(self) -> float:
        """The time of a whole round."""
        return self.num_draft_tokens * self.draft.seconds + self.verify.seconds

    @property
    def break_even(self) -> float:
        """The accepted draft tokens per round at which decoding is as fast as the target alone."""
        return self.seconds / self.plain.seconds - 1

    def tokens_per_second(self, accepted: float) -> float:
        """Return the tokens per second of all sequences; each round adds one target token to the ``accepted`` ones."""
        return self.sequences * (accepted + 1) / self.seconds

    @property
    def plain_tokens_per_second(self) -> float:
        """The tokens per second of all sequences by the target alone."""
        return self.sequences / self.plain.seconds

    def parts(self) -> dict[str, float]:
        """Return the seconds of a round by component."""
        drafts = self.num_draft_tokens
        return {
            "draft": drafts * self.draft.work,
            "verify": self.verify.work,
            "all-reduce": drafts * self.draft.all_reduce + self.verify.all_reduce,
            "launch": drafts * self.draft.launch + self.verify.launch,
        }


def accepted_of(rate: float, length: int) -> float:
    """Return the expected accepted draft tokens per round if each is accepted with probability ``rate``.

    Leviathan et al. 2023 (arXiv 2211.17192), equation 1, without the target's own token.
    """
    return float(length) if rate == 1 else rate * (1 - rate**length) / (1 - rate)


@dataclass(frozen=True, slots=True)
class BestLength:
    """The fastest draft length at an acceptance rate per token, and its speed over the target alone.

    For a mixture-of-experts target, also the number of experts per layer that its verification reads, and the best
    length for a dense model of its active size.
    """

    rate: float
    length: int
    speedup: float
    experts_read: float | None = None
    dense_length: int | None = None


def best_length(recipe: Recipe, rate: float) -> BestLength:
    """Return the fastest draft length up to 32, for one sequence and the lower share, at an acceptance rate."""
    length, speedup = _fastest(recipe, rate)
    experts = recipe.target.experts
    if experts is None:
        return BestLength(rate, length, speedup)
    dense = recipe.model_copy(update={"target": recipe.target.as_dense()})
    return BestLength(rate, length, speedup, experts.read(length + 1), _fastest(dense, rate)[0])


def _fastest(recipe: Recipe, rate: float) -> tuple[int, float]:
    rounds = [RoundCost.of(recipe, SHARES[-1], length) for length in range(1, 33)]
    speeds = [one.tokens_per_second(accepted_of(rate, one.num_draft_tokens)) for one in rounds]
    best = max(range(len(rounds)), key=speeds.__getitem__)
    return rounds[best].num_draft_tokens, speeds[best] / rounds[best].plain_tokens_per_second


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction compared with a published figure, for one assumption about how that was measured.

    ``tokens_per_second`` and ``plain`` are predictions. ``deviation`` and ``plain_deviation`` are their relative
    excess over the published figures (0.1: 10% above), None where nothing was published.
    """

    weights: str
    draft_gpus: int
    share: float
    possible: bool
    tokens_per_second: float
    deviation: float
    plain: float
    plain_deviation: float | None


def against_published(recipe: Recipe) -> list[Comparison]:
    """Compare the estimates with the recipe's published figures, under each assumption about unknown settings.

    The estimates are not fitted to these figures. ``possible``: the weights alone fit into the GPUs' memory.
    """
    if recipe.published is None or recipe.accepted is None:
        return []
    found, gpus = [], recipe.gpus
    for weights in _PUBLISHED_WEIGHTS:
        target = recipe.target.model_copy(update={"weights": weights})
        tried = recipe.model_copy(update={"target": target})
        for draft_gpus in sorted({gpus.count, 1}, reverse=True):
            held = target.weight_bytes / gpus.count + recipe.draft.weight_bytes / draft_gpus
            for share in SHARES:
                one = RoundCost.of(tried, share, draft_gpus=draft_gpus)
                speed, plain = one.tokens_per_second(recipe.accepted.judge), one.plain_tokens_per_second
                known = recipe.published
                found.append(
                    Comparison(
                        weights, draft_gpus, share, held <= gpus.memory,
                        tokens_per_second=speed, deviation=speed / known.judge - 1,
                        plain=plain, plain_deviation=plain / known.plain - 1 if known.plain else None,
                    )
                )  # fmt: skip
    return found


def remedies(recipe: Recipe) -> list[str]:
    """Return changes that would each make the recipe fit, in a few words."""
    gpus, found = recipe.gpus.count, []

    def fits(**changes: object) -> bool:
        return Memory.of(recipe.model_copy(update=changes)).fits

    memory = Memory.of(recipe)
    room = recipe.sequences * (1 + memory.spare / memory.cache)
    if room >= 1:
        found.append(f"{int(room)} sequences")
    elif memory.spare + memory.cache > 0 and (shorter := int(recipe.context * room)) >= 1:
        found.append(f"1 sequence of {shorter} tokens")
    if recipe.kv_cache == "bf16" and fits(kv_cache="fp8"):
        found.append("the cache in fp8")
    if recipe.target.weights != "fp8" and fits(target=recipe.target.model_copy(update={"weights": "fp8"})):
        found.append("the target's weights in fp8")
    for more in (2 * gpus, 4 * gpus, 8 * gpus):
        divisible = recipe.target.divides_over(more) and recipe.draft.divides_over(more)
        if divisible and fits(gpus=recipe.gpus.model_copy(update={"count": more})):
            found.append(f"{more} GPUs")
            break
    return found


@dataclass(frozen=True, slots=True)
class RoundSpeed:
    """The cost of a round at a share of the GPUs' peak, and the tokens per second of all sequences by method.

    The methods are "judge", "standard" and "plain"; a speed is None if the number of accepted tokens is not known.
    """

    share: float
    cost: RoundCost
    tokens_per_second: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The figures of a recipe.

    Attributes:
        memory: memory use on each GPU.
        remedies: changes that would each make the recipe fit, if it does not; see `remedies`.
        speeds: for one sequence and for all of the recipe's, the speed at each of `SHARES`.
        best: the fastest draft length at each of `RATES`.
        compared: comparisons with published figures; empty if the number of accepted tokens was given.
    """

    memory: Memory
    remedies: list[str]
    speeds: dict[int, list[RoundSpeed]]
    best: list[BestLength]
    compared: list[Comparison]


def estimate(recipe: Recipe, accepted: float | None = None) -> Estimate:
    """Estimate a recipe's memory and speed; ``accepted`` are draft tokens per round, by default the recipe's own.

    Raises:
        JudgeDecodingError: more tokens are accepted than are drafted.
    """
    judged = accepted if accepted is not None else recipe.accepted.judge if recipe.accepted else None
    if judged is not None and judged > recipe.num_draft_tokens:
        raise JudgeDecodingError(
            f"{judged:g} accepted tokens a round cannot come from {recipe.num_draft_tokens} drafted; give "
            "fewer with --accepted, or more with --num-draft-tokens."
        )
    memory = Memory.of(recipe)
    return Estimate(
        memory,
        [] if memory.fits else remedies(recipe),
        {count: _speeds(recipe, judged, count) for count in sorted({1, recipe.sequences})},
        [best_length(recipe, rate) for rate in RATES],
        against_published(recipe) if accepted is None else [],
    )


def _speeds(recipe: Recipe, judged: float | None, sequences: int) -> list[RoundSpeed]:
    """Return the speed of ``sequences`` at each share of the peak.

    Standard verification gets the shortest draft with which it can reach its stated acceptance: its best case.
    """
    standard = recipe.accepted.standard if recipe.accepted else None
    found = []
    for share in SHARES:
        cost = RoundCost.of(recipe, share, sequences=sequences)
        short = RoundCost.of(recipe, share, math.ceil(standard), sequences=sequences) if standard else None
        speeds = {
            "judge": cost.tokens_per_second(judged) if judged is not None else None,
            "standard": short.tokens_per_second(standard) if short and standard else None,
            "plain": cost.plain_tokens_per_second,
        }
        found.append(RoundSpeed(share, cost, speeds))
    return found
