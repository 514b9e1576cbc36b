"""Who answers: a local model through the batch engine, or a model behind an endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import Body, Endpoint, Reply
from judge_decoding.labelling.collect import Answer, Answering, Want


@dataclass(frozen=True, slots=True)
class LocalWriter:
    """A local model that decodes plainly, by itself; each answer is what its question would get alone.

    Attributes:
        name: in the data.
        model: Hub name or folder.
        answering: how answers are made.
        chat: the model reads the question through its own chat template, if it has one; else it reads the prompt.
        batch_size: answers that share the forwards.
        dtype: as ``from_pretrained`` takes it.
    """

    name: str
    model: str
    answering: Answering
    chat: bool = False
    batch_size: int = 8
    dtype: str = "auto"

    def write(
        self, wants: Sequence[Want], done: Callable[[Want, Answer], None], failed: Callable[[Want, str], None]
    ) -> None:
        """Answer ``wants``, the longest prompts first; those that do not fit the context fail."""
        from torch import Tensor

        from judge_decoding.data.tokens import fingerprint
        from judge_decoding.decoder import JudgeDecoder
        from judge_decoding.decoding.choices import room
        from judge_decoding.decoding.sampling import SamplingParams
        from judge_decoding.loading.models import usual_device
        from judge_decoding.models.text import pieces

        how = self.answering
        decoder = JudgeDecoder.from_pretrained(self.model, dtype=self.dtype, device=usual_device())
        chat = self.chat and bool(decoder.tokenizer.chat_template)
        known: dict[str, Tensor] = {}
        todo: list[tuple[Want, Tensor]] = []
        for want in wants:
            question = want.question
            try:
                if question.prompt not in known:
                    ids = decoder.encode(how.messages(question.text) if chat else question.prompt)
                    room(ids.shape[1], decoder.target)
                    known[question.prompt] = ids
            except JudgeDecodingError as error:
                failed(want, str(error))
                continue
            todo.append((want, known[question.prompt]))
        todo.sort(key=lambda one: -one[1].shape[1])  # prompts of like length together: little padding
        tokenizer, ends, name = decoder.tokenizer, decoder.end_ids, fingerprint(decoder.tokenizer)

        def answer(want: Want, prompt: list[int], said: tuple[int, ...], *, ended: bool) -> Answer:
            """The text behind the prompt, as some tokenizers drop the space at the beginning of a text."""
            whole = "".join(pieces(tokenizer, [*prompt, *said], ends)[len(prompt) :])
            text = without_stop(whole, how.stop)
            # The writer may have read another chat than the target will.
            if chat and prompt != decoder.encode(want.question.prompt)[0].tolist():
                return Answer(behind(want.question.prompt, text), ended)
            is_whole = not ended or said[-1] in ends
            return Answer(text, ended, (*prompt, *said), name) if is_whole else Answer(text, ended)

        sampling = SamplingParams(temperature=how.temperature, top_p=how.top_p)
        for first in range(0, len(todo), self.batch_size):
            part = todo[first : first + self.batch_size]
            made = decoder.generate_batch(
                [ids for _, ids in part], how.max_new_tokens,
                batch_size=self.batch_size, seeds=[seed_of(want, how.seed or 0) for want, _ in part],
                sampling=sampling, stop=how.stop,
            )  # fmt: skip
            for (want, ids), one in zip(part, made, strict=True):
                ended = bool(one.rounds) and one.rounds[-1].stopped
                done(want, answer(want, ids[0].tolist(), one.token_ids, ended=ended))


@dataclass(frozen=True, slots=True)
class EndpointWriter:
    """A model behind an endpoint.

    Attributes:
        name: in the data.
        endpoint: where it is.
        answering: how answers are made.
        raw: the model reads the prompt as it is (completions) instead of the question in a chat.
    """

    name: str
    endpoint: Endpoint
    answering: Answering
    raw: bool = False

    def write(
        self, wants: Sequence[Want], done: Callable[[Want, Answer], None], failed: Callable[[Want, str], None]
    ) -> None:
        """Answer ``wants``, several at a time."""

        def take(want: Want, reply: Reply) -> None:
            done(want, Answer(reply.text if self.raw else behind(want.question.prompt, reply.text), reply.ended))

        self.endpoint.ask_all(((want, self._body(want)) for want in wants), take, failed)

    def _body(self, want: Want) -> Body:
        how = self.answering
        body: Body = {"max_tokens": how.max_new_tokens, "temperature": how.temperature}
        if how.top_p < 1:
            body["top_p"] = how.top_p
        if how.stop:
            body["stop"] = list(how.stop)
        if how.seed is not None:
            body["seed"] = seed_of(want, how.seed) % 2**31
        if self.raw:
            return body | {"prompt": want.question.prompt}
        return body | {"messages": how.messages(want.question.text)}


def seed_of(want: Want, seed: int) -> int:
    """The seed of one answer: it depends on its question and sample alone, not on what else is asked."""
    digest = hashlib.sha256(f"{seed} {want.sample} {want.question.prompt}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def behind(prompt: str, text: str) -> str:
    """A chat's answer, which begins anew, as the target reads it: right behind the prompt."""
    return f" {text}" if prompt[-1:].strip() and text[:1].strip() else text


def without_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return text[: min((text.find(string) for string in stop if string in text), default=len(text))]
