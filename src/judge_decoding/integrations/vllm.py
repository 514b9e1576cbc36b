"""Judge decoding inside vLLM: a plugin that vLLM loads by itself, and that one flag turns on.

``vllm serve TARGET --speculative-config {...} --additional-config '{"judge": {"head": "HEAD"}}'``

vLLM has no hook for who decides about draft tokens. This file is all that reaches into it: where a server's
configuration names a judge, the functions in `_PATCHES*` are wrapped, after their names and parameters were compared
with those this was written for. vLLM drafts, schedules and verifies as ever. Right before its verification the rule
looks at the draft tokens, and a token that it rescues gets a logit so high that standard verification keeps it; nothing
is rescued that a grammar or a list of banned tokens forbids. Without a judge in the configuration nothing is touched
but the three functions (`_GATES`) that look for it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from typing import Any

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.vllm_judge import (
    Round,
    RowsRound,
    RunnerJudge,
    check_server,
    current_round,
    during,
    log,
    wants_logprobs,
)
from judge_decoding.integrations.vllm_settings import KEY, Bench, Settings

VERSIONS = ("0.32",)
"""The versions of vLLM, up to their second number, that this was written for and tested with."""


def register() -> None:
    """The entry point: have the configuration looked at wherever it arrives, in each of vLLM's processes."""
    for gate, wrap in _GATES.items():
        try:
            _wrap(gate, wrap)
        except (ImportError, AttributeError):
            log.warning("judge-decoding does not know this version of vLLM (it has no %s).", gate)


# --- What is wrapped -------------------------------------------------------------------------------------------------


