"""Every causal LM class of transformers, made as small as its configuration allows."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCAB_SIZE = 60
LARGEST = 30_000_000
"""More weights than this are not small: the configuration has a size under a name that is not known here."""

_SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "n_embd": 32, "d_model": 32, "word_embed_proj_dim": 16,
    "intermediate_size": 48, "ffn_dim": 48, "n_inner": 48, "decoder_ffn_dim": 48,
    "num_hidden_layers": 4, "n_layer": 4, "n_layers": 4, "num_layers": 4, "decoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "decoder_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 256, "n_positions": 256, "max_seq_len": 256,
    "sliding_window": 6, "attention_window": 6, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "n_routed_experts": 4,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "n_group": 1, "topk_group": 1,
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "first_k_dense_replace": 1, "is_decoder": True,
}  # fmt: skip

_MIXED = ["mamba", "attention", "mamba", "attention"]
_SSM = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
_SHARED = {
    "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB_SIZE,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
_LATENT = {"num_key_value_heads": 4, "head_dim": 4}
_OWN: dict[str, dict[str, Any]] = {
    "axk1": {"num_key_value_heads": 4},
    "bailing_hybrid": {
        "layer_group_size": 2, "num_key_value_heads": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
        "n_shared_experts": 1, "topk_group": 1,
    },
    "bamba": {**_SSM, "attn_layer_indices": [1, 3]},
    "big_bird": {"attention_type": "original_full"},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "deepseek_v32": {"num_key_value_heads": 4},
    "deepseek_v4": {"num_key_value_heads": 1},
    "falcon": {"alibi": True, "new_decoder_architecture": False, "multi_query": True, "num_kv_heads": 1},
    "falcon_h1": {
        "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1,
        "num_hidden_layers": 2, "lm_head_multiplier": 0.5, "embedding_multiplier": 2.0,
    },
    "gemma3n_text": {**_SHARED, "laurel_rank": 4, "activation_sparsity_pattern": 0.0},
    "gemma4_text": _SHARED,
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "glm_moe_dsa": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": 6},
    "gpt_neox": {"rotary_pct": 0.5},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {**_SSM, "layer_types": _MIXED, "shared_intermediate_size": 16},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 0, "mamba_d_state": 4, "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "kimi_linear": {
        "layer_types": ["linear_attention", "full_attention"] * 2, "linear_head_dim": 8, "linear_num_heads": 4,
        "num_key_value_heads": 4, "q_lora_rank": None,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "lfm3": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4_text": {
        "attention_chunk_size": 6, "intermediate_size_mlp": 48, "moe_layers": [], "no_rope_layers": [1, 1, 1, 0],
    },
    "longcat_flash": {"num_key_value_heads": 4},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 4, "n_groups": 1},
    "minicpm3": {**_LATENT, "scale_emb": 1, "scale_depth": 1},
    "moshi": {"sliding_window": 200},
    "opt": {"do_layer_norm_before": False},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2},
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "indexed_attention"] * 2, "hc_lowrank": 4, "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "indexer_n_heads": 2,
        "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8, "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 6, "block_types": ["recurrent", "attention"]},
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2, "mamba_d_state": 4, "n_mamba_heads": 8,
        "num_key_value_heads": 4,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 8},
}  # fmt: skip
"""What some families need besides, or what makes their special layers show."""

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2, full attention": ("qwen2", {"use_sliding_window": False}),
    "llama, dynamic rope": ("llama", {
        "max_position_embeddings": 32, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0},
    }),
    "llama, YaRN": ("llama", {
        "max_position_embeddings": 32, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0,
                                                            "original_max_position_embeddings": 32},
    }),
    "phi3, longrope": ("phi3", {
        "sliding_window": None, "original_max_position_embeddings": 32,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [4.0] * 4,
                            "short_factor": [1.0] * 4, "original_max_position_embeddings": 32},
    }),
    "bert, an encoder": ("bert", {"is_decoder": False}),
}  # fmt: skip
"""Configurations of a family that read otherwise than its usual one."""


def names() -> list[str]:
    """All families, and the variants."""
    return [*sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES), *VARIANTS]


def build(name: str) -> PreTrainedModel:
    """A tiny random model of a family, whose logits are far enough apart that rounding changes no choice.

    Raises:
        ValueError: it is not small. Anything else: the family's code does not take the configuration.
    """
    family, variant = VARIANTS.get(name, (name, {}))
    kind = CONFIG_MAPPING[family]
    known = set(inspect.signature(kind.__init__).parameters)
    known.update(field for base in kind.__mro__ for field in getattr(base, "__annotations__", {}))
    aliases = getattr(kind, "attribute_map", {})
    given = {k: v for k, v in _SMALL.items() if k in known or k in aliases}
    for alias, other in aliases.items():  # never both
        if alias in given and other in given:
            del given[alias]
    given |= _OWN.get(family, {}) | variant
    torch.manual_seed(0)
    config = kind(**given)
    # On no device first: some families are large in a way that is not known here.
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"it has {size:,} weights")
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    # The loop is looked at, not what some families add to it by their generation configurations.
    model.generation_config = GenerationConfig(pad_token_id=0)
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.std() < 0.15:
            parameter.normal_(0, 0.3)
    return model
