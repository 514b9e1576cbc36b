"""The judge in vLLM's model process: its access to the model runner, and one verification of a whole batch.

Importing this module does not import vLLM.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from judge_decoding.core.hidden import LAST
from judge_decoding.core.rounds import Cause
from judge_decoding.decoding.guards import Budget, Guard, History, check_guards
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.integrations.vllm.checks import check_weights, log, wants_logprobs
from judge_decoding.integrations.vllm.scores import scored
from judge_decoding.rules.base import VerificationRule
from judge_decoding.serving.flat_drafts import FlatDrafts, Guarded, kept_rescues, lift, rescues
from judge_decoding.serving.server_rules import ServerRules, ServerSettings

_MANY = 1000  # lists of guards whose markers are remembered; a client may send any number of them


@dataclass(frozen=True, slots=True)
class AuxStates:
    """The target's auxiliary hidden states, a vLLM feature for EAGLE-3 drafters, including the judge's layer.

    Of the output states of ``layers``, ascending, the drafter requested those of the layers ``drafter``.
    """

    layers: tuple[int, ...]
    drafter: tuple[int, ...]
    judge_layer: int

    @property
    def of_judge(self) -> int:
        """The index of the judge's states among the states of a forward pass."""
        return self.layers.index(self.judge_layer)

    def of_drafter(self, states: Sequence[Tensor] | None) -> list[Tensor] | None:
        """Return those of the ``states`` of a forward pass that the drafter requested."""
        if states is None or not self.drafter:
            return None
        return [state for layer, state in zip(self.layers, states, strict=True) if layer in self.drafter]


