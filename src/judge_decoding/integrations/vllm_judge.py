"""The judge in vLLM's model process: what it needs of a model runner, and one verification of a whole batch.

Nothing here imports vLLM when it is loaded; `judge_decoding.integrations.vllm` brings the two together.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from judge_decoding.core.hidden import LAST
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
    if bench.head is not None and config.lora_config is not None:
        raise JudgeDecodingError(
            "A judge head knows the target's own hidden states, and LoRA adapters change them; leave one of them out."
        )
    if config.use_v2_model_runner:
        _check_v2(speculative, parallel, rule)
    if bench.head is not None:
        model = config.model_config
        text = model.hf_text_config
        bench.head.config.target.check_shape(
            str(model.model), text.hidden_size, text.num_hidden_layers, *(model.architectures or ())
        )


def _check_v2(speculative: Any, parallel: Any, rule: VerificationRule) -> None:
    for wrong, what in (
        (rule.source not in (None, LAST), "heads on states before the final norm or of a lower layer"),
        (rule.needs_draft_probs, "rules that compare the draft's probabilities"),
        (speculative.enable_adaptive_verification, "adaptive verification"),
        (parallel.enable_batch_sharded_sampling, "batch-sharded sampling"),
    ):
        if wrong:
            raise JudgeDecodingError(
                f"In vLLM's model runner V2 the judge does not go with {what}; set VLLM_USE_V2_MODEL_RUNNER=0 in the "
                "environment, or leave that out."
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
        self.latest: RowsRound | None = None
        self._params: dict[str, Any] = {}
        if self.bench.head is not None:
            self.bench.head.to(runner.device)
            check_weights(self.bench, runner.get_model())
            if self.bench.rule.source != LAST:
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

    def remember(self, requests: Iterable[Any], running: Container[str]) -> None:
        """Keep what ``requests`` that begin (of model runner V2) ask for, until they run no more."""
        self._params = {name: params for name, params in self._params.items() if name in running}
        self._params |= {one.req_id: one.sampling_params for one in requests if one.sampling_params is not None}

    def rows_round(self, hidden_states: Tensor, batch: Any) -> RowsRound | None:
        """The round that model runner V2 is about to verify; None in its warm-up, whose requests nobody sent."""
        names = list(batch.req_ids)
        if not all(name in self._params for name in names):
            return None
        hidden = None if self.bench.head is None else hidden_states[batch.logits_indices]
        ends = batch.cu_num_logits_np.tolist()
        counts = [max(end - start - 1, 0) for start, end in pairwise(ends[: len(names) + 1])]
        return RowsRound(names, *self._choices([self._params[name] for name in names]), counts, hidden)

    def _choices(self, params: Sequence[Any]) -> tuple[list[VerificationRule | None], list[bool]]:
        """Each request's rule, and whether it is at temperature 0."""
        rules = [self.bench.rule_for(one.extra_args, logprobs=wants_logprobs(one)) for one in params]
        return rules, [one.temperature == 0 for one in params]

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
        counts = list(metadata.num_draft_tokens)
        return Round(names, *self._choices(params), metadata.draft_token_ids, counts, hidden)


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
        lift(logits, torch.arange(len(logits), device=logits.device), self.draft_ids, self.rescued)

    def count(self, output: Tensor) -> None:
        """Count the rescued tokens that stay: ``output`` [R, M + 1] has -1 behind each request's last token."""
        if self.rescued is not None:
            self.kept = kept_rescues(self.rescued, self.counts, (output >= 0).sum(1) - 1)

    def tell(self, output: Any) -> Any:
        """Give the counts to the runner's output, which may be one that is still to be waited for."""
        return output if self.kept is None else _tell(output, self.names, self.kept)


