"""Text in, text out: the decoder for most uses."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self, Unpack

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.bounds import check_bound
from judge_decoding.core.rounds import Round, Stats
from judge_decoding.decoding.answer import Chunk, Generation, Options, is_lossy
from judge_decoding.decoding.choices import (
    AnyDraft,
    choose_num_draft_tokens,
    choose_rule,
    remaining_context,
    unwrap_draft,
)
from judge_decoding.decoding.engines import Backend, Engine, check_backend
from judge_decoding.decoding.generation import Defaults
from judge_decoding.decoding.guards import check_guards
from judge_decoding.decoding.lengths import AcceptanceModel, Fixed
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.request import Request
from judge_decoding.decoding.sampling import Processor, Sampler, SamplingParams
from judge_decoding.decoding.stopping import Criteria, Stop, StopStrings, either
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import ACCESS, as_draft, load_model, load_tokenizer, tokenizer_options
from judge_decoding.models.abilities import as_causal_lm
from judge_decoding.models.forward import input_rows
from judge_decoding.models.text import Detokenizer, pieces
from judge_decoding.models.tokenize import Prompt, bare_ids, encode_prompt, end_ids
from judge_decoding.names import complete, embedded_path
from judge_decoding.spelling import guess

if TYPE_CHECKING:
    from judge_decoding.decoding.backends.static.compiling import CompileProgress


class JudgeDecoder:
    """A target model with a draft and, optionally, a judge head.

    Example:
        ```python
        decoder = JudgeDecoder.from_pretrained("TARGET", draft="DRAFT", judge="HEAD")
        print(decoder.generate("What is 7 times 8?", max_new_tokens=64).text)
        ```

    Several threads may share one decoder, or decoders that share models; their forward passes take turns.

    Args:
        target: the target model, which defines the answers.
        tokenizer: the target's tokenizer.
        draft: a small model with the same vocabulary, any `Drafter`, a function from the ids so far and a count to
            the ids it proposes, or None for plain decoding.
        judge: a head trained for ``target``; without a head, verification is exact.
        num_draft_tokens: draft length M; by default the best one for the head, or 16.
        backend: "eager" runs the models as they are; "static" compiles them at the first answer (or in `compile`), once
            per machine, and gives the same tokens faster. Models that cannot be compiled run eagerly; see `fallbacks`.
        generation_config: default decoding options for each call: logits processors, sampling, token budget,
            stop strings. By default the model's own, as for transformers' ``generate``; an empty
            ``GenerationConfig()`` sets no options.

    Raises:
        JudgeDecodingError: the judge is for another target, or a value is out of range.
    """

    def __init__(
        self,
        target: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        draft: AnyDraft | None = None,
        judge: JudgeHead | None = None,
        *,
        num_draft_tokens: int | None = None,
        backend: Backend = "eager",
        generation_config: GenerationConfig | None = None,
    ) -> None:
        check_backend(backend)
        target, draft = as_causal_lm(target), unwrap_draft(draft)
        if judge is not None:
            judge.check_fits(target, draft)
            judge.to(target.device)
        self.target, self.tokenizer, self.judge = target, tokenizer, judge
        self.draft = draft
        self.num_draft_tokens = choose_num_draft_tokens(judge, num_draft_tokens)
        self.backend = backend
        self._engine: Engine | None = None
        self._engine_lock = RLock()
        self._defaults = Defaults(self.target, generation_config)
        # Keyed by rule and batch size.
        self._experience: defaultdict[tuple[str, int], AcceptanceModel] = defaultdict(AcceptanceModel)

    @classmethod
    def from_pretrained(
        cls,
        target: str | Path,
        draft: str | Path | AnyDraft | None = None,
        judge: str | Path | None = None,
        *,
        num_draft_tokens: int | None = None,
        translate: bool = False,
        backend: Backend = "eager",
        generation_config: GenerationConfig | None = None,
        draft_kwargs: Mapping[str, Any] | None = None,
        **model_kwargs: Any,  # noqa: ANN401  (passed on)
    ) -> Self:
        """Load the models and the judge by name or folder.

        Args:
            target: Hub name or folder of the target or of a LoRA adapter for it, or "reference" for the embedded
                target, whose draft and judge are then the defaults, as on the command line.
            draft: Hub name or folder of the draft, "prompt-lookup", or any draft that the class accepts.
            judge: folder or Hub repository of a judge head; "reference" is the embedded head.
            num_draft_tokens: draft length M.
            translate: translate a draft with another vocabulary through text; see `TranslatingDraft`.
            backend: "eager" or "static".
            generation_config: see `JudgeDecoder`.
            draft_kwargs: options for loading the draft, such as ``{"revision": "v2"}``; they override ``model_kwargs``.
            model_kwargs: options of ``AutoModelForCausalLM.from_pretrained``, and ``device``: one device, or "auto" to
                divide the target over all GPUs. Options about access (``token``, ``cache_dir``, ``local_files_only``,
                ``trust_remote_code``, ...) and about the machine (``dtype``, ``device_map``, ``attn_implementation``,
                ``quantization_config``, ...) apply to target and draft. All others apply to the target only:
                ``revision``, ``variant``, ``gguf_file``, configuration values. A ``subfolder`` applies to the draft too
                if the draft has such a folder. Tokenizers get the options meant for them. By default
                ``trust_remote_code`` is False and ``use_safetensors`` is True.

        Raises:
            JudgeDecodingError: a model cannot be loaded, the vocabularies differ, or the head is for another model.
        """
        draft, judge = complete(target, draft, judge)
        target = embedded_path(target, "target")
        tokenizer = load_tokenizer(target, **tokenizer_options(model_kwargs))
        drafter = as_draft(draft, lambda: tokenizer, translate=translate, draft_kwargs=draft_kwargs, **model_kwargs)
        model = load_model(target, **model_kwargs)
        head = None
        if judge is not None:
            access = {key: value for key, value in model_kwargs.items() if key in ACCESS}
            head = JudgeHead.from_pretrained(judge, model, **access)
        return cls(
            model, tokenizer, drafter, head,
            num_draft_tokens=num_draft_tokens, backend=backend, generation_config=generation_config,
        )  # fmt: skip

    def compile(self, progress: CompileProgress = lambda _: None) -> tuple[str, ...]:
        """Prepare the models for the back end, and return why some of them stay eager (`fallbacks`).

        If not called, this happens at the first answer. ``progress`` gets a short message before each compilation.
        """
        self._ready(progress)
        return self.fallbacks

    def alone(self) -> JudgeDecoder:
        """Return a decoder for the target without draft and judge, on the same back end."""
        decoder = JudgeDecoder(self.target, self.tokenizer, backend=self.backend)
        decoder._defaults = self._defaults
        decoder._engine = self._ready().alone()
        return decoder

    @property
    def draft_model(self) -> PreTrainedModel | None:
        """The draft, if it is a model; None without a draft, and for any other drafter."""
        return self.draft if isinstance(self.draft, PreTrainedModel) else None

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Why models run eagerly although the static back end was requested; empty before the first answer."""
        return self._engine.fallbacks if self._engine else ()

    def _ready(self, progress: CompileProgress = lambda _: None) -> Engine:
        with self._engine_lock:
            if self._engine is None or self._engine.draft is not self.draft:
                self._engine = Engine(self.target, self.draft, self.judge, self.backend, progress)
            return self._engine

    def __getstate__(self) -> dict[str, Any]:
        """Leave the compiled code out of copies: it is bound to these weights and is reloaded when needed."""
        made_anew = ("_engine", "_engine_lock", "_experience")
        return {name: value for name, value in vars(self).items() if name not in made_anew}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _engine=None, _engine_lock=RLock(), _experience=defaultdict(AcceptanceModel))

    def generate(self, prompt: Prompt, max_new_tokens: int | None = None, **options: Unpack[Options]) -> Generation:
        """Answer ``prompt``.

        Args:
            prompt: a text, chat messages, or token ids.
            max_new_tokens: token budget; by default that of the model's generation configuration, or 256. The context
                length also ends an answer; `Generation.finish_reason` says which.
            options: see `Options`.

        Raises:
            JudgeDecodingError: an empty or too long prompt, or a value out of range.
        """
        begin = time.perf_counter()
        request = self._request(self.encode(prompt), max_new_tokens, options)
        rounds = list(self._rounds(request))
        return self._finished(request, rounds, time.perf_counter() - begin)

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int | None = None,
        *,
        batch_size: int = 8,
        seeds: Sequence[int] | None = None,
        progress: Callable[[], None] = lambda: None,
        **options: Unpack[Options],
    ) -> list[Generation]:
        """Answer many prompts, ``batch_size`` at a time; each answer is the same as for its prompt alone.

        Args:
            prompts: texts, chats or token ids.
            max_new_tokens: token budget per answer; see `generate`.
            batch_size: number of prompts per forward pass. Models with sliding windows answer prompts one by one.
            seeds: one seed per prompt; by default all use the seed in ``options``.
            progress: called after each answer.
            options: see `Options`.

        Raises:
            JudgeDecodingError: as `generate`, or the number of seeds differs from the number of prompts.
        """
        _check_options(options, "batch_size", "progress", "seeds")
        check_bound("batch_size", batch_size)
        if seeds is not None and len(seeds) != len(prompts):
            raise JudgeDecodingError(
                f"There are {len(prompts)} prompts and {len(seeds)} seeds; give one seed per prompt."
            )
        ids = [self.encode(prompt) for prompt in prompts]
        rows = min(batch_size, len(ids))
        # Share one rule object, so that all rows are verified together.
        options["rule"] = choose_rule(self.judge, options.get("rule"), options.pop("threshold", None))
        each = [
            self._request(own, max_new_tokens, options, seeds[i] if seeds else None, rows) for i, own in enumerate(ids)
        ]
        answers: dict[int, Generation] = {}
        engine = self._ready()
        # Batch prompts of similar length, for little padding.
        order = sorted(range(len(each)), key=lambda i: -ids[i].shape[1])
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            rounds: list[list[Round]] = [[] for _ in chosen]
            begin = time.perf_counter()
            for row, event in decode(engine.target, engine.drafter(), [each[i] for i in chosen]):
                rounds[row].append(event)
            seconds = time.perf_counter() - begin
            for i, events in zip(chosen, rounds, strict=True):
                answers[i] = self._finished(each[i], events, seconds)
                progress()
        return [answers[i] for i in range(len(each))]

    def stream(self, prompt: Prompt, max_new_tokens: int | None = None, **options: Unpack[Options]) -> Iterator[Chunk]:
        """Answer ``prompt`` and yield each round as it ends; see `generate`."""
        request = self._request(self.encode(prompt), max_new_tokens, options)
        events = self._rounds(request)  # errors are raised here, not at the first chunk
        return self._chunks(request, events)

    def _chunks(self, request: Request, events: Iterator[Round]) -> Iterator[Chunk]:
        detokenizer, left = Detokenizer(self.tokenizer, self.end_ids), request.max_new_tokens
        lossy = False
        for event in events:
            lossy = lossy or is_lossy(request.rule, [event], greedy=request.sampler.greedy)
            texts = [detokenizer.push(token) for token in event.token_ids]
            left -= len(texts)
            if not (event.stopped or not left):
                yield Chunk(event, tuple(texts), lossy=lossy)
                continue
            texts[-1] += detokenizer.flush()
            yield Chunk(event, tuple(texts), request.finish_reason(event), lossy)

    def rounds(self, ids: Tensor, max_new_tokens: int | None, **options: Unpack[Options]) -> Iterator[Round]:
        """Yield the rounds that follow token ids [1, T]; the token-level layer below `stream`."""
        return self._rounds(self._request(ids, max_new_tokens, options))

    def _rounds(self, request: Request) -> Iterator[Round]:
        engine = self._ready()
        return (event for _, event in decode(engine.target, engine.drafter(), [request]))

    def encode(self, prompt: Prompt) -> Tensor:
        """Return the token ids [1, T] of a prompt, on the target's device; see `encode_prompt`."""
        return encode_prompt(prompt, self.tokenizer, input_rows(self.target)).to(self.target.device)

    def _request(
        self, ids: Tensor, max_new_tokens: int | None, options: Options, seed: int | None = None, rows: int = 1
    ) -> Request:
        """Check the options and build the request for one answer; ``rows`` is the batch size."""
        _check_options(options)
        if max_new_tokens is None:
            max_new_tokens = self.max_new_tokens(ids.shape[1])
        check_bound("max_new_tokens", max_new_tokens)
        room = remaining_context(ids.shape[1], self.target)
        count = options.get("num_draft_tokens")
        count = self.num_draft_tokens if count is None else count
        check_bound("num_draft_tokens", count)
        seed = options.get("seed") if seed is None else seed
        sampling = self._defaults.sampling(options.get("sampling"), options.get("temperature"), seed)
        rule = choose_rule(self.judge, options.get("rule"), options.get("threshold"))
        for name, what in (("logprobs", "log-probabilities"), ("for_training", "training data")):
            if options.get(name) and not rule.is_lossless:
                raise JudgeDecodingError(
                    f"{what.capitalize()} of the target were requested, but with {rule} some tokens are not the "
                    "target's own; use rule exact, or the judge at threshold 1."
                )
        strings = options.get("stop", self._defaults.stop_strings)
        strings = [strings] if isinstance(strings, str) and strings else list(strings)
        prepared = self._defaults.prepare(ids, sampling, max_new_tokens, tuple(self.end_ids))
        stops: list[Stop] = [
            *([StopStrings(strings, self.tokenizer, ids[0].tolist())] if strings else []),
            *([Criteria(prepared.criteria, ids[0])] if prepared.criteria else []),
        ]
        length = options.get("draft_length", Fixed)(count)
        length.remember(self._experience[str(rule), rows])
        return Request(
            ids[0], rule, Sampler(sampling, self.target.device, prepared.processor, prepared.constraint),
            min(max_new_tokens, room),
            length=length,
            end_ids=self.end_ids,
            guards=check_guards(options.get("guards", ()), lambda text: bare_ids(text, self.tokenizer)),
            stop=either(stops),
            logprobs=options.get("logprobs", False),
            details=options.get("details", False),
            limit="context" if room < max_new_tokens else "length",
        )  # fmt: skip

    def sampling(self, temperature: float | None = None, seed: int | None = None) -> SamplingParams:
        """Return the default sampling parameters, from the generation configuration."""
        return self._defaults.sampling(None, temperature, seed)

    def max_new_tokens(self, prompt_length: int) -> int:
        """Return the default token budget after a prompt of ``prompt_length`` tokens."""
        return self._defaults.max_new_tokens(prompt_length)

    def processor(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Processor | None:
        """Return the logits processors of a greedy answer to ``prompt_ids``, from the generation configuration."""
        ids = torch.tensor([list(prompt_ids)], device=self.target.device)
        return self._defaults.prepare(ids, SamplingParams(), max_new_tokens, tuple(self.end_ids)).processor

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The default stop strings, from the generation configuration."""
        return self._defaults.stop_strings

    def _finished(self, request: Request, rounds: Sequence[Round], seconds: float) -> Generation:
        ids = tuple(token for event in rounds for token in event.token_ids)
        texts = tuple(pieces(self.tokenizer, ids, self.end_ids))
        reason = request.finish_reason(rounds[-1])
        lossy = is_lossy(request.rule, rounds, greedy=request.sampler.greedy)
        return Generation("".join(texts), ids, tuple(rounds), seconds, reason, Stats.of(rounds), texts, lossy)

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return frozenset(end_ids(self.target, self.tokenizer))


def _check_options(options: Options, *own: str) -> None:
    """Refuse an unknown option; ``own`` are arguments of a method besides those that all have."""
    for name in options:
        if name not in Options.__optional_keys__:
            known = sorted({*Options.__optional_keys__, "max_new_tokens", *own})
            raise TypeError(f"unexpected option {name!r}{guess(name, known)}; the options are {', '.join(known)}")