class RunnerJudge:
    """The judge of a model runner."""

    def __init__(self, runner: Any, settings: ServerSettings) -> None:
        self.runner, self.rules = runner, ServerRules.of(settings)
        self.aux: AuxStates | None = None
        self.latest: RowsVerification | None = None
        self.latest_scores: tuple[list[str], Tensor] | None = None
        self._params: dict[str, Any] = {}
        self._causes: dict[str, list[Cause]] = {}
        self._guards: dict[tuple[Guard, ...], tuple[Guard, ...]] = {}
        self._tokenizer: Any = None
        if self.rules.head is not None:
            self.rules.head.to(runner.device)
            check_weights(self.rules, runner.get_model())
            if self.rules.rule.source != LAST:
                self.aux = self._request_aux_states()
        log.info("A draft token stays if standard verification keeps it or %s.", self.rules.rule)

    def _request_aux_states(self) -> AuxStates:
        """Make the model return the states that the judge reads, as for EAGLE-3 drafters."""
        runner, model = self.runner, self.runner.get_model()
        holder = next((part for part in model.modules() if hasattr(part, "aux_hidden_state_layers")), None)
        if holder is None or not hasattr(model, "set_aux_hidden_state_layers"):
            raise JudgeDecodingError(
                "This judge reads hidden states before the final norm or of a lower layer, and vLLM's "
                f"{type(model).__name__} provides only those after it; train a head with --norm after."
            )
        assert self.rules.head is not None
        judge_layer = self.rules.head.config.target.num_hidden_layers + 1 + self.rules.rule.layer
        drafter = tuple(holder.aux_hidden_state_layers) if runner.use_aux_hidden_state_outputs else ()
        layers = tuple(sorted({*drafter, judge_layer}))
        model.set_aux_hidden_state_layers(layers)
        runner.use_aux_hidden_state_outputs = True
        return AuxStates(layers, drafter, judge_layer)

    def remember(self, requests: Iterable[Any], running: Container[str]) -> None:
        """Store the parameters of new ``requests`` (model runner V2) while they are running."""
        self._params = {name: params for name, params in self._params.items() if name in running}
        self._params |= {one.req_id: one.sampling_params for one in requests if one.sampling_params is not None}

    def rows_round(self, hidden_states: Tensor, batch: Any) -> RowsVerification | None:
        """Return the round that model runner V2 is about to verify; None in its warm-up with dummy requests."""
        names = list(batch.req_ids)
        if not all(name in self._params for name in names):
            return None
        hidden = None if self.rules.head is None else hidden_states[batch.logits_indices]
        ends = batch.cu_num_logits_np.tolist()
        counts = [max(end - start - 1, 0) for start, end in pairwise(ends[: len(names) + 1])]
        return RowsVerification(names, *self._choices([self._params[name] for name in names]), counts, hidden)

    def scored(self, state: Any) -> tuple[list[str], Tensor] | None:
        """Return the scores of stored prompts in a step without drafts, from the runner's ``ExecuteModelState``.

        Each request has one row of ``sample_hidden_states`` then.
        """
        names = list(self.runner.input_batch.req_ids)
        states = state.sample_hidden_states
        if self.aux is not None:
            scheduled = state.scheduler_output.num_scheduled_tokens
            ends = torch.tensor([scheduled[name] for name in names]).cumsum(0)
            states = state.aux_hidden_states[self.aux.of_judge][ends - 1]
        return scored(self.rules.head, names, states)

    def rows_scored(self, hidden_states: Tensor, batch: Any) -> tuple[list[str], Tensor] | None:
        """Return the same for model runner V2."""
        return scored(self.rules.head, list(batch.req_ids), hidden_states[batch.logits_indices])

    def _choices(self, params: Sequence[Any]) -> tuple[list[VerificationRule | None], list[bool]]:
        """Return the rule of each request, and whether it decodes at temperature 0."""
        rules = [self.rules.rule_for(one.extra_args, logprobs=wants_logprobs(one)) for one in params]
        return rules, [one.temperature == 0 for one in params]

    def round(self, state: Any) -> FlatVerification:
        """Return the round about to be verified, from the runner's ``ExecuteModelState``."""
        runner, metadata = self.runner, state.spec_decode_metadata
        names = list(runner.input_batch.req_ids)
        params = [runner.requests[name].sampling_params for name in names]
        hidden = None
        if self.rules.head is not None:
            # The forward pass reads a draft token one position after the one that predicts it.
            rows = metadata.target_logits_indices + 1
            if self.aux is None:
                hidden = state.sample_hidden_states[rows]
            else:
                hidden = state.aux_hidden_states[self.aux.of_judge][metadata.logits_indices[rows]]
        counts = list(metadata.num_draft_tokens)
        guarded = self._guarded(names, params)
        return FlatVerification(names, *self._choices(params), metadata.draft_token_ids, counts, hidden, guarded)

    def _guarded(self, names: Sequence[str], params: Sequence[Any]) -> list[Guarded | None]:
        """Return the guards and history of each request; `FlatVerification.count` adds this round to the histories."""
        guards = [self.rules.guards_for(one.extra_args) for one in params]
        self._causes = {name: causes for name, causes in self._causes.items() if name in self.runner.requests}
        found: list[Guarded | None] = []
        for name, chosen in zip(names, guards, strict=True):
            if not chosen:
                found.append(None)
                continue
            request = self.runner.requests[name]
            causes, token_ids = self._causes.setdefault(name, []), list(request.output_token_ids)
            # Tokens without a draft, such as the first one, are the target's own; an end token or a stop string may
            # have cut a round short.
            causes += [Cause.CORRECTION] * (len(token_ids) - len(causes))
            del causes[len(token_ids) :]
            found.append(Guarded(self._bound(chosen), History(list(request.prompt_token_ids or ()), token_ids, causes)))
        return found

    def _bound(self, guards: tuple[Guard, ...]) -> tuple[Guard, ...]:
        """Return the guards with their markers as token ids."""
        if guards not in self._guards:
            if len(self._guards) >= _MANY:
                self._guards.clear()
            try:
                self._guards[guards] = check_guards(guards, self._encode)
            except JudgeDecodingError as error:  # an error here would stop the whole engine
                log.warning("%s Nothing is rescued for this request.", error)
                self._guards[guards] = (Budget(0),)
        return self._guards[guards]

    def _encode(self, text: str) -> list[int]:
        if self._tokenizer is None:
            from vllm.tokenizers import cached_tokenizer_from_config  # noqa: PLC0415  (an extra)

            self._tokenizer = cached_tokenizer_from_config(self.runner.vllm_config.model_config)
        return list(self._tokenizer.encode(text, add_special_tokens=False))


