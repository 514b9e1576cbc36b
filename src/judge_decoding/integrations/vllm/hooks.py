"""Hooks around vLLM's functions.

vLLM drafts, schedules and verifies as usual. Right before its verification, the rule checks the draft tokens and raises
the logit of each rescued token so far that standard verification keeps it. Tokens forbidden by a grammar or by a list
of banned tokens are never rescued. Without a judge in the configuration, only the four functions of `GATES` are
wrapped, which check for one.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import make_dataclass
from typing import Any

from judge_decoding.integrations.vllm import scores
from judge_decoding.integrations.vllm.checks import check_server, wants_logprobs, why_unguarded
from judge_decoding.integrations.vllm.patching import Hook, install
from judge_decoding.integrations.vllm.runner import (
    FlatVerification,
    RowsVerification,
    RunnerJudge,
    attach,
    current_round,
    during,
)
from judge_decoding.serving.server_rules import KEY, ServerRules, ServerSettings, speculates


def after_create_engine_config(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Check a new configuration, and wrap the rest of vLLM if it has a judge."""
    config = original(*args, **kwargs)
    if (given := judge_of(config)) is not None:
        install_for(config)
        check_server(config, _server_rules(ServerSettings.read(given)))
    return config


def before_init(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Wrap the rest of vLLM in the process of a worker or a scheduler, if the configuration has a judge."""
    bound = inspect.signature(original).bind(self, *args, **kwargs)
    if judge_of(config := bound.arguments["vllm_config"]) is not None:
        install_for(config)
    return original(self, *args, **kwargs)


def after_initialize_kv_caches(original: Callable[..., Any], self: Any, vllm_config: Any) -> Any:
    """Remember the engine that is being made, if the configuration has a judge."""
    found = original(self, vllm_config)
    if judge_of(vllm_config) is not None:
        install_for(vllm_config)
        scores.start(self)
    return found


def before_freeze(original: Callable[..., Any]) -> Any:
    """Compare the head's scores when the engine is complete; this function of vLLM is called then."""
    engine = scores.take_started()
    if engine is not None and (rules := rules_of(engine.scheduler)) is not None and rules.head is not None:
        scores.check_scores(engine, rules.head)
    return original()


def after_loading(original: Callable[..., Any], self: Any) -> Any:
    """Create the judge once the models are loaded, and request its hidden states (model runner V1)."""
    found = original(self)
    if (given := judge_of(self.vllm_config)) is not None and hasattr(self, "rejection_sampler"):
        self.judge_decoding = RunnerJudge(self, ServerSettings.read(given))
    return found


def around_sample_tokens(original: Callable[..., Any], self: Any, grammar_output: Any) -> Any:
    """Verify the drafts of a step with the judge (model runner V1)."""
    judge: RunnerJudge | None = getattr(self, "judge_decoding", None)
    state = self.execute_model_state
    if judge is None or state is None:
        return original(self, grammar_output)
    metadata = state.spec_decode_metadata
    if metadata is None or not any(metadata.num_draft_tokens):
        return attach(original(self, grammar_output), "judge_scores", judge.scored(state))
    with during(judge.round(state)) as this:
        return this.add_counts(original(self, grammar_output))


def after_logits_processors(
    original: Callable[..., Any], self: Any, logits: Any, sampling_metadata: Any, metadata: Any
) -> Any:
    """Record which tokens grammars and lists of banned tokens forbid, before top-k and the like remove more."""
    logits = original(self, logits, sampling_metadata, metadata)
    if isinstance(this := current_round(), FlatVerification):
        this.see_constraints(logits)
    return logits


def around_rejection_sample(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Lift the rescued tokens before standard verification, and count those that are kept."""
    if not isinstance(this := current_round(), FlatVerification):
        return original(*args, **kwargs)
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    this.lift(given["target_logits"], given["draft_probs"])
    output = original(*args, **kwargs)
    this.count(output)
    return output


def around_propose(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Pass drafters only the auxiliary states that they requested, without the judge's."""
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


def after_loading_v2(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Create the judge once the models are loaded (model runner V2)."""
    found = original(self, *args, **kwargs)
    if (given := judge_of(self.vllm_config)) is not None and self.rejection_sampler is not None:
        self.judge_decoding = RunnerJudge(self, ServerSettings.read(given))
    return found


def after_add_requests_v2(original: Callable[..., Any], self: Any, scheduler_output: Any) -> Any:
    """Store the parameters of new requests."""
    found = original(self, scheduler_output)
    if judge := getattr(self, "judge_decoding", None):
        judge.remember(scheduler_output.scheduled_new_reqs, self.req_states.req_id_to_index)
    return found


def around_sample_v2(
    original: Callable[..., Any], self: Any, hidden_states: Any, input_batch: Any, grammar_output: Any
) -> Any:
    """Verify the drafts of a step with the judge (model runner V2)."""
    judge: RunnerJudge | None = getattr(self, "judge_decoding", None)
    if judge is not None and not input_batch.num_draft_tokens:
        judge.latest_scores = judge.rows_scored(hidden_states, input_batch)
    this = judge.rows_round(hidden_states, input_batch) if judge and input_batch.num_draft_tokens else None
    if judge is None or this is None:
        return original(self, hidden_states, input_batch, grammar_output)
    judge.latest = this
    with during(this):
        return original(self, hidden_states, input_batch, grammar_output)


def around_sample_tokens_v2(original: Callable[..., Any], self: Any, grammar_output: Any) -> Any:
    """Add the counts of rescued tokens to the step's output."""
    if not (judge := getattr(self, "judge_decoding", None)):
        return original(self, grammar_output)
    judge.latest = judge.latest_scores = None
    output = original(self, grammar_output)
    if judge.latest is not None:
        return judge.latest.add_counts(output)
    return attach(output, "judge_scores", judge.latest_scores)


def around_rejection_sample_v2(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Lift the rescued tokens before standard verification, and count those that are kept."""
    if not isinstance(this := current_round(), RowsVerification):
        return original(*args, **kwargs)
    given = inspect.signature(original).bind(*args, **kwargs).arguments
    rescued = this.lift(given["target_logits"], given["draft_sampled"], len(given["cu_num_logits"]) - 1)
    sampled, num_sampled = original(*args, **kwargs)
    this.count(rescued, num_sampled)
    return sampled, num_sampled


def before_validation(original: Callable[..., Any], self: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse an invalid request in the server's front end, where the error becomes a response with status 400."""
    if (rules := rules_of(self)) is not None and hasattr(params, "temperature"):
        refused = rules.refusal(
            params.extra_args, logprobs=wants_logprobs(params), greedy=params.temperature == 0,
            unguarded=why_unguarded(self.vllm_config),
        )  # fmt: skip
        if refused is not None:
            from vllm.exceptions import VLLMValidationError  # noqa: PLC0415  (an extra)

            raise VLLMValidationError(refused, parameter="extra_args")
    return original(self, params, *args, **kwargs)


def after_update_draft_token_ids(original: Callable[..., Any], self: Any, draft_token_ids: Any) -> Any:
    """Drop the drafts of requests that turn speculation off, before the scheduler schedules their verification."""
    found = original(self, draft_token_ids)
    for name in draft_token_ids.req_ids:
        request = self.requests.get(name)
        if request is not None and not speculates(getattr(request.sampling_params, "extra_args", None)):
            request.spec_token_ids = []
    return found


def around_update(original: Callable[..., Any], self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
    """Add the rescued tokens to the scheduler's statistics and to the outputs of every request."""
    if (rules := rules_of(self)) is None:  # an engine without a judge, after one with a judge
        return original(self, scheduler_output, model_runner_output)
    if (found := getattr(model_runner_output, "judge_scores", None)) and "judge_scores" in vars(self):  # starting up
        # Scheduled asynchronously, a request may be read once more when its only token is known.
        self.judge_scores.update({name: score for name, score in found.items() if name not in self.judge_scores})
    rescued = getattr(model_runner_output, "judge_rescued", None) or {}
    alive = {name for name in rescued if (one := self.requests.get(name)) is not None and not one.is_finished()}
    totals: Counter[str] = self.__dict__.setdefault("judge_rescued", Counter())
    totals.update({name: rescued[name] for name in alive})
    requests = {name: self.requests[name] for name in scheduler_output.num_scheduled_tokens if name in self.requests}
    outputs = original(self, scheduler_output, model_runner_output)
    for output in outputs.values():
        stats = output.scheduler_stats
        if stats is not None and stats.spec_decoding_stats is not None:
            step = sum(rescued[name] for name in alive)
            stats.spec_decoding_stats = stats_class()(**vars(stats.spec_decoding_stats), num_rescued_tokens=step)
        for one in output.outputs:
            if (request := requests.get(one.request_id)) is not None:  # a stop string ends an answer in the front end
                params = request.sampling_params
                mark = rules.mark(
                    params.extra_args, totals[one.request_id],
                    logprobs=wants_logprobs(params), greedy=params.temperature == 0,
                )  # fmt: skip
                one.kv_transfer_params = {**(one.kv_transfer_params or {}), KEY: mark}
    for name in [name for name in totals if name not in self.requests]:
        del totals[name]
    return outputs


def before_process_outputs(
    original: Callable[..., Any], self: Any, engine_core_outputs: Any, *args: Any, **kwargs: Any
) -> Any:
    """Add the mark to the metrics of single requests (``--per-request-spec-decode-metrics``), which streams have, too.

    In the server's front end: of the metrics only the fields that vLLM knows come here from the engine's process.
    """
    for one in engine_core_outputs:
        mark = (one.kv_transfer_params or {}).get(KEY)
        if one.spec_decode_metrics is not None and mark is not None:
            one.spec_decode_metrics.judge_mark = mark
    return original(self, engine_core_outputs, *args, **kwargs)


def after_to_dict(original: Callable[..., Any], self: Any) -> Any:
    """Show the rescued tokens, and whether the answer is lossy, among the metrics in a response."""
    found = original(self)
    mark = getattr(self, "judge_mark", None)
    if mark is None:
        return found
    return found | {"num_rescued_draft_tokens": mark["rescued_tokens"], "lossy": mark["lossy"]}


@functools.cache
def stats_class() -> Any:
    """Return vLLM's class for the statistics of a step, extended by a field for the rescued tokens."""
    from vllm.v1.metrics.stats import SchedulerStats  # noqa: PLC0415  (an extra)
    from vllm.v1.spec_decode.metrics import SpecDecodingStats  # noqa: PLC0415  (an extra)

    made = make_dataclass("JudgedSpecDecodingStats", [("num_rescued_tokens", int, 0)], bases=(SpecDecodingStats,))
    SchedulerStats.__annotations__["spec_decoding_stats"] = made | None  # the type that the front end decodes
    return made


_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_RUNNER_V2 = "vllm.v1.worker.gpu.model_runner:GPUModelRunner"
_ENGINE = "vllm.v1.engine.core"
_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
GATES: Mapping[str, Hook] = {
    "vllm.engine.arg_utils:EngineArgs.create_engine_config": after_create_engine_config,
    "vllm.v1.worker.worker_base:WorkerBase.__init__": before_init,
    f"{_SCHEDULER}.__init__": before_init,
    f"{_ENGINE}:EngineCore._initialize_kv_caches": after_initialize_kv_caches,
}
HOOKS: Mapping[str, Hook] = {
    "vllm.v1.engine.input_processor:InputProcessor._validate_params": before_validation,
    f"{_SCHEDULER}.update_from_output": around_update,
    f"{_SCHEDULER}.update_draft_token_ids": after_update_draft_token_ids,
    f"{_ENGINE}:freeze_gc_heap": before_freeze,
    "vllm.v1.engine.output_processor:OutputProcessor.process_outputs": before_process_outputs,
    "vllm.v1.metrics.stats:RequestSpecDecodeMetrics.to_dict": after_to_dict,
}
HOOKS_V1: Mapping[str, Hook] = {
    f"{_RUNNER}._setup_eagle3_aux_hidden_state_outputs": after_loading,
    f"{_RUNNER}.sample_tokens": around_sample_tokens,
    f"{_RUNNER}.propose_draft_token_ids": around_propose,
    "vllm.v1.sample.rejection_sampler:RejectionSampler.apply_logits_processors": after_logits_processors,
    "vllm.v1.sample.rejection_sampler:rejection_sample": around_rejection_sample,
}
HOOKS_V2: Mapping[str, Hook] = {
    f"{_RUNNER_V2}.load_model": after_loading_v2,
    f"{_RUNNER_V2}.add_requests": after_add_requests_v2,
    f"{_RUNNER_V2}.sample": around_sample_v2,
    f"{_RUNNER_V2}.sample_tokens": around_sample_tokens_v2,
    "vllm.v1.worker.gpu.spec_decode.rejection_sampler:rejection_sample": around_rejection_sample_v2,
}


def install_for(config: Any) -> None:
    """Wrap the functions of the model runner that ``config`` (``VllmConfig``) selects, once per process."""
    install({**HOOKS, **(HOOKS_V2 if config.use_v2_model_runner else HOOKS_V1)})
    stats_class()


def judge_of(config: Any) -> object:
    """Return the judge's settings in a configuration; None if it has no judge."""
    additional = config.additional_config
    return additional.get(KEY) if isinstance(additional, dict) else None


def rules_of(holder: Any) -> ServerRules | None:
    """Return the rules of a scheduler or an input processor, read once; None if its configuration has no judge."""
    if "judge_rules" not in vars(holder):
        given = judge_of(holder.vllm_config)
        holder.judge_rules = None if given is None else _server_rules(ServerSettings.read(given))
    found: ServerRules | None = holder.judge_rules
    return found


_server_rules = functools.cache(ServerRules.of)  # the head is loaded once in a process
