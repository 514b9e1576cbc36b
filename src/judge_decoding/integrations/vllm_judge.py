"""The judge in vLLM's model process: what it needs of a model runner, and one verification of a whole batch.

Nothing here imports vLLM when it is loaded; `judge_decoding.integrations.vllm` brings the two together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.flat_drafts import FlatDrafts, kept_rescues, lift, rescues
from judge_decoding.integrations.vllm_settings import Bench, Settings
from judge_decoding.rules.base import VerificationRule

log = logging.getLogger("vllm.judge_decoding")  # below vLLM's own, so that its settings apply


def check_server(config: Any, bench: Bench) -> None:
    """Refuse a configuration (``VllmConfig``) in which the judge could not do what it is there for.

    Raises:
        JudgeDecodingError: it is one.
    """
    speculative, parallel, rule = config.speculative_config, config.parallel_config, bench.rule
    if speculative is None or speculative.method == "extract_hidden_states":
        raise JudgeDecodingError(
            "A judge decides about draft tokens, and this server drafts none; give a drafter with "
            "--speculative-config, or leave the judge out."
        )
    if config.model_config.is_diffusion:
        raise JudgeDecodingError(
            "A judge reads drafts from left to right, and this is a diffusion model; leave it out."
        )
    if speculative.rejection_sample_method != "standard":
        raise JudgeDecodingError(
            f"rejection_sample_method is {speculative.rejection_sample_method}, and a judge works beside the standard "
            "one; leave it out of --speculative-config."
        )
    if parallel.distributed_executor_backend == "external_launcher" and parallel.pipeline_parallel_size > 1:
        raise JudgeDecodingError(
            "With the external launcher and pipeline parallelism not every process that verifies has the hidden states "
            "that a judge reads; use tensor parallelism."
        )
    if rule.needs_draft_probs and speculative.draft_sample_method != "probabilistic":
        raise JudgeDecodingError(
            f"The rule {rule} compares the draft's probabilities with the target's, which vLLM keeps only where "
            'drafts are sampled; add "draft_sample_method": "probabilistic" to --speculative-config.'
        )
    if bench.head is not None:
        model = config.model_config
        text = model.hf_text_config
        bench.head.config.target.check_shape(
            str(model.model), text.hidden_size, text.num_hidden_layers, *(model.architectures or ())
        )


def wants_logprobs(params: Any) -> bool:
    """Whether a request (``SamplingParams``) asks for log-probabilities of what it is given."""
    return params.logprobs is not None or params.logprob_token_ids is not None


@dataclass(frozen=True, slots=True)
class AuxStates:
    """The target's auxiliary states, made for EAGLE-3 drafters, with those of the judge's layer among them.

    Attributes:
        layers: the layers after which they are taken, ascending.
        drafter: those of them that are the drafter's.
        own: the judge's.
    """

    layers: tuple[int, ...]
    drafter: tuple[int, ...]
    own: int

    @property
    def of_judge(self) -> int:
        """Where the judge's are among the states of a forward."""
        return self.layers.index(self.own)

    def of_drafter(self, states: Sequence[Tensor] | None) -> list[Tensor] | None:
        """Those of the ``states`` of a forward that the drafter asked for."""
        if states is None or not self.drafter:
            return None
        return [state for layer, state in zip(self.layers, states, strict=True) if layer in self.drafter]