@dataclass(slots=True, eq=False)
class FlatVerification:
    """One verification of a batch of R requests, ``names``, with N draft tokens in total.

    Attributes:
        rules: the rule of each request; None for standard verification.
        greedy: which requests decode at temperature 0.
        draft_ids: the concatenated drafts [N].
        counts: the number of draft tokens of each request.
        hidden: the hidden states at the draft tokens [N, H]; None if no rule reads them.
        guarded: the guards and history of each request [R]; None for a request without guards.
        allowed, rescued: which draft tokens are not forbidden, and which the rules rescue [N], once known.
        rescued_counts: the number of rescued tokens kept in each request [R], once known.
    """

    names: list[str]
    rules: list[VerificationRule | None]
    greedy: list[bool]
    draft_ids: Tensor
    counts: list[int]
    hidden: Tensor | None
    guarded: Sequence[Guarded | None] = ()
    allowed: Tensor | None = None
    rescued: Tensor | None = None
    rescued_counts: Tensor | None = field(default=None)

    def see_constraints(self, logits: Tensor) -> None:
        """Record which draft tokens ``logits`` [N, V] forbid, before top-k and the like remove more."""
        index = self.draft_ids.long().clamp(min=0)[:, None]
        self.allowed = logits.gather(1, index)[:, 0] > torch.finfo(logits.dtype).min

    def lift(self, logits: Tensor, probs: Tensor | None) -> None:
        """Lift the rescued tokens in ``logits`` [N, V], in place; ``probs`` [N, V] are what drew the draft, if any."""
        if self.allowed is None:
            raise RuntimeError("vLLM verified a draft without its logits processors")
        drafts = FlatDrafts(self.draft_ids, self.counts, logits, self.allowed, self.hidden, probs)
        self.rescued = rescues(drafts, self.rules, self.greedy, self.guarded or None)
        lift(logits, torch.arange(len(logits), device=logits.device), self.draft_ids, self.rescued)

    def count(self, output: Tensor) -> None:
        """Count the rescued tokens that are kept; ``output`` [R, M + 1] has -1 after each request's last token."""
        if self.rescued is not None:
            accepted = (output >= 0).sum(1) - 1
            self.rescued_counts = kept_rescues(self.rescued, self.counts, accepted)
            if any(self.guarded):
                self._remember(self.rescued.tolist(), accepted.tolist())

    def _remember(self, rescued: Sequence[bool], accepted: Sequence[int]) -> None:
        """Add to the histories why each token of this round was kept."""
        start = 0
        for guarded, count, number in zip(self.guarded, self.counts, accepted, strict=True):
            if guarded is not None:
                causes = [Cause.RESCUED if one else Cause.AGREED for one in rescued[start : start + number]]
                guarded.history.causes.extend((*causes, Cause.BONUS if number == count else Cause.CORRECTION))
            start += count

    def add_counts(self, output: Any) -> Any:
        """Add the counts to the runner's output, which may be asynchronous."""
        found = None if self.rescued_counts is None else (self.names, self.rescued_counts)
        return attach(output, "judge_rescued", found)


