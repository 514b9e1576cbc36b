"""Does a recipe fit its GPUs, and how fast could it be? Sums of bytes, and a roofline.

A forward over n tokens takes the longer of reading the weights and the cache, and of computing, on each GPU; two
all-reduces a layer; and what it costs to start it. A round is M forwards of the draft (one token each) and one of the
target (M + 1 tokens). What the judge computes, one dot product a token, is nothing beside that, and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from judge_decoding.serving.recipe import WEIGHT_BYTES, Gpus, Model, Recipe

ALLOWANCE = 3e9
"""Bytes on each GPU for activations, CUDA graphs and the communication library: an assumption, not measured."""
LAUNCH = 100e-6
"""Seconds to start a forward and take its token, with CUDA graphs: an assumption, not measured."""
SHARES = (1.0, 0.7)
"""Shares of the GPUs' bandwidth and FLOPs: all, which is the upper bound, and what gpt-fast reaches.

Its README reports 1,397 GB/s on a GPU with 2,039 (Llama 2 7B in 16 bits on an A100 80 GB), a share of 0.69.
"""
RATES = (0.6, 0.7, 0.8, 0.9, 0.95)
"""Acceptance rates per token for which the best draft length is told."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on each GPU."""

    target: float
    draft: float
    cache: float
    allowance: float
    usable: float

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """What a recipe needs. vLLM divides the draft over as many GPUs as the target, unless it is told otherwise."""
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
        """Bytes that are left; below 0, that are missing."""
        return self.usable - self.target - self.draft - self.cache - self.allowance

    @property
    def fits(self) -> bool:
        """Nothing is missing."""
        return self.spare >= 0


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """Seconds of one forward: reading or computing, talking to the other GPUs, starting."""

    work: float
    all_reduce: float
    launch: float

    @classmethod
    def of(
        cls,
        model: Model,
        tokens: int,
        context: int,
        gpus: Gpus,
        share: float,
        number: int = 2,
        launch: float = LAUNCH,
        sequences: int = 1,
    ) -> Self:
        """The time of ``tokens`` of each sequence behind ``context`` others, at a share of bandwidth and of FLOPs.

        ``number``: bytes of each number in the cache. Weights in FP8 are multiplied in FP8 only if all are. They are
        read once for all ``sequences``, the cache for each.
        """
        tokens *= sequences
        read = model.read_bytes(tokens) / gpus.count + sequences * context * model.kv_bytes(gpus.count, number)
        flops = 2 * tokens * (model.attention + model.active_mlp + model.embedding)
        flops += 4 * tokens * context * model.layers * model.heads * model.head_dim
        peak = gpus.fp8_flops if WEIGHT_BYTES[model.weights] == (1, 1) else gpus.bf16_flops
        sent = 2 * (gpus.count - 1) / gpus.count * tokens * model.hidden_size * 2 / gpus.link_bandwidth
        return cls(
            work=max(read / (gpus.bandwidth * share), flops / gpus.count / (peak * share)),
            all_reduce=2 * model.layers * (gpus.all_reduce_latency + sent) if gpus.count > 1 else 0.0,
            launch=launch,
        )

    @property
    def seconds(self) -> float:
        """Their sum."""
        return self.work + self.all_reduce + self.launch


@dataclass(frozen=True, slots=True)
class RoundCost:
    """A draft forward, of which a round has ``num_draft_tokens``; its verification; a step of the target alone.

    Each is of all ``sequences`` together.
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
        """Of sequences whose contexts are half full; the draft on all GPUs, or on each of fewer by itself."""
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
        """Of the whole round."""
        return self.num_draft_tokens * self.draft.seconds + self.verify.seconds

    @property
    def break_even(self) -> float:
        """Accepted draft tokens a round with which it is as fast as the target alone."""
        return self.seconds / self.plain.seconds - 1

    def tokens_per_second(self, accepted: float) -> float:
        """Of all sequences, with so many accepted draft tokens a round in each; the target adds one of its own."""
        return self.sequences * (accepted + 1) / self.seconds

    @property
    def plain_tokens_per_second(self) -> float:
        """Of all sequences, by the target alone."""
        return self.sequences / self.plain.seconds

    def parts(self) -> dict[str, float]:
        """The round's seconds by what they go to."""
        drafts = self.num_draft_tokens
        return {
            "draft": drafts * self.draft.work,
            "verify": self.verify.work,
            "all-reduce": drafts * self.draft.all_reduce + self.verify.all_reduce,
            "launch": drafts * self.draft.launch + self.verify.launch,
        }


def accepted_of(rate: float, length: int) -> float:
    """Accepted draft tokens a round, expected if each draft token is accepted with probability ``rate``.

    Leviathan et al. 2023 (arXiv 2211.17192), equation 1, without the target's own token.
    """
    return float(length) if rate == 1 else rate * (1 - rate**length) / (1 - rate)


@dataclass(frozen=True, slots=True)
class BestLength:
    """The fastest draft length at an acceptance rate per token, and its speed over the target alone.

    For a target with experts also how many of a layer its verification reads, and what the length would be if its
    active weights were a dense model.
    """

    rate: float
    length: int
    speedup: float
    experts_read: float | None = None
    dense_length: int | None = None


def best_length(recipe: Recipe, rate: float, sequences: int = 1, share: float = SHARES[-1]) -> BestLength:
    """Which draft length up to 32 is fastest where each draft token is accepted with probability ``rate``."""
    length, speedup = _fastest(recipe, rate, sequences, share)
    experts = recipe.target.experts
    if experts is None:
        return BestLength(rate, length, speedup)
    dense = recipe.model_copy(update={"target": recipe.target.as_dense()})
    return BestLength(
        rate, length, speedup, experts.read(sequences * (length + 1)), _fastest(dense, rate, sequences, share)[0]
    )


def _fastest(recipe: Recipe, rate: float, sequences: int, share: float) -> tuple[int, float]:
    rounds = [RoundCost.of(recipe, share, length, sequences=sequences) for length in range(1, 33)]
    speeds = [one.tokens_per_second(accepted_of(rate, one.num_draft_tokens)) for one in rounds]
    best = max(range(len(rounds)), key=speeds.__getitem__)
    return rounds[best].num_draft_tokens, speeds[best] / rounds[best].plain_tokens_per_second


@dataclass(frozen=True, slots=True)
class Comparison:
    """A prediction beside a published figure, for one way in which it may have been measured.

    ``tokens_per_second`` and ``plain`` are predicted, ``deviation`` and ``plain_deviation`` how far they are above the
    published ones (0.1: a tenth), None where nothing was published.
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
    """The recipe's published figures against the model, under each assumption about what is not known of them.

    Nothing of the model is fitted to them. ``possible``: the weights alone go into the GPUs' memory.
    """
    if recipe.published is None or recipe.accepted is None:
        return []
    found, gpus = [], recipe.gpus
    for weights in WEIGHT_BYTES:
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
    """What would make a recipe fit: each by itself, in a few words."""
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
