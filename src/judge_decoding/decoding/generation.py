"""Applies a model's generation configuration through transformers' own ``generate``.

``generation_config.json`` contains more than end tokens: Qwen2.5 ships a repetition penalty, others suppress
tokens, bias sequences or sample by default. ``generate`` turns all of that into logits processors and stopping
criteria, differently in every version. So ``generate`` itself is called with a custom decoding method that only records
its arguments.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    EncoderRepetitionPenaltyLogitsProcessor,
    EosTokenCriteria,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinPLogitsWarper,
    PreTrainedModel,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteriaList,
    SynthIDTextWatermarkLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from judge_decoding.bounds import check_bound
from judge_decoding.decoding.sampling import Processor, RowProcessor, SamplingParams, TruncationWarper, along
from judge_decoding.errors import JudgeDecodingError, reason

logger = logging.getLogger(__name__)

DEFAULT_MAX_NEW_TOKENS = 256
_DEFAULT_TOP_K = 50
"""The ``top_k`` that ``generate`` uses where a configuration samples and sets none."""

# These keep state between calls, so they cannot process a draft that may be rejected.
_WITH_MEMORY = (SynthIDTextWatermarkLogitsProcessor, UnbatchedClassifierFreeGuidanceLogitsProcessor)
# These compare tokens with each other; all other processors may forbid a token whatever its probability.
_NO_CONSTRAINTS = (
    EncoderRepetitionPenaltyLogitsProcessor,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TruncationWarper,
    TypicalLogitsWarper,
)
# Settings of a configuration that verification ignores: beams and other drafts, caches, outputs.
_SET_ASIDE: dict[str, Any] = {
    "num_beams": 1, "num_beam_groups": None, "num_return_sequences": 1, "penalty_alpha": None, "dola_layers": None,
    "constraints": None, "force_words_ids": None, "prompt_lookup_num_tokens": None, "assistant_early_exit": None,
    "use_mtp": None, "cache_implementation": None, "compile_config": None, "token_healing": False,
    "output_scores": None, "output_logits": None, "output_attentions": None, "output_hidden_states": None,
    "return_dict_in_generate": None,
}  # fmt: skip
_OF_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "top_h")


def constraints_of(processors: LogitsProcessorList) -> LogitsProcessorList:
    """Return the ``processors`` that forbid tokens for what they are, not because others are more probable."""
    return LogitsProcessorList([p for p in processors if not isinstance(p, _NO_CONSTRAINTS)])


def check_processors(processors: LogitsProcessorList) -> None:
    """Check that all of ``processors`` can process a draft that may be rejected."""
    for processor in processors:
        if isinstance(processor, _WITH_MEMORY):
            raise JudgeDecodingError(
                f"{type(processor).__name__} keeps state between tokens, which a rejected draft would corrupt; decode "
                "without guidance_scale and SynthID watermarks."
            )


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """How one answer is decoded: all logits processors, those that forbid tokens, and its own stopping criteria."""

    processor: Processor | None = None
    constraint: Processor | None = None
    criteria: StoppingCriteriaList | None = None


class Defaults:
    """The defaults from a model's generation configuration, which a call may override.

    ``config`` replaces the model's own; an empty ``GenerationConfig()`` turns it off.
    """

    def __init__(self, model: PreTrainedModel, config: GenerationConfig | None = None) -> None:
        self._model, self._override = model, config
        self._plain: set[str] = set()
        self._warned = False

    @property
    def config(self) -> GenerationConfig:
        """The configuration in effect."""
        own: GenerationConfig | None = getattr(self._model, "generation_config", None)
        return self._override or own or GenerationConfig()

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end an answer."""
        strings = self.config.stop_strings or ()
        found = [strings] if isinstance(strings, str) else strings
        if not isinstance(found, list | tuple) or not all(isinstance(string, str) for string in found):
            raise self._refused(TypeError(f"stop_strings is {strings!r}"))
        return tuple(found)

    def max_new_tokens(self, prompt_length: int) -> int:
        """Return the token budget of an answer."""
        config = self.config
        if config.max_new_tokens is not None:
            return int(config.max_new_tokens)
        if config.max_length is not None:
            return max(int(config.max_length) - prompt_length, 1)
        return DEFAULT_MAX_NEW_TOKENS

    def sampling(self, params: SamplingParams | None, temperature: float | None, seed: int | None) -> SamplingParams:
        """Return the sampling parameters: those of the call, else those of the configuration."""
        if params is not None:
            return params if seed is None else replace(params, seed=seed)
        if temperature is not None:
            return SamplingParams(temperature=temperature, seed=seed)
        config = self.config
        if not config.do_sample:
            return SamplingParams(seed=seed)
        # As in generate, with its default where the configuration sets none.
        top_k = _DEFAULT_TOP_K if config.top_k is None else config.top_k
        temperature = 1.0 if config.temperature is None else config.temperature
        try:
            math.isfinite(temperature)  # raises TypeError if it is not a number
            found = SamplingParams(temperature=temperature, top_k=top_k, seed=seed)
        except (TypeError, JudgeDecodingError) as error:
            raise self._refused(error) from error
        if not self._warned:
            self._warned = True
            logger.warning(
                "Sampling at temperature %g, as the generation configuration of %s says; pass temperature=0 for greedy "
                "decoding.", found.temperature, self._model.config.name_or_path or type(self._model).__name__,
            )  # fmt: skip
        return found

    def prepare(
        self, ids: Tensor, params: SamplingParams, max_new_tokens: int, end_ids: Sequence[int]
    ) -> PreparedRequest:
        """Return the logits processors and stopping criteria for an answer to the prompt ``ids`` [1, T]."""
        config = self._cleaned(params)
        key = f"{params.temperature > 0} {sorted(config.to_diff_dict().items(), key=str)}"
        processors, criteria = LogitsProcessorList(), StoppingCriteriaList()
        if key not in self._plain:
            processors, criteria = self._as_in_generate(ids, config, max_new_tokens, sorted(end_ids))
            if not processors and not criteria:
                self._plain.add(key)
        check_processors(processors)
        if params.truncation is not None:
            processors.append(TruncationWarper(params.truncation))
        constraints = constraints_of(processors)
        return PreparedRequest(
            self._guarded(processors) if processors else None,
            self._guarded(constraints) if constraints else None,
            criteria or None,
        )

    def _guarded(self, processors: LogitsProcessorList) -> Processor:
        """Return ``processors`` for all positions of a draft; a failure is reported as a fault of the configuration."""
        of_all = along(cast(Sequence[RowProcessor], processors))  # transformers annotates tensors by legacy types

        def process(ids: Tensor, logits: Tensor) -> Tensor:
            try:
                return of_all(ids, logits)
            except Exception as error:  # transformers applies an untrusted configuration file
                raise self._refused(error) from error

        return process

    def _cleaned(self, params: SamplingParams) -> GenerationConfig:
        """Return the configuration overridden by the call's parameters, without settings that do not apply here."""
        config = copy.deepcopy(self.config)
        try:
            for name in ("no_repeat_ngram_size", "encoder_no_repeat_ngram_size"):  # transformers counts up to them
                check_bound(name, getattr(config, name, None))
        except JudgeDecodingError as error:
            raise self._refused(error) from error
        for name, value in _SET_ASIDE.items():
            if hasattr(config, name):
                setattr(config, name, value)
        config.stop_strings = None  # they are matched in the text, which needs a tokenizer
        config.do_sample = params.temperature > 0
        if config.do_sample:
            config.temperature = params.temperature
            config.top_k = 0 if config.top_k is None else config.top_k
            for name in ("top_p", "top_k", "min_p"):
                if (value := getattr(params, name)) is not None:
                    setattr(config, name, value)
            config.min_p = config.min_p or None
        else:
            for name in _OF_SAMPLING:
                setattr(config, name, None)
        if params.repetition_penalty is not None:
            config.repetition_penalty = params.repetition_penalty
        return config

    def _refused(self, error: Exception) -> JudgeDecodingError:
        name = self._model.config.name_or_path or type(self._model).__name__
        return JudgeDecodingError(
            f"The generation configuration of {name} cannot be followed ({reason(error)}); correct it, or decode "
            "without it: generation_config=GenerationConfig() (--generation-config none)."
        )

    def _as_in_generate(
        self, ids: Tensor, config: GenerationConfig, max_new_tokens: int, end_ids: list[int]
    ) -> tuple[LogitsProcessorList, StoppingCriteriaList]:
        """Return the logits processors and stopping criteria that ``generate`` builds from a configuration."""
        if not isinstance(self._model, GenerationMixin):
            return LogitsProcessorList(), StoppingCriteriaList()
        found: list[tuple[LogitsProcessorList, StoppingCriteriaList]] = []

        def keep(
            _model: PreTrainedModel,
            input_ids: Tensor,
            logits_processor: LogitsProcessorList,
            stopping_criteria: StoppingCriteriaList,
            **_: object,
        ) -> Tensor:
            found.append((logits_processor, stopping_criteria))
            return input_ids

        # generate fills unset values from the model's own configuration, so the model must have this one.
        model = copy.copy(self._model)
        model.generation_config = config
        config.max_new_tokens, config.max_length = max_new_tokens, None
        config.eos_token_id = end_ids or None
        config.pad_token_id = 0 if config.pad_token_id is None else config.pad_token_id
        generate = cast(Callable[..., Tensor], GenerationMixin.generate)
        try:
            generate(model, ids, attention_mask=torch.ones_like(ids), custom_generate=keep)
            processors, criteria = found[0]
            criteria(ids, None)  # faulty criteria fail now
        except Exception as error:  # transformers applies an untrusted configuration file
            raise self._refused(error) from error
        usual = (EosTokenCriteria, MaxLengthCriteria)
        return processors, StoppingCriteriaList([c for c in criteria if type(c) not in usual])
