"""Answers of a local model, by the batch engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from judge_decoding.data.tokens import fingerprint
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.choices import room
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.labelling.collect import Answer, Answering, Want
from judge_decoding.labelling.writers import behind, seed_of, without_stop
from judge_decoding.loading.models import usual_device
from judge_decoding.models.text import pieces


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