def _after_create_engine_config(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    config = original(*args, **kwargs)
    if (given := _given(config)) is not None:
        _install(config)
        check_server(config, _bench(Settings.read(given)))
    return config


def _before_init(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Of a worker or a scheduler, which are made with the configuration."""
    bound = inspect.signature(original).bind(self, *args, **kwargs)
    if _given(config := bound.arguments["vllm_config"]) is not None:
        _install(config)
    return original(self, *args, **kwargs)


def _after_loading(original: Callable[..., Any], self: Any) -> Any:
    """The end of loading the models: the judge is made, and its hidden states are asked for."""
    found = original(self)
    if (given := _given(self.vllm_config)) is not None and hasattr(self, "rejection_sampler"):
        self.judge_decoding = RunnerJudge(self, Settings.read(given))
    return found


def _around_sample_tokens(original: Callable[..., Any], self: Any, grammar_output: Any) -> Any:
    judge, state = getattr(self, "judge_decoding", None), self.execute_model_state
    if judge is None or state is None or state.spec_decode_metadata is None:
        return original(self, grammar_output)
    with during(judge.round(state)) as this:
        return this.tell(original(self, grammar_output))


def _after_logits_processors(
    original: Callable[..., Any], self: Any, logits: Any, sampling_metadata: Any, metadata: Any
) -> Any:
    logits = original(self, logits, sampling_metadata, metadata)
    if isinstance(this := current_round(), Round):
        this.see_constraints(logits)
    return logits


def _around_rejection_sample(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not isinstance(this := current_round(), Round):
        return original(*args, **kwargs)
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    this.lift(given["target_logits"], given["draft_probs"])
    output = original(*args, **kwargs)
    this.count(output)
    return output


def _around_propose(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Drafters get the auxiliary states that they asked for themselves, and not the judge's."""
    judge = getattr(self, "judge_decoding", None)
    if judge is None or judge.aux is None:
        return original(self, *args, **kwargs)
    bound = inspect.signature(original).bind(self, *args, **kwargs)
    states = bound.arguments["aux_hidden_states"]
    bound.arguments["aux_hidden_states"] = judge.aux.of_drafter(states)
    self.use_aux_hidden_state_outputs = bool(judge.aux.drafter)
    try:
        return original(*bound.args, **bound.kwargs)
    finally:
        self.use_aux_hidden_state_outputs = True


def _after_loading_v2(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    found = original(self, *args, **kwargs)
    if (given := _given(self.vllm_config)) is not None and self.rejection_sampler is not None:
        self.judge_decoding = RunnerJudge(self, Settings.read(given))
    return found


def _after_add_requests_v2(original: Callable[..., Any], self: Any, scheduler_output: Any) -> Any:
    found = original(self, scheduler_output)
    if judge := getattr(self, "judge_decoding", None):
        judge.remember(scheduler_output.scheduled_new_reqs, self.req_states.req_id_to_index)
    return found


def _around_sample_v2(
    original: Callable[..., Any], self: Any, hidden_states: Any, input_batch: Any, grammar_output: Any
) -> Any:
    judge: RunnerJudge | None = getattr(self, "judge_decoding", None)
    this = judge.rows_round(hidden_states, input_batch) if judge and input_batch.num_draft_tokens else None
    if judge is None or this is None:
        return original(self, hidden_states, input_batch, grammar_output)
    judge.latest = this
    with during(this):
        return original(self, hidden_states, input_batch, grammar_output)


def _around_sample_tokens_v2(original: Callable[..., Any], self: Any, grammar_output: Any) -> Any:
    if not (judge := getattr(self, "judge_decoding", None)):
        return original(self, grammar_output)
    judge.latest = None
    output = original(self, grammar_output)
    return output if judge.latest is None else judge.latest.tell(output)


def _around_rejection_sample_v2(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not isinstance(this := current_round(), RowsRound):
        return original(*args, **kwargs)
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    rescued = this.lift(given["target_logits"], given["draft_sampled"], len(given["cu_num_logits"]) - 1)
    sampled, num_sampled = original(*args, **kwargs)
    this.count(rescued, num_sampled)
    return sampled, num_sampled


def _before_validation(original: Callable[..., Any], self: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
    """Of a request, in the server's front end: a refusal becomes an answer with status 400."""
    if (given := _given(self.vllm_config)) is not None and hasattr(params, "temperature"):
        told = _bench(Settings.read(given)).refusal(
            params.extra_args, logprobs=wants_logprobs(params), greedy=params.temperature == 0
        )
        if told is not None:
            from vllm.exceptions import VLLMValidationError  # noqa: PLC0415  (an extra)

            raise VLLMValidationError(told, parameter="extra_args")
    return original(self, params, *args, **kwargs)


def _around_update(original: Callable[..., Any], self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
    """The scheduler's statistics, with the rescued tokens of the requests that still run."""
    told = getattr(model_runner_output, "judge_rescued", None) or {}
    alive = {name for name in told if (one := self.requests.get(name)) is not None and not one.is_finished()}
    outputs = original(self, scheduler_output, model_runner_output)
    for output in outputs.values():
        stats = output.scheduler_stats
        if stats is not None and stats.spec_decoding_stats is not None:
            rescued = sum(told[name] for name in alive)
            stats.spec_decoding_stats = _stats_class()(**vars(stats.spec_decoding_stats), num_rescued_tokens=rescued)
    return outputs


@dataclass(frozen=True, slots=True)
class _Patch:
    """A function of vLLM, the parameters it is known to have, and what is put around it."""

    place: str
    parameters: tuple[str, ...]
    wrap: Callable[..., Any]


_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_SAMPLER = "vllm.v1.sample.rejection_sampler"
_PATCHES_V1 = (
    _Patch(f"{_RUNNER}._setup_eagle3_aux_hidden_state_outputs", ("self",), _after_loading),
    _Patch(f"{_RUNNER}.sample_tokens", ("self", "grammar_output"), _around_sample_tokens),
    _Patch(
        f"{_RUNNER}.propose_draft_token_ids",
        ("self", "scheduler_output", "sampled_token_ids", "sampling_metadata", "hidden_states", "sample_hidden_states",
         "aux_hidden_states", "spec_decode_metadata", "common_attn_metadata", "slot_mappings"),
        _around_propose,
    ),
    _Patch(
        f"{_SAMPLER}:RejectionSampler.apply_logits_processors",
        ("self", "logits", "sampling_metadata", "metadata"),
        _after_logits_processors,
    ),
    _Patch(
        f"{_SAMPLER}:rejection_sample",
        ("draft_token_ids", "num_draft_tokens", "max_spec_len", "cu_num_draft_tokens", "draft_probs", "target_logits",
         "bonus_token_ids", "sampling_metadata", "synthetic_mode", "synthetic_conditional_rates", "use_fp64_gumbel"),
        _around_rejection_sample,
    ),
)  # fmt: skip
_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
_PATCHES_V2 = (
    _Patch(f"{_RUNNER_V2}.load_model", ("self", "load_dummy_weights", "args", "model", "kwargs"), _after_loading_v2),
    _Patch(f"{_RUNNER_V2}.add_requests", ("self", "scheduler_output"), _after_add_requests_v2),
    _Patch(f"{_RUNNER_V2}.sample", ("self", "hidden_states", "input_batch", "grammar_output"), _around_sample_v2),
    _Patch(f"{_RUNNER_V2}.sample_tokens", ("self", "grammar_output"), _around_sample_tokens_v2),
    _Patch(
        "vllm.v1.worker.gpu.spec_decode.rejection_sampler:rejection_sample",
        ("target_logits", "draft_logits", "draft_sampled", "cu_num_logits", "pos", "idx_mapping",
         "expanded_idx_mapping", "expanded_local_pos", "temperature", "seed", "num_speculative_steps",
         "synthetic_conditional_rates", "use_fp64", "use_block_verification", "contexts", "watermarking",
         "watermarking_skip_mask", "watermark_key"),
        _around_rejection_sample_v2,
    ),
)  # fmt: skip
_PATCHES = (
    _Patch(
        "vllm.v1.engine.input_processor:InputProcessor._validate_params",
        ("self", "params", "supported_tasks"),
        _before_validation,
    ),
    _Patch(
        "vllm.v1.core.sched.scheduler:Scheduler.update_from_output",
        ("self", "scheduler_output", "model_runner_output"),
        _around_update,
    ),
)
_GATES: dict[str, Callable[..., Any]] = {
    "vllm.engine.arg_utils:EngineArgs.create_engine_config": _after_create_engine_config,
    "vllm.v1.worker.worker_base:WorkerBase.__init__": _before_init,
    "vllm.v1.core.sched.scheduler:Scheduler.__init__": _before_init,
}


def _install(config: Any) -> None:
    """Wrap what `_PATCHES` and, for the model runner that ``config`` has, its own name, once in a process.

    Raises:
        JudgeDecodingError: this vLLM is not one that this was written for.
    """
    import vllm  # noqa: PLC0415  (an extra)

    if ".".join(vllm.__version__.split(".")[:2]) not in VERSIONS:
        raise _unknown_vllm(f"this is {vllm.__version__}")
    patches = (*_PATCHES, *(_PATCHES_V2 if config.use_v2_model_runner else _PATCHES_V1))
    for patch in patches:
        try:
            _, _, found = _find(patch.place)
        except (ImportError, AttributeError) as error:
            raise _unknown_vllm(f"it has no {patch.place}") from error
        if (names := tuple(inspect.signature(found).parameters)) != patch.parameters:
            raise _unknown_vllm(f"{patch.place} takes {', '.join(names)}")
    for patch in patches:
        _wrap(patch.place, patch.wrap)
    from vllm.v1.metrics.stats import SchedulerStats  # noqa: PLC0415  (an extra)

    SchedulerStats.__annotations__["spec_decoding_stats"] = _stats_class() | None


def _unknown_vllm(why: str) -> JudgeDecodingError:
    return JudgeDecodingError(
        f"judge-decoding's plugin is for vLLM {' and '.join(VERSIONS)}, and {why}; install such a version, or "
        'another of judge-decoding, or leave "judge" out of --additional-config.'
    )


def _find(place: str) -> tuple[Any, str, Callable[..., Any]]:
    """What has the function, the function's name there, and the function."""
    module, _, path = place.partition(":")
    holder: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for owner in owners:
        holder = getattr(holder, owner)
    return holder, name, getattr(holder, name)


def _wrap(place: str, wrapper: Callable[..., Any]) -> None:
    holder, name, original = _find(place)
    if getattr(original, "judge_decoding", False):
        return

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    wrapped.judge_decoding = True  # type: ignore[attr-defined]
    setattr(holder, name, wrapped)


_bench = functools.cache(Bench.of)  # the front end asks it about each request


@functools.cache
def _stats_class() -> Any:
    from vllm.v1.spec_decode.metrics import SpecDecodingStats  # noqa: PLC0415  (an extra)

    return make_dataclass("JudgedSpecDecodingStats", [("num_rescued_tokens", int, 0)], bases=(SpecDecodingStats,))


# --- The server's configuration --------------------------------------------------------------------------------------


def _given(config: Any) -> object:
    """What the configuration says of a judge; None if there is none."""
    additional = config.additional_config
    return additional.get(KEY) if isinstance(additional, dict) else None
