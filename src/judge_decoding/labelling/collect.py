"""Collect answers of models and sort them into right and wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from judge_decoding.bounds import check_bounds
from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.endpoint import Body, Endpoint, Reply
from judge_decoding.io.questions import Question
from judge_decoding.io.resume import Unfinished
from judge_decoding.tasks.checkers import Checker


@dataclass(frozen=True, slots=True)
class Answering:
    """How answers are generated.

    Attributes:
        samples: answers of each model to each question.
        temperature: sampling temperature; 0 is greedy.
        top_p: nucleus sampling; 1 is off.
        seed: makes sampled answers repeatable; it is sent to endpoints only if it is set.
        max_new_tokens: token budget of an answer.
        stop: strings that end an answer and are not part of it.
        system: the system message of a chat.

    Raises:
        JudgeDecodingError: a value is out of range, or more than one greedy answer is requested.
    """

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    system: str = ""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.samples > 1 and not self.temperature:
            raise JudgeDecodingError(
                f"{self.samples} samples at temperature 0 would all be the same answer; give --temperature."
            )
        if not all(self.stop):
            raise JudgeDecodingError("A stop string is empty; give at least one character.")

    def messages(self, text: str) -> list[dict[str, str]]:
        """The chat messages that ask ``text``."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": text}]


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """One requested answer: the ``sample``-th to ``question``."""

    question: Question
    sample: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a writer.

    Attributes:
        text: the text after the prompt.
        ended: whether it ended by itself, not at the token limit.
        token_ids: prompt and answer as token ids, if the writer read the prompt as the target will.
        tokenizer: fingerprint of the tokenizer of these ids.
    """

    text: str
    ended: bool
    token_ids: tuple[int, ...] | None = None
    tokenizer: str = ""


OnWritten = Callable[[AnswerRequest, Answer], None]
OnFailure = Callable[[AnswerRequest, str], None]
Writer = Callable[[Sequence[AnswerRequest], OnWritten, OnFailure], None]
"""Answers requests in any order, and reports each answer, or the reason of a failure, as soon as it is finished.

Raises JudgeDecodingError if it can give no further answers.
"""


@dataclass(frozen=True, slots=True)
class EndpointWriter:
    """A model at an endpoint; ``raw`` sends the prompt as it is (completions) instead of the question in a chat."""

    endpoint: Endpoint
    answering: Answering
    raw: bool = False

    def write(self, wants: Sequence[AnswerRequest], done: OnWritten, failed: OnFailure) -> None:
        """Answer ``wants``, several in parallel."""

        def take(want: AnswerRequest, reply: Reply) -> None:
            done(want, Answer(reply.text if self.raw else behind(want.question.prompt, reply.text), reply.ended))

        self.endpoint.request_all(((want, self._body(want)) for want in wants), take, failed)

    def _body(self, want: AnswerRequest) -> Body:
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


def seed_of(want: AnswerRequest, seed: int) -> int:
    """The seed of one answer: it depends on its question and sample alone, not on the other requests."""
    digest = hashlib.sha256(f"{seed} {want.sample} {want.question.prompt}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def behind(prompt: str, text: str) -> str:
    """A chat's answer, which starts a new text, in the form the target reads it: right after the prompt."""
    return f" {text}" if prompt[-1:].strip() and text[:1].strip() else text


def without_stop(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    return text[: min((text.find(string) for string in stop if string in text), default=len(text))]


CollectedKey = tuple[str, str, int]
"""Prompt, writer and sample."""


class CollectedAnswers(Unfinished[CollectedKey, Answer]):
    """The answers so far."""

    row = TypeAdapter(tuple[CollectedKey, Answer])


def collect(
    questions: Sequence[Question],
    writers: Mapping[str, Writer],
    samples: int,
    collected: CollectedAnswers,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, list[str]]:
    """Let every writer, by its name in the data, answer every question ``samples`` times; skip what already exists.

    Returns the reasons of the failures, by writer.

    Raises:
        JudgeDecodingError: a writer can give no further answers; finished answers are kept.
    """
    failures: dict[str, list[str]] = {}
    for name, write in writers.items():
        wants = [AnswerRequest(question, sample) for question in questions for sample in range(samples)]
        wants = [want for want in wants if (want.question.prompt, name, want.sample) not in collected.done]

        def done(want: AnswerRequest, answer: Answer, name: str = name) -> None:
            collected.add((want.question.prompt, name, want.sample), answer)
            progress()

        def failed(_: AnswerRequest, reason: str, name: str = name) -> None:
            failures.setdefault(name, []).append(reason)
            progress()

        if wants:
            write(wants, done, failed)
    return failures


@dataclass(slots=True)
class Tally:
    """Counts of one writer's answers by outcome; answers cut off at the token limit are not checked."""

    answers: int = 0
    right: int = 0
    wrong: int = 0
    unchecked: int = 0
    cut_off: int = 0

    def count(self, case: Case) -> None:
        """Count one more case."""
        self.answers += 1
        self.cut_off += not case.ended
        self.right += case.correct is True
        self.wrong += case.correct is False
        self.unchecked += case.correct is None


@dataclass(slots=True)
class CheckedCases:
    """The cases to keep, and the outcomes of all answers.

    Attributes:
        cases: the cases, ordered by question, writer and sample.
        tallies: the outcomes by writer, duplicates included.
        duplicates: number of answers that repeat another one to the same question; they are left out.
    """

    cases: list[Case] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)
    duplicates: int = 0


def sort_answers(
    questions: Sequence[Question],
    writers: Sequence[str],
    samples: int,
    collected: CollectedAnswers,
    checker: Checker | None = None,
    *,
    workers: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> CheckedCases:
    """Check the answers and keep each distinct text once per question.

    The answers of ``writers`` to ``questions`` count; missing ones are skipped. Those that hit the token limit or lack
    a reference are not checked. ``workers`` answers are checked in parallel; ``progress`` is called after each.
    """
    found = [
        (question, name, answer)
        for question in questions
        for name in writers
        for sample in range(samples)
        if (answer := collected.done.get((question.prompt, name, sample))) is not None
    ]

    def check(one: tuple[Question, str, Answer]) -> Case:
        question, name, answer = one
        verdict = None
        if checker is not None and answer.ended and question.reference:
            verdict = checker(question.text, answer.text, question.reference)
        return Case(
            question=question.prompt,
            answer=answer.text,
            ended=answer.ended,
            writer=name,
            reference=question.reference,
            correct=verdict,
            token_ids=answer.token_ids,
            tokenizer=answer.tokenizer,
        )

    result = CheckedCases(tallies={name: Tally() for name in writers})
    seen: set[tuple[str, str]] = set()
    with ThreadPoolExecutor(workers) as pool:
        for case in pool.map(check, found) if workers > 1 else map(check, found):
            result.tallies[case.writer].count(case)
            progress()
            if (case.question, case.answer) in seen:
                result.duplicates += 1
            else:
                seen.add((case.question, case.answer))
                result.cases.append(case)
    return result


def pairs(cases: Sequence[Case]) -> list[Case]:
    """One right and one wrong answer, the first of each, of the questions that have both."""
    first: dict[str, dict[bool, Case]] = {}
    for case in cases:
        if case.correct is not None:
            first.setdefault(case.question, {}).setdefault(case.correct, case)
    return [case for both in first.values() if len(both) == 2 for case in (both[True], both[False])]
