"""Recipes of models, judge and GPUs: read from YAML, validated, and turned into vLLM's command."""

from __future__ import annotations

import json
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import first_problem, read_text
from judge_decoding.spelling import guess, listed

Count = Annotated[int, Field(ge=1, le=10**9)]
Quantity = Annotated[float, Field(ge=1e-3, le=1e18)]
# No control characters, which a terminal would interpret.
PlainText = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", max_length=500)]
# Names become command-line arguments, so they must not look like options.
SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./][^\s\x00-\x1f\x7f-\x9f]*$", max_length=500)]

WEIGHT_BYTES: dict[str, tuple[float, float]] = {
    "bf16": (2, 2), "fp8": (1, 1), "fp8-mlp": (2, 1), "mxfp4-mlp": (2, 17 / 32),
}  # fmt: skip
"""Bytes per weight of attention and of the MLP. Embeddings, norms and the output layer are always in 16 bits.

``fp8-mlp`` is the format of Meta's own FP8 checkpoint of Llama 3.1 405B ("The Llama 3 Herd of Models", section 6.2; its
first and last layers, in 16 bits there, are counted like the others). ``mxfp4-mlp`` is that of gpt-oss: 4 bits, and a
scale of 8 bits for each 32 weights.
"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Experts(_Part):
    """A mixture of experts instead of an MLP: every token is routed to ``active`` of ``total`` experts.

    In a config.json these are ``num_experts_per_tok`` of ``num_experts``, ``num_local_experts`` or
    ``n_routed_experts``, each of ``moe_intermediate_size``. The shared experts have a total size, 0 without any;
    ``first_k_dense_replace`` is the number of layers with an ordinary MLP.
    """

    total: Count
    active: Count
    intermediate_size: Count
    shared_intermediate_size: Annotated[int, Field(ge=0, le=10**9)] = 0
    dense_layers: Annotated[int, Field(ge=0, le=10**9)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.active > self.total:
            raise ValueError(f"{self.active} of {self.total} experts cannot be active")
        return self

    def read(self, tokens: int) -> float:
        """Return the experts per layer that a forward pass over ``tokens`` is expected to read under uniform routing.

        A token skips an expert with probability 1 - active / total, and tokens are routed independently. Real routers
        favour some experts, and neighbouring tokens share them, so this is an upper bound.
        """
        return self.total * (1 - (1 - self.active / self.total) ** tokens)


class Model(_Part):
    """A decoder of the Llama or Qwen3 family: its name, the type of its weights and the sizes in its config.json.

    ``quantize``: vLLM quantizes a 16-bit checkpoint to FP8 while loading; else the checkpoint has type ``weights``.
    """

    name: SafeName
    weights: Literal["bf16", "fp8", "fp8-mlp", "mxfp4-mlp"] = "bf16"
    quantize: bool = False
    layers: Count
    hidden_size: Count
    intermediate_size: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    vocab_size: Count
    tied_embeddings: bool = False
    qk_norm: bool = False
    experts: Experts | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        if self.quantize and self.weights != "fp8":
            raise ValueError('quantize makes weights of type "fp8" and of no other')
        if self.experts and self.experts.dense_layers >= self.layers:
            raise ValueError(f"{self.experts.dense_layers} dense_layers leave none of {self.layers} for experts")
        return self

    @property
    def attention(self) -> int:
        """The parameters of all attention projections."""
        return self.layers * self.hidden_size * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def mlp(self) -> int:
        """The parameters of all gated MLPs and experts."""
        return round(self._mlp(self.experts.total if self.experts else 0))

    @property
    def active_mlp(self) -> int:
        """The MLP parameters that are active for one token."""
        return round(self._mlp(self.experts.active if self.experts else 0))

    def _mlp(self, experts: float) -> float:
        """Return the parameters of the MLPs, with ``experts`` experts in each layer that has experts."""
        if self.experts is None:
            return self.layers * 3 * self.hidden_size * self.intermediate_size
        each = 3 * self.experts.intermediate_size
        sparse = experts * each + 3 * self.experts.shared_intermediate_size + self.experts.total  # the router
        dense = 3 * self.intermediate_size
        layers = self.layers - self.experts.dense_layers
        return self.hidden_size * (layers * sparse + self.experts.dense_layers * dense)

    @property
    def embedding(self) -> int:
        """The parameters of the input embeddings; the output layer has as many, or shares them."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """The total number of parameters."""
        norms = self.layers * 2 * (self.hidden_size + self.head_dim * self.qk_norm) + self.hidden_size
        return self.attention + self.mlp + self.embedding * (1 if self.tied_embeddings else 2) + norms

    @property
    def weight_bytes(self) -> float:
        """The size of the weights in bytes."""
        attention, mlp = WEIGHT_BYTES[self.weights]
        rest = self.parameters - self.attention - self.mlp
        return self.attention * attention + self.mlp * mlp + rest * 2

    def bytes_read(self, tokens: int = 1) -> float:
        """Return the bytes of the weights that a forward pass over ``tokens`` reads.

        It reads only a few rows of untied input embeddings, and only the experts to which some token is routed.
        """
        unread = self.mlp - self._mlp(self.experts.read(tokens)) if self.experts else 0
        table = 0 if self.tied_embeddings else self.embedding * 2
        return self.weight_bytes - table - unread * WEIGHT_BYTES[self.weights][1]

    def as_dense(self) -> Self:
        """Return a dense model with as many active weights (without the router), for comparison."""
        if self.experts is None:
            return self
        size = self.experts.active * self.experts.intermediate_size + self.experts.shared_intermediate_size
        return self.model_copy(update={"experts": None, "intermediate_size": size})

    def divides_over(self, gpus: int) -> bool:
        """Whether all GPUs get equally many heads; with more GPUs than kv_heads, key and value heads are replicated."""
        few, many = sorted((self.kv_heads, gpus))
        return self.heads % gpus == 0 and many % few == 0

    def kv_bytes(self, gpus: int, number: int) -> int:
        """Return a token's KV cache bytes on one of ``gpus``, at ``number`` bytes per value; heads are not split."""
        return 2 * self.layers * max(1, self.kv_heads // gpus) * self.head_dim * number


class Gpus(_Part):
    """The GPUs, with both models sharded over all of them (tensor parallel). Peak bytes, seconds and dense FLOPs.

    ``link_bandwidth``: to the other GPUs, one direction. ``all_reduce_latency``: one all-reduce of a few kilobytes.
    """

    name: PlainText
    count: Count
    memory: Quantity
    bandwidth: Quantity
    bf16_flops: Quantity
    fp8_flops: Quantity
    link_bandwidth: Quantity
    all_reduce_latency: Annotated[float, Field(ge=0, le=1)]


class AcceptedTokens(_Part):
    """Accepted draft tokens per round, without the target's own token, and the source of the figures."""

    judge: Quantity
    standard: Quantity | None = None
    source: PlainText


class Published(_Part):
    """Published tokens per second; ``plain``: without a draft, in an equally fast loop."""

    judge: Quantity
    plain: Quantity | None = None
    source: PlainText


class Recipe(_Part):
    """A model pair, a judge and the machine that serves them."""

    about: PlainText
    target: Model
    draft: Model
    head: SafeName
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    data: PlainText
    num_draft_tokens: Count
    accepted: AcceptedTokens | None = None
    gpus: Gpus
    context: Count
    sequences: Count
    kv_cache: Literal["bf16", "fp8"] = "bf16"
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.92  # vLLM's own default
    published: Published | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.target.vocab_size != self.draft.vocab_size:
            raise ValueError(
                f"target and draft have vocabularies of {self.target.vocab_size} and {self.draft.vocab_size}; "
                "vLLM's draft models need the target's"
            )
        for role, model in (("target", self.target), ("draft", self.draft)):
            if not model.divides_over(self.gpus.count):
                raise ValueError(
                    f"the {role}'s {model.heads} heads and {model.kv_heads} kv_heads cannot be divided over "
                    f"{self.gpus.count} GPUs"
                )
        if self.accepted and max(self.accepted.judge, self.accepted.standard or 0) > self.num_draft_tokens:
            raise ValueError("accepted has more tokens a round than num_draft_tokens drafts")
        return self

    def command(self) -> list[str]:
        """Return the command line, starting with ``vllm``."""
        speculative: dict[str, object] = {
            "method": "draft_model",
            "model": self.draft.name,
            "num_speculative_tokens": self.num_draft_tokens,
        }
        if self.draft.quantize:
            speculative["quantization"] = "fp8"
        judge: dict[str, object] = {"head": self.head}
        if self.threshold is not None:
            judge["threshold"] = self.threshold
        return [
            "vllm", "serve", self.target.name,
            "--tensor-parallel-size", str(self.gpus.count),
            "--max-model-len", str(self.context),
            "--max-num-seqs", str(self.sequences),
            "--gpu-memory-utilization", f"{self.memory_share:g}",
            *(["--quantization", "fp8"] if self.target.quantize else []),
            *(["--kv-cache-dtype", "fp8"] if self.kv_cache == "fp8" else []),
            "--speculative-config", json.dumps(speculative),
            "--additional-config", json.dumps({"judge": judge}),
        ]  # fmt: skip

    def fit_command(self) -> list[str]:
        """Return the command that trains the head."""
        return [
            "judge-decoding", "fit", "--target", self.target.name, "--draft", self.draft.name,
            "--prompts", "prompts.jsonl", "--out", self.head, *(["--device", "auto"] if self.gpus.count > 1 else []),
        ]  # fmt: skip


def packaged() -> dict[str, Traversable]:
    """Return the recipes that come with the package, by name."""
    files = (resources.files("judge_decoding") / "recipes").iterdir()
    return {name.removesuffix(".yaml"): file for name, file in sorted((f.name, f) for f in files)}


def load(name_or_path: str) -> Recipe:
    """Load a recipe that comes with the package by its name, or a recipe from a file."""
    known = packaged()
    if name_or_path in known:
        text = known[name_or_path].read_text(encoding="utf-8")
    elif "/" not in name_or_path and not name_or_path.endswith((".yaml", ".yml")) and not Path(name_or_path).exists():
        raise JudgeDecodingError(
            f"There is no recipe {name_or_path[:80]}{guess(name_or_path, known)}; the recipes are {listed(known)}. A "
            "recipe can also be a file."
        )
    else:
        text = read_text(Path(name_or_path), "the recipe")
    return parse(text, name_or_path)


def parse(text: str, where: str) -> Recipe:
    """Parse a recipe from YAML; ``where`` names its source in messages."""
    try:
        return Recipe.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        raise JudgeDecodingError(f"The recipe {where} is invalid: {first_problem(error)}; correct it.") from error
    # yaml passes on Python's own errors for invalid numbers and dates and for endless nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        raise JudgeDecodingError(f"The recipe {where} cannot be read as YAML{line}; correct it.") from error
