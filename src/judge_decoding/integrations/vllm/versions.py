"""What the plugin relies on in each version of vLLM: parameters of functions, abstract methods of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version of vLLM: the parameters of every wrapped function, the abstract methods of every subclassed class."""

    signatures: Names
    abstract: Names


_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
_SAMPLER = "vllm.v1.sample.rejection_sampler"
_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_OUTPUT = "vllm.v1.outputs:AsyncModelRunnerOutput"
_SIGNATURES: Names = {
    "vllm.v1.engine.input_processor:InputProcessor._validate_params": ("self", "params", "supported_tasks"),
    f"{_SCHEDULER}.update_from_output": ("self", "scheduler_output", "model_runner_output"),
    f"{_SCHEDULER}.update_draft_token_ids": ("self", "draft_token_ids"),
    "vllm.v1.engine.core:freeze_gc_heap": (),
    "vllm.v1.engine.output_processor:OutputProcessor.process_outputs": (
        "self", "engine_core_outputs", "engine_core_timestamp", "iteration_stats", "weight_version",
    ),
    "vllm.v1.metrics.stats:RequestSpecDecodeMetrics.to_dict": ("self",),
    f"{_RUNNER}._setup_eagle3_aux_hidden_state_outputs": ("self",),
    f"{_RUNNER}.sample_tokens": ("self", "grammar_output"),
    f"{_RUNNER}.propose_draft_token_ids": (
        "self", "scheduler_output", "sampled_token_ids", "sampling_metadata", "hidden_states", "sample_hidden_states",
        "aux_hidden_states", "spec_decode_metadata", "common_attn_metadata", "slot_mappings",
    ),
    f"{_SAMPLER}:RejectionSampler.apply_logits_processors": ("self", "logits", "sampling_metadata", "metadata"),
    f"{_SAMPLER}:rejection_sample": (
        "draft_token_ids", "num_draft_tokens", "max_spec_len", "cu_num_draft_tokens", "draft_probs", "target_logits",
        "bonus_token_ids", "sampling_metadata", "synthetic_mode", "synthetic_conditional_rates", "use_fp64_gumbel",
    ),
    f"{_RUNNER_V2}.load_model": ("self", "load_dummy_weights", "args", "model", "kwargs"),
    f"{_RUNNER_V2}.add_requests": ("self", "scheduler_output"),
    f"{_RUNNER_V2}.sample": ("self", "hidden_states", "input_batch", "grammar_output"),
    f"{_RUNNER_V2}.sample_tokens": ("self", "grammar_output"),
    "vllm.v1.worker.gpu.spec_decode.rejection_sampler:rejection_sample": (
        "target_logits", "draft_logits", "draft_sampled", "cu_num_logits", "pos", "idx_mapping",
        "expanded_idx_mapping", "expanded_local_pos", "temperature", "seed", "num_speculative_steps",
        "synthetic_conditional_rates", "use_fp64", "use_block_verification", "contexts", "watermarking",
        "watermarking_skip_mask", "watermark_key",
    ),
}  # fmt: skip
_FLY = ("fly_window_size", "fly_entropy_threshold", "fly_entropy_top_k")  # the lossy verification of vLLM itself
_WITH_FLY: Names = {
    symbol: (*parameters, *_FLY) if symbol.endswith(":rejection_sample") else parameters
    for symbol, parameters in _SIGNATURES.items()
}
VERSIONS: Mapping[str, KnownVersion] = {
    "0.32": KnownVersion(_SIGNATURES, {_OUTPUT: ("get_output",)}),
    "0.33": KnownVersion(_WITH_FLY, {_OUTPUT: ("get_kv_connector_output", "get_output")}),
}
"""The supported versions, by major and minor number."""