class RunnerJudge:
    """The judge of a model runner.

    Raises:
        JudgeDecodingError: the model is not the one the head was trained on, or does not hand over its hidden states.
    """

    def __init__(self, runner: Any, settings: Settings) -> None:
        self.runner, self.bench = runner, Bench.of(settings)
        self.aux: AuxStates | None = None
        if self.bench.head is not None:
            self.bench.head.to(runner.device)
            check_weights(self.bench, runner.get_model())
            if self.bench.rule.place != ("after", -1):
                self.aux = self._ask_for_states()
        log.info("A draft token stays if standard verification keeps it or %s.", self.bench.rule)

    def _ask_for_states(self) -> AuxStates:
        """Have the model hand over the states that the judge reads, as it does for EAGLE-3 drafters."""
        runner, model = self.runner, self.runner.get_model()
        holder = next((part for part in model.modules() if hasattr(part, "aux_hidden_state_layers")), None)
        if holder is None or not hasattr(model, "set_aux_hidden_state_layers"):
            raise JudgeDecodingError(
                "This judge reads hidden states before the final norm or of a lower layer, and vLLM's "
                f"{type(model).__name__} hands over only those after it; train a head with --norm after."
            )
        assert self.bench.head is not None
        own = self.bench.head.config.target.num_hidden_layers + 1 + self.bench.rule.layer
        drafter = tuple(holder.aux_hidden_state_layers) if runner.use_aux_hidden_state_outputs else ()
        layers = tuple(sorted({*drafter, own}))
        model.set_aux_hidden_state_layers(layers)
        runner.use_aux_hidden_state_outputs = True
        return AuxStates(layers, drafter, own)

    def round(self, state: Any) -> Round:
        """The round that is about to be verified, from the runner's ``ExecuteModelState``."""
        runner, metadata = self.runner, state.spec_decode_metadata
        names = list(runner.input_batch.req_ids)
        params = [runner.requests[name].sampling_params for name in names]
        hidden = None
        if self.bench.head is not None:
            # The forward reads a draft token one position after the one that predicts it.
            rows = metadata.target_logits_indices + 1
            if self.aux is None:
                hidden = state.sample_hidden_states[rows]
            else:
                hidden = state.aux_hidden_states[self.aux.of_judge][metadata.logits_indices[rows]]
        return Round(
            names,
            [self.bench.rule_for(one.extra_args, logprobs=wants_logprobs(one)) for one in params],
            [one.temperature == 0 for one in params],
            metadata.draft_token_ids, list(metadata.num_draft_tokens), hidden,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Round:
    """One verification of a batch of R requests with N draft tokens in all.

    Attributes:
        names: the requests.
        rules: each one's rule; None for standard verification.
        greedy: which are at temperature 0.
        draft_ids: the drafts, one after the other [N].
        counts: how many draft tokens each request has.
        hidden: the hidden states at the draft tokens [N, H]; None if no rule reads them.
        allowed: which draft tokens nothing forbids [N], once that is known.
        rescued: which the rules rescue [N], once that is known.
        kept: how many rescued tokens stay in each request [R], once that is known.
    """

    names: list[str]
    rules: list[VerificationRule | None]
    greedy: list[bool]
    draft_ids: Tensor
    counts: list[int]
    hidden: Tensor | None
    allowed: Tensor | None = None
    rescued: Tensor | None = None
    kept: Tensor | None = field(default=None)

    def see_constraints(self, logits: Tensor) -> None:
        """Learn which draft tokens ``logits`` [N, V] forbid, before top-k and the like take more away."""
        index = self.draft_ids.long().clamp(min=0)[:, None]
        self.allowed = logits.gather(1, index)[:, 0] > torch.finfo(logits.dtype).min

    def lift(self, logits: Tensor, probs: Tensor | None) -> None:
        """Lift what the rules rescue in ``logits`` [N, V], in place; ``probs`` [N, V] drew the draft, if any did."""
        if self.allowed is None:
            raise RuntimeError("vLLM verified a draft without its logits processors")
        drafts = FlatDrafts(self.draft_ids, self.counts, logits, self.allowed, self.hidden, probs)
        self.rescued = rescues(drafts, self.rules, self.greedy)
        lift(logits, self.draft_ids, self.rescued)

    def count(self, output: Tensor) -> None:
        """Count the rescued tokens that stay: ``output`` [R, M + 1] has -1 behind each request's last token."""
        if self.rescued is not None:
            self.kept = kept_rescues(self.rescued, self.counts, (output >= 0).sum(1) - 1)

    def tell(self, output: Any) -> Any:
        """Give the counts to the runner's output, which may be one that is still to be waited for."""
        from vllm.v1.outputs import AsyncModelRunnerOutput

        if self.kept is None:
            return output
        if isinstance(output, AsyncModelRunnerOutput):
            return _later(output, self.names, self.kept)
        output.judge_rescued = dict(zip(self.names, self.kept.tolist(), strict=True))
        return output


def _later(output: Any, names: list[str], kept: Tensor) -> Any:
    """``output`` with the counts, whose copy to the host is under way until it is asked for."""
    from vllm.v1.outputs import AsyncModelRunnerOutput

    counts = kept.to("cpu", non_blocking=True)
    ready = torch.cuda.Event() if kept.is_cuda else None
    if ready is not None:
        ready.record()

    class Counted(AsyncModelRunnerOutput):  # type: ignore[misc]  # vllm's types are not always there
        def get_output(self) -> Any:
            found = output.get_output()
            if ready is not None:
                ready.synchronize()
            found.judge_rescued = dict(zip(names, counts.tolist(), strict=True))
            return found

    return Counted()


_ROUND: ContextVar[Round | None] = ContextVar("judge_decoding_round", default=None)


def current_round() -> Round | None:
    """The round under way; None where nothing is judged, as in vLLM's warm-up."""
    return _ROUND.get()


@contextmanager
def during(this: Round) -> Iterator[Round]:
    """While ``this`` round is verified."""
    token = _ROUND.set(this)
    try:
        yield this
    finally:
        _ROUND.reset(token)


def check_weights(bench: Bench, model: Any) -> None:
    """Check that the loaded target is the head's own, by the weights of its output that this process holds.

    Raises:
        JudgeDecodingError: it is another.
    """
    assert bench.head is not None
    target = bench.head.config.target
    language = model.get_language_model() if hasattr(model, "get_language_model") else model
    output = getattr(language, "lm_head", None)
    weight, shard = getattr(output, "weight", None), getattr(output, "shard_indices", None)
    if weight is None or shard is None or not weight.is_floating_point() or weight.shape[-1] != target.hidden_size:
        log.warning("The judge head cannot be compared with the target's weights, which are quantized or elsewhere.")
        return
    first, end = shard.org_vocab_start_index, shard.org_vocab_end_index
    found: dict[int, float] = {}
    for number, place in enumerate(target.places(language.lm_head.org_vocab_size * target.hidden_size)):
        row, column = divmod(place, target.hidden_size)
        if first <= row < end:
            found[number] = float(weight[row - first, column])
    target.check_weights(found)
