"""Sample files: JSONL, one answer with its rounds (a *sample*) per line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from judge_decoding.core.rounds import Cause, FinishReason
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import rows, write_text
from judge_decoding.io.inputs import DOCUMENT

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
Id = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class SampleDetails(BaseModel):
    """The `TokenDetails` of a round's draft tokens, one column per field."""

    model_config = _STRICT

    agreed: tuple[bool, ...]
    target_probs: tuple[Probability, ...]
    draft_probs: tuple[Probability, ...] | None = None
    ranks: tuple[Id | None, ...]
    entropies: tuple[float, ...]
    alternatives: tuple[tuple[tuple[Id, Probability], ...], ...]


class SampleRound(BaseModel):
    """A `Round` with the texts of its tokens.

    Attributes:
        token_ids: the kept tokens, draft tokens first.
        pieces: the text each kept token adds; "" for special tokens, and for a token that ends inside a character,
            whose text comes with the token that completes it. The joined pieces of an answer are its text.
        causes: why each token was kept.
        rescuers: the rule that rescued each token, "" for tokens that were not rescued.
        draft_ids: all proposed tokens.
        draft_pieces: the text each draft token adds at its position.
        target_ids: the target's own token at each draft position, and after the whole draft.
        scores: the rule's score of each draft token.
        details: more about each draft token.
        stopped: whether the answer ended by itself in this round.
    """

    model_config = _STRICT

    token_ids: tuple[Id, ...]
    pieces: tuple[str, ...]
    causes: tuple[Cause, ...]
    rescuers: tuple[str, ...] = ()
    draft_ids: tuple[Id, ...] = ()
    draft_pieces: tuple[str, ...] = ()
    target_ids: tuple[Id, ...] = ()
    scores: tuple[float, ...] | None = None
    details: SampleDetails | None = None
    stopped: bool = False

    @property
    def accepted(self) -> int:
        """The number of accepted draft tokens."""
        return sum(cause in (Cause.AGREED, Cause.RESCUED) for cause in self.causes)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        kept, drafted = len(self.token_ids), len(self.draft_ids)
        counts: list[tuple[str, Sized | None, int]] = [
            ("pieces", self.pieces, kept),
            ("causes", self.causes, kept),
            ("rescuers", self.rescuers or None, kept),
            ("draft_pieces", self.draft_pieces, drafted),
            ("target_ids", self.target_ids or None, drafted + 1),
            ("scores", self.scores, drafted),
        ]
        if self.details is not None:
            counts += [(name, getattr(self.details, name), drafted) for name in type(self.details).model_fields]
        for name, values, count in counts:
            if values is not None and len(values) != count:
                raise ValueError(f"{name} has {len(values)} entries where there must be {count}")
        accepted = self.accepted
        if self.token_ids[:accepted] != self.draft_ids[:accepted] or any(
            cause in (Cause.AGREED, Cause.RESCUED) for cause in self.causes[accepted:]
        ):
            raise ValueError("the accepted tokens are not the first of the draft")
        if kept > accepted + 1:
            raise ValueError("more than one token follows the accepted ones")
        return self


class Sample(BaseModel):
    """One answer, the rounds that produced it, and what the target alone would have answered.

    Attributes:
        question: the prompt as shown to people.
        text: the answer.
        rounds: the rounds that produced the answer.
        reference: a correct answer, shown to people.
        correct: whether the answer is correct; None if it was not checked.
        task: the spelling of the task it belongs to; "" if there is no task.
        item: the question's key in the task.
        turn: which of the question's turns it answers, starting at 1.
        category: the kind of question, where the task has several.
        seconds: decoding time, including the prompt.
        finish_reason: why the answer ended; see `Generation.finish_reason`. None if unknown.
        lossy: whether lossy verification may have changed the answer; see `Generation.lossy`. None if unknown.
        rule: the verification rule's spelling.
        threshold: the judge's threshold, if the judge alone decides; reports can then show other thresholds.
        target, draft, judge: names of the models; "" if there is no such model, or it has no name.
        distance: how unlike the judge's training questions the question is; above 1 it is unlike 95% of them.
        temperature: the sampling temperature; 0 is greedy.
        seed: the seed of a sampled answer.
        target_text: the target's own answer to the same prompt, without a draft.
        target_correct: whether the target's own answer is correct.
        target_tokens: the number of tokens in the target's own answer.
        target_seconds: decoding time of the target's own answer.
        vocabulary: spellings of the token ids in ``target_ids`` and in the alternatives, and of all special tokens.
        end_ids: tokens that end an answer.
        special_ids: tokens whose text is "" because they are special, such as the end token.
        stats: `Stats.to_dict` of the rounds.
        grade: the grade of the answer, 1 to 10, if it was graded.
        target_grade: the grade of the target's own answer.
    """

    model_config = _STRICT

    question: str
    text: str
    rounds: tuple[SampleRound, ...]
    reference: str = ""
    correct: bool | None = None
    task: str = ""
    item: str = ""
    turn: Annotated[int, Field(ge=1)] = 1
    category: str = ""
    seconds: Annotated[float, Field(ge=0)] | None = None
    finish_reason: FinishReason | None = None
    lossy: bool | None = None
    rule: str = ""
    threshold: Probability | None = None
    target: str = ""
    draft: str = ""
    judge: str = ""
    distance: Annotated[float, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
    seed: int | None = None
    target_text: str | None = None
    target_correct: bool | None = None
    target_tokens: Id | None = None
    target_seconds: Annotated[float, Field(ge=0)] | None = None
    vocabulary: dict[Id, str] = {}
    end_ids: tuple[Id, ...] = ()
    special_ids: tuple[Id, ...] = ()
    stats: dict[str, Any] = {}
    grade: Annotated[float, Field(ge=1, le=10)] | None = None
    target_grade: Annotated[float, Field(ge=1, le=10)] | None = None


def read_samples(path: str | Path, on_bad: Callable[[str], None] | None = None) -> list[Sample]:
    """Read a file of samples (JSONL).

    Args:
        path: the file.
        on_bad: called with a message for each line that is not a sample; the line is skipped. Without it, the first
            such line raises an error.
    """
    path = Path(path)
    complaint = "is not an answer with its rounds: {}; correct or remove the line."
    samples = [sample for _, sample in rows(path, "the answers", Sample, complaint, on_bad, longest=DOCUMENT)]
    if not samples:
        raise JudgeDecodingError(f"{path} has no answers; `judge-decoding evaluate` and `generate --out` write them.")
    return samples


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write a file of samples atomically."""
    write_text(Path(path), "".join(sample.model_dump_json(exclude_none=True) + "\n" for sample in samples))
