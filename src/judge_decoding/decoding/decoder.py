"""Text in, text out: the decoder most people use."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.decoding.drafting import Drafter, DraftModel
from judge_decoding.decoding.loading import check_same_vocabulary, load_model, load_tokenizer
from judge_decoding.decoding.loop import decode
from judge_decoding.decoding.rounds import Round, Stats
from judge_decoding.decoding.sampling import Sampler, SamplingParams
from judge_decoding.decoding.text import Detokenizer, pieces
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.head import JudgeHead
from judge_decoding.rules.base import VerificationRule
from judge_decoding.rules.exact import Exact
from judge_decoding.rules.judge import Judge

Prompt = str | Sequence[Mapping[str, str]] | Tensor
"""A text, chat messages (``{"role": ..., "content": ...}``), or token ids [T] or [1, T]."""

DEFAULT_NUM_DRAFT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one round adds: the event, and the text of each kept token (joined, they are the text)."""

    round: Round
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text this round adds."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer."""

    text: str
    token_ids: tuple[int, ...]
    rounds: tuple[Round, ...]
    seconds: float
    stats: Stats = field(repr=False)

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second, reading the prompt included."""
        return len(self.token_ids) / self.seconds if self.seconds else 0.0


class JudgeDecoder:
    """A target with a draft and, perhaps, a judge.

    Example::

        decoder = JudgeDecoder.from_pretrained("TARGET", draft="DRAFT", judge="HEAD")
        print(decoder.generate("What is 7 times 8?", max_new_tokens=64).text)

    Args:
        target: the model whose answers are wanted.
        tokenizer: its tokenizer.
        draft: a small model with the same vocabulary, any `Drafter`, or None for plain decoding.
        judge: a head trained for ``target``; without one verification is exact.
        num_draft_tokens: draft length M; by default the head's own best one, or 16.

    Raises:
        JudgeDecodingError: the judge is for another target, or a value is out of range.
    """

    def __init__(
        self,
        target: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        draft: PreTrainedModel | Drafter | None = None,
        judge: JudgeHead | None = None,
        *,
        num_draft_tokens: int | None = None,
    ) -> None:
        if judge is not None:
            judge.check_fits(target)
            judge.to(target.device)
        self.target, self.tokenizer, self.draft, self.judge = target, tokenizer, draft, judge
        if num_draft_tokens is None:
            own = judge.config.num_draft_tokens if judge is not None else None
            num_draft_tokens = own or DEFAULT_NUM_DRAFT_TOKENS
        _check_positive("num_draft_tokens", num_draft_tokens)
        self.num_draft_tokens = num_draft_tokens

    @classmethod
    def from_pretrained(
        cls,
        target: str | Path,
        draft: str | Path | Drafter | None = None,
        judge: str | Path | None = None,
        *,
        num_draft_tokens: int | None = None,
        **model_kwargs: Any,  # noqa: ANN401  (passed on)
    ) -> Self:
        """Load everything by name or folder.

        Args:
            target: Hub name or folder of the target.
            draft: the same of the draft, or any `Drafter`.
            judge: folder or Hub repository of a judge head.
            num_draft_tokens: draft length M.
            model_kwargs: given to ``AutoModelForCausalLM.from_pretrained`` for both models (``dtype``,
                ``device_map``, ...), and ``device`` for one device.

        Raises:
            JudgeDecodingError: something cannot be loaded, the vocabularies differ, or the head is for another model.
        """
        tokenizer = load_tokenizer(str(target))
        if isinstance(draft, str | Path):
            check_same_vocabulary(tokenizer, load_tokenizer(str(draft)))
        model = load_model(str(target), **model_kwargs)
        head = JudgeHead.from_pretrained(judge, model) if judge is not None else None
        drafter = load_model(str(draft), **model_kwargs) if isinstance(draft, str | Path) else draft
        return cls(model, tokenizer, drafter, head, num_draft_tokens=num_draft_tokens)

    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int = 256,
        *,
        threshold: float | None = None,
        rule: VerificationRule | None = None,
        num_draft_tokens: int | None = None,
        sampling: SamplingParams | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Generation:
        """Answer ``prompt``; see `stream` for the arguments."""
        begin = time.perf_counter()
        rounds = tuple(
            self.rounds(
                self.encode(prompt), max_new_tokens,
                threshold=threshold, rule=rule, num_draft_tokens=num_draft_tokens,
                sampling=sampling or SamplingParams(temperature=temperature, seed=seed),
            )
        )  # fmt: skip
        seconds = time.perf_counter() - begin
        ids = tuple(token for event in rounds for token in event.token_ids)
        return Generation("".join(pieces(self.tokenizer, ids)), ids, rounds, seconds, Stats.of(rounds))

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 256,
        *,
        threshold: float | None = None,
        rule: VerificationRule | None = None,
        num_draft_tokens: int | None = None,
        sampling: SamplingParams | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Iterator[Chunk]:
        """Answer ``prompt`` and yield each round as it ends.

        Args:
            prompt: a text, chat messages, or token ids.
            max_new_tokens: token budget; the context length also ends an answer.
            threshold: the judge's threshold, instead of the head's own; 1 is exact, 0 keeps every draft token.
            rule: a verification rule instead of the judge, such as ``Exact()`` or ``TopK(4)``.
            num_draft_tokens: draft length M of this answer.
            sampling: how tokens are chosen, instead of the two below.
            temperature: 0 is greedy.
            seed: makes a sampled answer repeatable.

        Raises:
            JudgeDecodingError: an empty or too long prompt, or a value out of range.
        """
        ids = self.encode(prompt)
        events = self.rounds(
            ids, max_new_tokens,
            threshold=threshold, rule=rule, num_draft_tokens=num_draft_tokens,
            sampling=sampling or SamplingParams(temperature=temperature, seed=seed),
        )  # fmt: skip
        detokenizer, left = Detokenizer(self.tokenizer), min(max_new_tokens, self._room(ids))
        for event in events:
            texts = [detokenizer.push(token) for token in event.token_ids]
            left -= len(texts)
            if event.stopped or not left:
                texts[-1] += detokenizer.flush()
            yield Chunk(event, tuple(texts))

    def rounds(
        self,
        ids: Tensor,
        max_new_tokens: int,
        *,
        threshold: float | None = None,
        rule: VerificationRule | None = None,
        num_draft_tokens: int | None = None,
        sampling: SamplingParams | None = None,
    ) -> Iterator[Round]:
        """The rounds that follow token ids [1, T]; the layer without text below `stream`."""
        length = self.num_draft_tokens if num_draft_tokens is None else num_draft_tokens
        _check_positive("num_draft_tokens", length)
        _check_positive("max_new_tokens", max_new_tokens)
        return decode(
            self.target,
            self._drafter(),
            ids,
            self._rule(rule, threshold),
            Sampler(sampling or SamplingParams(), self.target.device),
            num_draft_tokens=length,
            max_new_tokens=min(max_new_tokens, self._room(ids)),
            end_ids=self.end_ids,
        )

    def encode(self, prompt: Prompt) -> Tensor:
        """Token ids [1, T] of a prompt.

        Raises:
            JudgeDecodingError: the prompt is empty, has tokens the target does not know, or is chat messages that the
                model's chat template does not take.
        """
        if isinstance(prompt, Tensor):
            ids = prompt if prompt.ndim == 2 else prompt[None]
        elif isinstance(prompt, str):
            ids = torch.tensor([self.tokenizer(prompt)["input_ids"] if prompt.strip() else []], dtype=torch.long)
        else:
            text = self._render(prompt)
            ids = torch.tensor([self.tokenizer(text, add_special_tokens=False)["input_ids"]], dtype=torch.long)
        if ids.numel() == 0:
            raise JudgeDecodingError("The prompt is empty; give at least one token.")
        if ids.ndim != 2 or ids.shape[0] != 1:
            raise JudgeDecodingError(
                f"The prompt's token ids have shape {tuple(ids.shape)}; give one prompt at a time."
            )
        last = self.target.get_input_embeddings().get_parameter("weight").shape[0] - 1
        if ids.min() < 0 or ids.max() > last:
            raise JudgeDecodingError(
                f"The prompt has token ids {int(ids.min())} to {int(ids.max())}, but the target knows 0 to {last}; "
                "use the target's own tokenizer."
            )
        return ids.to(self.target.device, torch.long)

    def _render(self, prompt: Sequence[Mapping[str, str]]) -> str:
        """The text of chat messages."""
        if not all(isinstance(message, Mapping) for message in prompt):
            raise JudgeDecodingError(
                "The prompt is no text, no chat messages and no tensor of token ids; give one of these, one at a time."
            )
        if not prompt:
            raise JudgeDecodingError("The prompt is empty; give at least one message.")
        if not self.tokenizer.chat_template:
            raise JudgeDecodingError("This model has no chat template; give the prompt as text.")
        messages = [dict(message) for message in prompt]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise JudgeDecodingError(
                f"The model's chat template refuses these messages ({error}); give the roles and texts it expects."
            ) from error
        return str(text)

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        end = getattr(self.target.generation_config, "eos_token_id", None)  # a custom model may have no config
        if end is None:
            end = self.tokenizer.eos_token_id
        return frozenset(end if isinstance(end, list) else [] if end is None else [end])

    def _rule(self, rule: VerificationRule | None, threshold: float | None) -> VerificationRule:
        if rule is not None:
            if threshold is not None:
                raise JudgeDecodingError("Give either a rule or the judge's threshold, not both.")
            return rule
        if self.judge is not None:
            return Judge(self.judge, threshold)
        if threshold is not None:
            raise JudgeDecodingError("A threshold needs a judge; give a judge head, or leave the threshold out.")
        return Exact()

    def _drafter(self) -> Drafter | None:
        """The drafter of one answer: a draft model's cache belongs to a single sequence."""
        if isinstance(self.draft, PreTrainedModel):
            return DraftModel(self.draft, self.target.get_output_embeddings().weight.shape[0])
        return self.draft

    def _room(self, ids: Tensor) -> int:
        """How many tokens may follow before a model's context is full."""
        models = [m for m in (self.target, self.draft) if isinstance(m, PreTrainedModel)]
        lengths = [getattr(m.config.get_text_config(), "max_position_embeddings", None) for m in models]
        context: int | None = min((n for n in lengths if n), default=None)
        if context is None:
            return 2**31
        if ids.shape[1] >= context:
            raise JudgeDecodingError(
                f"The prompt has {ids.shape[1]} tokens and the context of this pair is {context}; shorten the prompt."
            )
        return context - ids.shape[1]


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise JudgeDecodingError(f"{name} is {value}; it must be 1 or more.")
