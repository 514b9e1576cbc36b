"""Random pairs of Llama shapes, and a way of decoding with them from ids to ids: what gpu.py and growth.py share.

Time does not depend on what weights and tokens are, so that shapes of published models need no download.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from judge_decoding.core.rounds import Round
from judge_decoding.decoding.engines import Engine
from judge_decoding.decoding.lengths import DraftLength, Fixed
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.request import Request
from judge_decoding.decoding.sampling import Sampler, SamplingParams
from judge_decoding.evaluation.bench.contenders import BatchAnswers, ContenderLabel, synchronize
from judge_decoding.rules import Exact, VerificationRule

# From the models' published config.json. Both were made for 131072 positions; only the rotation's table depends on it.
LLAMA_1B = {
    "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
}  # fmt: skip
LLAMA_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}  # fmt: skip
TINY = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 1024, "initializer_range": 0.5,
}  # fmt: skip


def tell(message: str) -> None:
    """Say on stderr what takes a while."""
    tqdm.write(message, file=sys.stderr)


def llama(shape: dict[str, Any], device: torch.device, dtype: torch.dtype, seed: int) -> LlamaForCausalLM:
    """A Llama of this shape with random weights, made on the device; none of its tokens ends an answer."""
    torch.manual_seed(seed)
    config = LlamaConfig(**shape, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    with device:
        model: LlamaForCausalLM = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    assert model.generation_config is not None
    model.generation_config.pad_token_id = 0
    return model.eval().requires_grad_(False)


def prompts(count: int, length: int, vocab_size: int, device: torch.device, seed: int = 0) -> list[Tensor]:
    """Random prompts, the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocab_size, (count, length), generator=generator)
    return list(ids.to(device))


@dataclass(frozen=True, slots=True)
class Loop:
    """Our own loop, a `judge_decoding.evaluation.bench.contenders.Contender`.

    Attributes:
        label: names its row in the tables.
        engine: the models in a back end.
        max_new_tokens: token budget.
        rule: who decides.
        rounds: it ends after so many; None for the budget alone.
        policy: of the draft length, made for each prompt.
    """

    label: ContenderLabel
    engine: Engine
    max_new_tokens: int
    rule: VerificationRule = field(default_factory=Exact)
    rounds: int | None = None
    policy: Callable[[int], DraftLength] = Fixed

    @property
    def same_tokens(self) -> bool:
        """False: random models say nothing that could be compared."""
        return False

    def answer(self, prompts: list[Tensor]) -> BatchAnswers:
        """Decode prompts [T_i] together."""
        device, count = self.engine.target.model.device, self.label.num_draft_tokens
        rows = []
        for ids in prompts:
            sampler, length = Sampler(SamplingParams(), device), self.policy(max(count, 1))
            rows.append(Request(ids, self.rule, sampler, self.max_new_tokens, length=length))
        found: list[list[Round]] = [[] for _ in rows]
        synchronize(device)
        begin = time.perf_counter()
        events = decode(self.engine.target, self.engine.drafter() if count else None, rows)
        for number, event in events:
            found[number].append(event)
            if number == len(rows) - 1 and len(found[number]) == self.rounds:
                events.close()  # memory is free from here on
                break
        seconds = time.perf_counter() - begin
        tokens = tuple(tuple(token for event in row for token in event.token_ids) for row in found)
        return BatchAnswers(tokens, seconds, max(map(len, found)), tuple(map(tuple, found)))