@dataclass(slots=True, eq=False)
class RowsVerification:
    """The same for model runner V2, whose verification works on rows: a request's draft tokens and one row more.

    The verification may come in several parts, a few requests at a time. ``hidden`` [N + R, H] are the states at all
    rows; ``rescued_counts`` has the rescued tokens kept in each request, part by part.
    """

    names: list[str]
    rules: list[VerificationRule | None]
    greedy: list[bool]
    counts: list[int]
    hidden: Tensor | None
    rescued_counts: list[Tensor] = field(default_factory=list)
    _requests: int = 0
    _rows: int = 0

    def lift(self, logits: Tensor, read: Tensor, requests: int) -> Tensor:
        """Lift the rescued tokens of the next ``requests`` in ``logits`` [K, V], in place; return which they are [N].

        ``read`` [K] are the tokens that the forward pass read at these rows: for each request, its last token before
        the draft, then its draft tokens.
        """
        part = slice(self._requests, self._requests + requests)
        counts = self.counts[part]
        predicting: list[int] = []
        start = 0
        for count in counts:
            predicting += range(start, start + count)
            start += count + 1
        rows = torch.tensor(predicting, dtype=torch.long, device=logits.device)
        # The forward pass reads a draft token one row after the one that predicts it.
        token_ids = read[rows + 1].long()
        hidden = None if self.hidden is None else self.hidden[rows + (self._rows + 1)]
        allowed = logits[rows, token_ids.clamp(min=0)] > torch.finfo(logits.dtype).min
        rescued = rescues(
            FlatDrafts(token_ids, counts, logits[rows], allowed, hidden), self.rules[part], self.greedy[part]
        )
        lift(logits, rows, token_ids, rescued)
        return rescued

    def count(self, rescued: Tensor, sampled: Tensor) -> None:
        """Finish a part, in which each request got ``sampled`` [requests] tokens, and continue with the next one."""
        counts = self.counts[self._requests : self._requests + len(sampled)]
        self.rescued_counts.append(kept_rescues(rescued, counts, sampled - 1))
        self._requests += len(counts)
        self._rows += sum(counts) + len(counts)

    def add_counts(self, output: Any) -> Any:
        """Add the counts to the runner's output, which may be asynchronous."""
        if not self.rescued_counts:
            return output
        return attach(output, "judge_rescued", (self.names[: self._requests], torch.cat(self.rescued_counts)))


def attach(output: Any, name: str, found: tuple[list[str], Tensor] | None) -> Any:
    """Give the runner's output, which may be asynchronous, an attribute ``name``: a number for each request.

    ``found`` has the request ids and their numbers [R]; None for nothing to attach.
    """
    if found is None:
        return output
    from vllm.v1.outputs import AsyncModelRunnerOutput  # noqa: PLC0415  (an extra)

    if isinstance(output, AsyncModelRunnerOutput):
        return _later(output, name, *found)
    setattr(output, name, dict(zip(found[0], found[1].tolist(), strict=True)))
    return output


def _later(output: Any, name: str, requests: list[str], numbers: Tensor) -> Any:
    """Return ``output`` with the numbers, which are copied to the host asynchronously until it is requested."""
    from vllm.v1.outputs import AsyncModelRunnerOutput  # noqa: PLC0415  (an extra)

    copied = numbers.to("cpu", non_blocking=True)
    ready = torch.cuda.Event() if numbers.is_cuda else None
    if ready is not None:
        ready.record()

    class Counted(AsyncModelRunnerOutput):  # type: ignore[misc]  # vllm's types are not always there
        def get_output(self) -> Any:
            found = output.get_output()
            if ready is not None:
                ready.synchronize()
            setattr(found, name, dict(zip(requests, copied.tolist(), strict=True)))
            return found

        def get_kv_connector_output(self) -> Any:  # called by vLLM 0.33 and newer
            return output.get_kv_connector_output()

    return Counted()


VerificationT = TypeVar("VerificationT", FlatVerification, RowsVerification)
_ROUND: ContextVar[FlatVerification | RowsVerification | None] = ContextVar("judge_decoding_round", default=None)


def current_round() -> FlatVerification | RowsVerification | None:
    """Return the round in progress; None where nothing is judged, as in vLLM's warm-up."""
    return _ROUND.get()


@contextmanager
def during(this: VerificationT) -> Iterator[VerificationT]:
    """Make ``this`` the current round while the block runs."""
    token = _ROUND.set(this)
    try:
        yield this
    finally:
        _ROUND.reset(token)
