"""The file of answers with their rounds: JSONL, one answer (a *sample*) a line."""

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
    """`TokenDetails` of a round's draft tokens, a column each."""

    model_config = _STRICT

    agreed: tuple[bool, ...]
    target_probs: tuple[Probability, ...]
    draft_probs: tuple[Probability, ...] | None = None
    ranks: tuple[Id | None, ...]
    entropies: tuple[float, ...]
    alternatives: tuple[tuple[tuple[Id, Probability], ...], ...]


class SampleRound(BaseModel):
    """A `Round` with its texts.

    Attributes:
        token_ids: the kept tokens; those of the draft come first.
        pieces: the text each of them adds; "" for special tokens, and for one that ends inside a character, whose
            text comes with the token that completes it. All pieces of an answer joined are its text.
        causes: why each of them was kept.
        rescuers: the rule that rescued each of them, "" for others.
        draft_ids: all tokens that were proposed.
        draft_pieces: the text each of them adds where it stands.
        target_ids: what the target would have said at each of these places, and after all of them.
        scores: the rule's score of each draft token.
        details: more about each draft token.
        stopped: the answer ended by itself in this round.
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
        """Accepted draft tokens."""
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
    """One answer, how it came about, and what the target alone would have answered.

    Attributes:
        question: the prompt, for people.
        text: the answer.
        rounds: how it came about.
        reference: a right answer, for people.
        correct: whether the answer is right; None if nobody has checked.
        task: the spelling of the task it belongs to; "" for none.
        item: what the question is called in the task.
        turn: which of the question's turns it is, from 1 on.
        category: what kind of question it is, where the task has several.
        seconds: how long decoding took, the prompt included.
        finish_reason: why the answer ended; see `Generation.finish_reason`. None if it is not known.
        lossy: lossy verification may have changed the answer; see `Generation.lossy`. None if it is not known.
        rule: the verification rule's spelling.
        threshold: the judge's threshold, where the judge alone decides: another one can then be looked at.
        target, draft, judge: names of the models; "" if there is none, or it has no name.
        distance: how unlike the judge's training questions the question is; above 1 it is unlike 95% of them.
        temperature: 0 is greedy.
        seed: of a sampled answer.
        target_text: the target's own answer to the same prompt, without a draft.
        target_correct: whether that is right.
        target_tokens: how many tokens it has.
        target_seconds: how long it took.
        vocabulary: spellings of token ids: those in ``target_ids`` and in the alternatives, and all special ones.
        end_ids: tokens that end an answer.
        special_ids: tokens whose text is "" because they are special, such as the end token.
        stats: `Stats.to_dict` of the rounds.
        grade: of an answer that is graded, 1 to 10.
        target_grade: that of the target's own answer.
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
        on_bad: told of each line that is no sample, in a sentence that names it; the line is left out. Without it the
            first such line is an error.

    Raises:
        JudgeDecodingError: it cannot be read, has no sample, or a line is not a sample; the line is named.
    """
    path = Path(path)
    complaint = "is not an answer with its rounds: {}; mend or remove the line."
    samples = [sample for _, sample in rows(path, "the answers", Sample, complaint, on_bad, longest=DOCUMENT)]
    if not samples:
        raise JudgeDecodingError(f"{path} has no answers; `judge-decoding evaluate` and `generate --json` write them.")
    return samples


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write a file of samples, whole or not at all."""
    write_text(Path(path), "".join(sample.model_dump_json(exclude_none=True) + "\n" for sample in samples))
