"""vLLM 0.32: the signatures, abstract methods and attributes that the plugin relies on."""

from __future__ import annotations

_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
_SAMPLER = "vllm.v1.sample.rejection_sampler"
_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
SIGNATURES: dict[str, tuple[str, ...]] = {
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
ABSTRACT: dict[str, tuple[str, ...]] = {"vllm.v1.outputs:AsyncModelRunnerOutput": ("get_output",)}

READS: dict[str, tuple[str, ...]] = {
    _RUNNER: (
        "device", "execute_model_state", "input_batch", "requests", "use_aux_hidden_state_outputs", "vllm_config",
    ),
    _RUNNER_V2: ("device", "req_states", "rejection_sampler", "vllm_config"),
    f"{_RUNNER.partition(':')[0]}:ExecuteModelState": (
        "aux_hidden_states", "sample_hidden_states", "scheduler_output", "spec_decode_metadata",
    ),
    "vllm.v1.worker.gpu_input_batch:CachedRequestState": ("output_token_ids", "prompt_token_ids", "sampling_params"),
    "vllm.v1.spec_decode.metadata:SpecDecodeMetadata": (
        "draft_token_ids", "logits_indices", "num_draft_tokens", "target_logits_indices",
    ),
    "vllm.v1.worker.gpu.input_batch:InputBatch": (
        "cu_num_logits_np", "logits_indices", "num_draft_tokens", "req_ids",
    ),
    "vllm.v1.worker.gpu.states:RequestState": ("req_id_to_index",),
    "vllm.v1.request:Request": ("is_finished", "sampling_params", "spec_token_ids"),
    "vllm.v1.core.sched.output:NewRequestData": ("req_id", "sampling_params"),
    "vllm.v1.core.sched.output:SchedulerOutput": ("num_scheduled_tokens", "scheduled_new_reqs"),
    "vllm.v1.engine:EngineCoreOutput": ("finish_reason", "kv_transfer_params", "request_id", "spec_decode_metrics"),
    "vllm.v1.engine.core:EngineCore": (
        "_initialize_kv_caches", "add_request", "batch_queue", "post_step", "request_block_hasher", "scheduler",
        "step_fn", "vllm_config",
    ),
    _SCHEDULER: ("has_requests", "requests"),
    "vllm.v1.engine:EngineCoreOutputs": ("outputs", "scheduler_stats"),
    "vllm.v1.metrics.stats:SchedulerStats": ("spec_decoding_stats",),
    "vllm.v1.metrics.loggers:AggregateStatLoggerBase": ("log", "log_engine_initialized", "record"),
    "vllm.v1.outputs:DraftTokenIds": ("req_ids",),
    "vllm.v1.spec_decode.metrics:SpecDecodingStats": ("num_accepted_tokens",),
    "vllm.config.vllm:VllmConfig": (
        "additional_config", "cache_config", "lora_config", "model_config", "parallel_config", "scheduler_config",
        "speculative_config", "use_v2_model_runner",
    ),
    "vllm.config.speculative:SpeculativeConfig": (
        "draft_sample_method", "enable_adaptive_verification", "method", "rejection_sample_method",
    ),
    "vllm.config.parallel:ParallelConfig": (
        "data_parallel_size", "distributed_executor_backend", "enable_batch_sharded_sampling",
        "pipeline_parallel_size",
    ),
    "vllm.config.model:ModelConfig": (
        "architectures", "hf_text_config", "is_diffusion", "max_model_len", "model", "quantization",
    ),
    "vllm.config.cache:CacheConfig": ("cache_dtype",),
    "vllm.config.scheduler:SchedulerConfig": ("async_scheduling",),
    "vllm.exceptions:VLLMValidationError": (),
    "vllm.sampling_params:SamplingParams": ("extra_args", "logprob_token_ids", "logprobs", "temperature"),
    "vllm.tokenizers.registry:cached_tokenizer_from_config": (),
}  # fmt: skip
"""The attributes that are read from vLLM's classes; none for functions."""
