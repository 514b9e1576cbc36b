"""How far a model's layers and a head's scores are from those of the same model, stored otherwise or tuned.

It is by these that `Probe` and `StoredScores` tell models. Without a head, one with random weights is scored.

python benchmarks/probe.py MODEL [--judge HEAD]       (with peft and torchao installed)
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup
from transformers import AutoModelForCausalLM, PreTrainedModel

from judge_decoding.core.hidden import HiddenSource
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.probe import allowed, difference, probe_model
from judge_decoding.judge.target import bare, target_info

PLACE = HiddenSource()


def lora(model: nn.Module, scale: float | None = None) -> nn.Module:
    """With an adapter on queries and values; its second matrix is random of this scale, or 0."""
    torch.manual_seed(3)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if scale is not None and "lora_B" in name:
            parameter.data.normal_(0, scale)
    return adapted.eval()


def tuned(model: nn.Module, rate: float, steps: int) -> nn.Module:
    """After so many steps on random tokens."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        ids = torch.randint(3, 2000, (2, 24), generator=generator)
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model


def quantized(model: nn.Module, config: AOBaseConfig) -> nn.Module:
    """By torchao."""
    quantize_(model, config)
    return model


def shuffled(model: nn.Module) -> nn.Module:
    """Other weights of the same sizes: each matrix in another order."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.data = parameter.data.flatten()[order].reshape(parameter.shape)
    return model


CHANGES: dict[str, Callable[[Any], Any]] = {
    "float16": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "int8 weights (torchao)": lambda m: quantized(m, Int8WeightOnlyConfig()),
    "int4 weights in groups of 32 (torchao)": lambda m: quantized(
        m, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32))
    ),
    "int8, dynamic (torch)": lambda m: torch.ao.quantization.quantize_dynamic(m, {nn.Linear}, dtype=torch.qint8),
    "LoRA, random, B of 0.005": lambda m: lora(m, 0.005),
    "LoRA, random, B of 0.02": lambda m: lora(m, 0.02),
    "LoRA, random, B of 0.1": lambda m: lora(m, 0.1),
    "LoRA, 20 steps at 1e-4": lambda m: tuned(lora(m), 1e-4, 20),
    "LoRA, 100 steps at 2e-4": lambda m: tuned(lora(m), 2e-4, 100),
    "all weights, 20 steps at 1e-5": lambda m: tuned(m, 1e-5, 20),
    "all weights, 20 steps at 1e-4": lambda m: tuned(m, 1e-4, 20),
    "all weights in another order": shuffled,
}


def random_head(model: PreTrainedModel) -> JudgeHead:
    """A head with random weights on the states after the norm, whose scores vary by about one log-odd."""
    torch.manual_seed(0)
    head = JudgeHead(JudgeHeadConfig(target=target_info(model), norm="after"))
    head.linear.weight.normal_(0, model.config.get_text_config().hidden_size ** -0.5)
    head.linear.bias.zero_()
    return head


def main() -> None:
    """Print the largest difference of a layer, and that of the scores, for each change."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--judge")
    args = parser.parse_args()
    name = args.model
    warnings.simplefilter("ignore")

    def load() -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()

    model = load()
    own = probe_model(model, PLACE)
    head = random_head(model) if args.judge is None else JudgeHead.from_pretrained(args.judge, model)
    head.store_scores(model)
    stored = head.config.scores
    assert stored is not None
    for what, change in CHANGES.items():
        changed = bare(change(load()))
        its = probe_model(changed, PLACE, own.ids)
        scores = head.scores_on(changed, stored.prompts)
        print(
            f"{what:40} layer {difference(own, its):7.2%}, rounding explains {allowed(own, its):.1%}; "
            f"scores {stored.difference(scores):7.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
