"""Judge decoding as a decoding method of transformers: ``model.generate(..., custom_generate=...)``.

``generate`` prepares inputs, logits processors and stopping criteria as for its own methods and passes them on; the
tokens come from this package's own loop.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    EosTokenCriteria,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    PrefixConstrainedLogitsProcessor,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
)
from transformers.generation.configuration_utils import GenerationMode
from transformers.generation.utils import GenerateDecoderOnlyOutput

from judge_decoding.core.rounds import Round, Stats
from judge_decoding.decoding.answer import is_lossy
from judge_decoding.decoding.choices import (
    AnyDraft,
    as_drafter,
    choose_num_draft_tokens,
    choose_rule,
    remaining_context,
    unwrap_draft,
)
from judge_decoding.decoding.generation import check_processors, constraints_of
from judge_decoding.decoding.guards import Guard, check_guards
from judge_decoding.decoding.lengths import AcceptanceModel, DraftLength, Fixed
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.request import Request
from judge_decoding.decoding.sampling import OF_LOGITS_ALONE, RowProcessor, Sampler, SamplingParams, along
from judge_decoding.decoding.stopping import Criteria
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.models.abilities import as_causal_lm
from judge_decoding.models.forward import CACHE_NAMES
from judge_decoding.rules.base import VerificationRule

# Arguments that generate adds for every model. Its KV cache stays empty: the loop has its own.
_USUAL = {"attention_mask", "position_ids", "logits_to_keep", "use_cache", *CACHE_NAMES}
# A model's configuration may enable these for every forward pass.
_BY_MODEL = ("output_attentions", "output_hidden_states")
# These depend on a row's index in its batch, or keep data per row.
_BY_ROW = (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)
_GENERATE = inspect.unwrap(GenerationMixin.generate).__code__


def custom_generate(
    draft: AnyDraft | None,
    head: JudgeHead | None = None,
    rule: VerificationRule | str | None = None,
    threshold: float | None = None,
    num_draft_tokens: int | None = None,
    *,
    draft_length: Callable[[int], DraftLength] = Fixed,
    guards: Sequence[Guard] = (),
    seed: int | None = None,
    on_round: Callable[[int, Round], None] | None = None,
) -> CustomGenerate:
    """Make a decoding method for ``generate`` of transformers.

    Example:
        ```python
        judged = custom_generate(draft, head, num_draft_tokens=8)
        model.generate(**inputs, custom_generate=judged, max_new_tokens=256)
        print(judged.stats.accepted_per_round)
        ```

    Left-padded batches, streamers, stopping criteria and all stateless logits processors work as in ``generate``;
    criteria are evaluated for each row by itself. The context length also ends an answer. Pass stop strings as
    ``stopping_criteria=[StopStringCriteria(tokenizer, strings)]``, since ``generate`` passes no tokenizer to a custom
    method. No rule keeps a token that a processor forbids; top-k and the like do not restrict a lossy rule.

    Args:
        draft: a small model with the target's vocabulary, any `Drafter`, a function from the ids so far and a count to
            the proposed ids, or None for plain decoding.
        head: a judge head trained for the model whose ``generate`` is called; without a head, verification is exact.
        rule: a verification rule instead of the judge, or its spelling, such as "top_k(k=4)".
        threshold: the judge's threshold, instead of the head's own; 1 is exact, 0 keeps every draft token.
        num_draft_tokens: draft length M; by default the head's own best length, or 16.
        draft_length: a draft-length policy, created with M for each row.
        guards: restrict where tokens may be rescued; phase markers are given as token ids.
        seed: with ``do_sample``, row i draws with seed + i, so that a call is reproducible. By default seeds are drawn
            from torch's global generator, so ``torch.manual_seed`` before ``generate`` makes it reproducible, as for
            its own methods (though not with the same tokens).
        on_round: called with each round as it ends, and the index of its row.

    Raises:
        JudgeDecodingError: a value is out of range; or, in ``generate``, an unsupported feature is requested (beams,
            scores or hidden states as output, an additional assistant model, a cache or inputs other than token ids,
            ...), or the head is for another model.
    """
    return CustomGenerate(
        unwrap_draft(draft), head, choose_rule(head, rule, threshold), choose_num_draft_tokens(head, num_draft_tokens),
        draft_length, check_guards(guards, _no_text), seed, on_round,
    )  # fmt: skip


def _no_text(text: str) -> list[int]:
    raise JudgeDecodingError(
        f"A guard has the text {text!r} for a marker, and there is no tokenizer here; give the marker's token ids."
    )


@dataclass
class JudgedOutput(GenerateDecoderOnlyOutput):
    """The output of ``generate(..., return_dict_in_generate=True)``: ``sequences``, and two fields by row.

    Attributes:
        rounds: the rounds of each row.
        lossy: whether lossy verification may have changed the row's answer; see `Generation.lossy`.
    """

    rounds: tuple[tuple[Round, ...], ...] | None = None
    lossy: tuple[bool, ...] | None = None


@dataclass(eq=False)
class CustomGenerate:
    """The decoding method made by `custom_generate`, which describes its fields, and called by ``generate``.

    ``rounds`` has the rounds of each row of the latest call; ``lossy`` says of each row whether lossy verification may
    have changed its answer.
    """

    draft: AnyDraft | None
    head: JudgeHead | None
    rule: VerificationRule
    num_draft_tokens: int
    draft_length: Callable[[int], DraftLength]
    guards: Sequence[Guard]
    seed: int | None
    on_round: Callable[[int, Round], None] | None
    rounds: tuple[tuple[Round, ...], ...] = ()
    lossy: tuple[bool, ...] = ()
    _experience: defaultdict[int, AcceptanceModel] = field(default_factory=lambda: defaultdict(AcceptanceModel))
    """By batch size."""

    @property
    def stats(self) -> Stats:
        """The counts of the latest call, summed over all rows."""
        return Stats.of(event for events in self.rounds for event in events)

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        **model_kwargs: Any,  # noqa: ANN401  (any argument of the model)
    ) -> Tensor | JudgedOutput:
        """Return the prompts [B, T] with their answers, padded to [B, T + N], or a dict with them, as ``generate``."""
        given = arguments_of_generate()
        _refuse(model, generation_config, logits_processor, self.rule, given, model_kwargs)
        live = _live(input_ids, model_kwargs)
        streamer = given.get("streamer")
        if streamer is not None and len(input_ids) > 1:
            raise JudgeDecodingError(f"A streamer shows one answer and there are {len(input_ids)}; leave it out.")
        if self.head is not None:
            self.head.check_fits(model, self.draft)
            self.head.to(model.device)
        requests = [
            self._request(model, input_ids, row, live[row], logits_processor, stopping_criteria, seed)
            for row, seed in enumerate(self._seeds(len(input_ids), sampled=bool(generation_config.do_sample)))
        ]
        pad = _padding(generation_config, requests)
        rounds: list[list[Round]] = [[] for _ in requests]
        for row, event in decode(model, as_drafter(self.draft, model), requests):
            rounds[row].append(event)
            if self.on_round is not None:
                self.on_round(row, event)
            if streamer is not None:
                for token in event.token_ids:
                    streamer.put(torch.tensor([token]))
        if streamer is not None:
            streamer.end()
        self.rounds = tuple(map(tuple, rounds))
        greedy = not generation_config.do_sample
        self.lossy = tuple(is_lossy(self.rule, events, greedy=greedy) for events in rounds)
        answers = [[token for event in events for token in event.token_ids] for events in rounds]
        width = max(map(len, answers))
        padded = input_ids.new_tensor([[*ids, *[pad] * (width - len(ids))] for ids in answers])
        sequences = torch.cat((input_ids, padded), dim=1)
        if generation_config.return_dict_in_generate:
            return JudgedOutput(sequences=cast(torch.LongTensor, sequences), rounds=self.rounds, lossy=self.lossy)
        return sequences

    def _seeds(self, count: int, *, sampled: bool) -> list[int | None]:
        if not sampled:
            return [None] * count
        if self.seed is not None:
            return [self.seed + row for row in range(count)]
        return torch.randint(2**62, (count,)).tolist()

    def _request(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        row: int,
        live: Tensor,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        seed: int | None,
    ) -> Request:
        """Build the request of one row: its prompt without padding; processors and criteria see the padding."""
        whole, prompt = input_ids[row], input_ids[row][live].to(model.device)
        if not len(prompt):
            raise JudgeDecodingError(f"Prompt {row + 1} is nothing but padding; give at least one token.")
        ends = [i for c in criteria if type(c) is EosTokenCriteria for i in c.eos_token_id.tolist()]
        limits = [c.max_length for c in criteria if type(c) is MaxLengthCriteria]
        others = StoppingCriteriaList([c for c in criteria if type(c) not in (EosTokenCriteria, MaxLengthCriteria)])
        budget = min([remaining_context(len(prompt), model), *(limit - len(whole) for limit in limits)])
        constraints = constraints_of(processors)
        sampler = Sampler(
            SamplingParams(temperature=0.0 if seed is None else 1.0, seed=seed), model.device,
            *(along([_for_row(p, whole, len(prompt), row, len(input_ids)) for p in each]) if each else None
              for each in (processors, constraints)),
        )  # fmt: skip
        length = self.draft_length(self.num_draft_tokens)
        length.remember(self._experience[len(input_ids)])
        return Request(
            prompt, self.rule, sampler, budget,
            length=length,
            end_ids=frozenset(ends),
            guards=self.guards,
            stop=Criteria(others, whole, len(input_ids)) if others else None,
        )  # fmt: skip


def _for_row(processor: LogitsProcessor, prompt: Tensor, length: int, row: int, rows: int) -> RowProcessor:
    """Return a logits processor of a batch for one of its rows, whose prompt without padding has ``length`` tokens.

    It was made for padded rows, and may depend on a row's index. So it gets the row with its padding and, where it may
    depend on the index, at its place in a batch of identical rows.
    """
    run = cast(RowProcessor, processor)  # transformers annotates tensors with the legacy LongTensor and FloatTensor
    if type(processor) in OF_LOGITS_ALONE:
        return run
    foreign = not type(processor).__module__.startswith("transformers.")
    row, rows = (row, rows) if foreign or isinstance(processor, _BY_ROW) else (0, 1)

    def process(ids: Tensor, logits: Tensor) -> Tensor:
        device = prompt.device  # may differ from the model's: inputs may stay on the CPU
        padded = torch.cat((prompt, ids[0, length:].to(device)))
        scores = run(padded.repeat(rows, 1), logits.to(device).repeat(rows, 1))
        return scores[row][None].to(logits.device)

    return process


def arguments_of_generate() -> Mapping[str, Any]:
    """Return the arguments of the ``generate`` call in progress.

    It does not pass all of them to a custom method. For example, a streamer that has received the prompt would wait
    forever for the answer, and an assistant model would be ignored silently.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not _GENERATE:
        frame = frame.f_back
    return {} if frame is None else dict(frame.f_locals)


