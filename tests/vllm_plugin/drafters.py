"""Drafters of vLLM's that nobody has trained for the embedded target, and what they drafted, for our own loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pair import PROMPTS
from safetensors.torch import save_file
from transformers import LlamaConfig, PreTrainedModel
from vllm import LLM

from tiny import Scripted

PIPELINE, PIPELINE_TOKENS = PROMPTS[:2], 16
PIPELINE_SETTINGS: dict[str, dict[str, Any]] = {"own": {}, "all": {"judge_threshold": 0.0}, "off": {"judge": "off"}}
"""What is asked of a pipeline, and of one process to compare with."""


def eagle3(folder: str) -> dict[str, Any]:
    """Of an engine: the drafter that vLLM can run on the last rank of a pipeline."""
    return {"method": "eagle3", "model": folder, "num_speculative_tokens": 4}


def eagle(folder: Path, target: PreTrainedModel, states: int) -> Path:
    """A random EAGLE drafter, which reads the target's last hidden states; with three ``states``, an EAGLE-3 one."""
    vocabulary, size = target.config.vocab_size, target.config.hidden_size
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=size, intermediate_size=size, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=4, architectures=["LlamaForCausalLM"], dtype="float32",
    )  # fmt: skip
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)

    def weight(rows: int, columns: int) -> torch.Tensor:
        return 0.1 * torch.randn(rows, columns, generator=generator)

    layer, read = ("midlayer.", 2 * size) if states > 1 else ("layers.0.", size)
    weights = {
        "fc.weight": weight(size, (states if states > 1 else 2) * size),
        **{f"{layer}self_attn.{name}_proj.weight": weight(size, read) for name in "qkv"},
        **{f"{layer}mlp.{name}_proj.weight": weight(size, size) for name in ("gate", "up", "down")},
        f"{layer}self_attn.o_proj.weight": weight(size, size),
        f"{layer}post_attention_layernorm.weight": torch.ones(size),
    }
    if states > 1:
        weights |= {f"{layer}{name}.weight": torch.ones(size) for name in ("input_layernorm", "hidden_norm")}
        weights |= {"norm.weight": torch.ones(size), "lm_head.weight": weight(vocabulary, size)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def recording(llm: LLM) -> Scripted:
    """A drafter for our own loop that proposes what vLLM's drafter does from now on, behind the same tokens."""
    judge = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner.judge_decoding
    drafts: dict[tuple[int, ...], list[int]] = {}
    make = judge.round

    def watched(state: Any) -> Any:
        this = make(state)
        rest = this.draft_ids.tolist()
        for name, count in zip(this.names, this.counts, strict=True):
            request = judge.runner.requests[name]
            drafts[*request.prompt_token_ids, *request.output_token_ids] = rest[:count]
            del rest[:count]
        return this

    judge.round = watched

    def script(ids: list[int], count: int) -> Sequence[int]:
        return drafts.get(tuple(ids), [])[:count]

    return Scripted(script)
