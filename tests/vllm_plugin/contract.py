"""What a release of vLLM offers, read from its source without installing it, against what the plugin relies on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from judge_decoding.integrations.vllm.versions import KnownVersion

READS: dict[str, tuple[str, ...]] = {
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner": (
        "device", "execute_model_state", "input_batch", "requests", "use_aux_hidden_state_outputs", "vllm_config",
    ),
    "vllm.v1.worker.gpu.model_runner:GPUModelRunner": ("device", "req_states", "rejection_sampler", "vllm_config"),
    "vllm.v1.worker.gpu_model_runner:ExecuteModelState": (
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
    "vllm.v1.core.sched.scheduler:Scheduler": ("has_requests", "requests"),
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
"""The attributes that the plugin reads from vLLM's classes, in each version; none for functions."""


def moved(sources: Path, known: KnownVersion) -> list[str]:
    """What differs between the vLLM under ``sources`` and what the plugin relies on in a version, a line for each."""
    found = []
    for symbol, parameters in known.signatures.items():
        node = find(sources, symbol)
        if not isinstance(node, ast.FunctionDef):
            found.append(f"{symbol} is gone")
        elif (its := parameters_of(node)) != parameters:
            found.append(f"{symbol} takes {', '.join(its)} and not {', '.join(parameters)}")
    for symbol, methods in known.abstract.items():
        node = find(sources, symbol)
        if not isinstance(node, ast.ClassDef):
            found.append(f"{symbol} is gone")
        elif (names := tuple(sorted(abstract(node)))) != methods:
            found.append(f"{symbol} has the abstract methods {', '.join(names)} and not {', '.join(methods)}")
    for symbol, names in READS.items():
        node = find(sources, symbol)
        if node is None:
            found.append(f"{symbol} is gone")
        else:
            missing = sorted(set(names) - (attributes(sources, symbol) if isinstance(node, ast.ClassDef) else set()))
            found += [f"{symbol} has no {name}" for name in missing]
    return found


def find(sources: Path, symbol: str) -> ast.AST | None:
    """The definition of ``module:Class.method``, also where the module only imports it."""
    module, _, path = symbol.partition(":")
    tree = parse(sources, module)
    first, *rest = path.split(".")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == first:
            return member(node, rest)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ImportFrom) and node.module and any(one.name == first for one in node.names):
            return find(sources, f"{node.module}:{path}")
    return None


def member(node: ast.AST, path: list[str]) -> ast.AST | None:
    """What ``path`` leads to inside a class."""
    if not path:
        return node
    own = next((one for one in ast.iter_child_nodes(node) if getattr(one, "name", None) == path[0]), None)
    return own and member(own, path[1:])


def parse(sources: Path, module: str) -> ast.Module | None:
    """The syntax tree of a module."""
    stem = sources / module.replace(".", "/")
    file = next((one for one in (stem.with_suffix(".py"), stem / "__init__.py") if one.is_file()), None)
    return None if file is None else ast.parse(file.read_text(encoding="utf-8"))


def parameters_of(node: ast.FunctionDef) -> tuple[str, ...]:
    """The parameters in the order of `inspect.signature`."""
    given = node.args
    named = [*given.posonlyargs, *given.args, *([given.vararg] if given.vararg else []), *given.kwonlyargs]
    return tuple(one.arg for one in [*named, *([given.kwarg] if given.kwarg else [])])


def abstract(node: ast.ClassDef) -> Iterator[str]:
    """The abstract methods that a class defines."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and any("abstractmethod" in ast.unparse(d) for d in one.decorator_list):
            yield one.name


def attributes(sources: Path, symbol: str) -> set[str]:
    """What a class, or a base of it, defines, declares or assigns to itself."""
    node, module = find(sources, symbol), symbol.partition(":")[0]
    if not isinstance(node, ast.ClassDef):
        return set()
    found: set[str] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.FunctionDef):
            found.add(one.name)
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            found.add(one.target.id)
        elif isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store):
            found.add(one.attr)
    for base in node.bases:
        found |= attributes(sources, f"{module}:{ast.unparse(base)}")
    return found