def _refuse(
    model: PreTrainedModel,
    config: GenerationConfig,
    processors: LogitsProcessorList,
    rule: VerificationRule,
    given: Mapping[str, Any],
    model_kwargs: Mapping[str, Any],
) -> None:
    """Refuse unsupported arguments instead of ignoring them."""
    as_causal_lm(model)
    mode = config.get_generation_mode(given.get("assistant_model"))
    if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
        raise JudgeDecodingError(
            f"These arguments request {mode.value.replace('_', ' ')}, but judge decoding is greedy or samples, with "
            "the draft given to custom_generate; leave out num_beams, assistant_model and similar options."
        )
    if given.get("synced_gpus"):
        raise JudgeDecodingError("Judge decoding cannot synchronise several processes; leave out synced_gpus.")
    for name in ("output_scores", "output_logits", *_BY_MODEL):
        # generate ignores these without a dict output, and a model's configuration may enable them for every forward.
        by_model = getattr(model.config, name, False) and name not in given.get("kwargs", {})
        if not getattr(config, name) or not config.return_dict_in_generate or by_model:
            continue
        if not rule.is_lossless:
            raise JudgeDecodingError(
                f"{name} is set, but with {rule} some tokens are not the target's own; leave it out, or use exact "
                "verification through JudgeDecoder with logprobs=True."
            )
        raise JudgeDecodingError(
            f"{name} is set, but judge decoding does not record it; leave it out, or use JudgeDecoder with "
            "logprobs=True for the tokens' log-probabilities."
        )
    check_processors(processors)
    cache = next((model_kwargs[name] for name in CACHE_NAMES if name in model_kwargs), None)
    if config.cache_implementation not in (None, "dynamic") or getattr(cache, "_is_user_defined", False):
        raise JudgeDecodingError(
            "Judge decoding keeps its own KV cache, a dynamic one; leave yours out, and set "
            'cache_implementation to "dynamic" if the model says otherwise.'
        )
    unknown = sorted(
        name
        for name, value in model_kwargs.items()
        if name not in (*_USUAL, *_BY_MODEL) and not _carries_nothing(name, value)
    )
    if unknown:
        raise JudgeDecodingError(
            f"Judge decoding reads token ids only, and there is {', '.join(unknown)} too; leave it out."
        )