@dataclass(slots=True, eq=False)
class RowsRound:
    """The same for model runner V2, whose verification sees rows: a request's draft tokens and what follows them.

    It may come in several parts, a few requests at a time.

    Attributes:
        names: the requests [R].
        rules: each one's rule; None for standard verification.
        greedy: which are at temperature 0.
        counts: how many draft tokens each has, one less than its rows.
        hidden: the hidden states at all rows [N + R, H]; None if no rule reads them.
        kept: how many rescued tokens stay in each request, part by part.
    """

    names: list[str]
    rules: list[VerificationRule | None]
    greedy: list[bool]
    counts: list[int]
    hidden: Tensor | None
    kept: list[Tensor] = field(default_factory=list)
    _requests: int = 0
    _rows: int = 0

    def lift(self, logits: Tensor, read: Tensor, requests: int) -> Tensor:
        """Lift what the rules of the next ``requests`` rescue in ``logits`` [K, V], in place; which these are [N].

        ``read`` [K] are the tokens that the forward read at these rows: the first of a request's is its last one
        before the draft, then come its draft tokens.
        """
        part = slice(self._requests, self._requests + requests)
        counts = self.counts[part]
        predicting: list[int] = []
        start = 0
        for count in counts:
            predicting += range(start, start + count)
            start += count + 1
        rows = torch.tensor(predicting, dtype=torch.long, device=logits.device)
        # The forward reads a draft token one row after the one that predicts it.
        token_ids = read[rows + 1].long()
        hidden = None if self.hidden is None else self.hidden[rows + (self._rows + 1)]
        allowed = logits[rows, token_ids.clamp(min=0)] > torch.finfo(logits.dtype).min
        rescued = rescues(
            FlatDrafts(token_ids, counts, logits[rows], allowed, hidden), self.rules[part], self.greedy[part]
        )
        lift(logits, rows, token_ids, rescued)
        return rescued

    def count(self, rescued: Tensor, sampled: Tensor) -> None:
        """Go on to the next part; ``sampled`` [requests] tokens were given to each request of this one."""
        counts = self.counts[self._requests : self._requests + len(sampled)]
        self.kept.append(kept_rescues(rescued, counts, sampled - 1))
        self._requests += len(counts)
        self._rows += sum(counts) + len(counts)

    def tell(self, output: Any) -> Any:
        """Give the counts to the runner's output, which may be one that is still to be waited for."""
        return _tell(output, self.names[: self._requests], torch.cat(self.kept)) if self.kept else output


def _tell(output: Any, names: list[str], kept: Tensor) -> Any:
    from vllm.v1.outputs import AsyncModelRunnerOutput  # noqa: PLC0415  (an extra)

    if isinstance(output, AsyncModelRunnerOutput):
        return _later(output, names, kept)
    output.judge_rescued = dict(zip(names, kept.tolist(), strict=True))
    return output


def _later(output: Any, names: list[str], kept: Tensor) -> Any:
    """``output`` with the counts, whose copy to the host is under way until it is asked for."""
    from vllm.v1.outputs import AsyncModelRunnerOutput  # noqa: PLC0415  (an extra)

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


AnyRound = TypeVar("AnyRound", Round, RowsRound)
_ROUND: ContextVar[Round | RowsRound | None] = ContextVar("judge_decoding_round", default=None)


def current_round() -> Round | RowsRound | None:
    """The round under way; None where nothing is judged, as in vLLM's warm-up."""
    return _ROUND.get()


@contextmanager
def during(this: AnyRound) -> Iterator[AnyRound]:
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
        log.warning("The judge head cannot be compared with the target's weights, which are quantised or elsewhere.")
        return
    if target.fingerprint is None:
        log.warning(
            "The judge head was trained on a quantised target, whose weights cannot be compared with this one's."
        )
        return
    first, end = shard.org_vocab_start_index, shard.org_vocab_end_index
    found: dict[int, float] = {}
    for number, (row, column) in enumerate(target.places(language.lm_head.org_vocab_size, target.hidden_size)):
        if first <= row < end:
            found[number] = float(weight[row - first, column])
    target.check_weights(found)