def _carries_nothing(name: str, value: object) -> bool:
    """Whether an argument only states that the input is plain text, as arguments added by processors may do."""
    if isinstance(value, Tensor):
        return name.endswith("token_type_ids") and not bool(value.any())
    return value is None or (isinstance(value, Mapping) and not value)


def _live(input_ids: Tensor, model_kwargs: Mapping[str, Any]) -> Tensor:
    """Return which of the ids are tokens and not padding, bool [B, T]."""
    if input_ids.ndim != 2 or not input_ids.shape[1]:
        raise JudgeDecodingError("There are no input_ids; give at least one token.")
    mask, positions = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
    live = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.to(input_ids.device) != 0
    if positions is not None and positions.ndim == 2:
        own = (live.long().cumsum(1) - 1).to(positions.device)
        # Without padding, generate itself makes a single row of positions for any batch size.
        odd = positions != own if len(positions) == len(own) else positions[:1] != own
        if bool((odd & live.to(odd.device)).any()):
            raise JudgeDecodingError("Judge decoding counts positions from a prompt's start; leave out position_ids.")
    return live


def _padding(config: GenerationConfig, requests: Sequence[Request]) -> int:
    """Return the token that pads answers which end before others."""
    if config.pad_token_id is not None:
        return int(config.pad_token_id)
    first = requests[0]
    if first.end_ids:  # generate also pads with the first of them
        return int(config.eos_token_id if isinstance(config.eos_token_id, int) else next(iter(config.eos_token_id)))
    if len(requests) > 1 and (first.stop or len({request.max_new_tokens for request in requests}) > 1):
        raise JudgeDecodingError("Answers of a batch may differ in length; give a pad_token_id.")
    return 0
