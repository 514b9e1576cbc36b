"""An annotator's session: the current case, what the page shows of it, and the effect of a decision. No HTTP here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from judge_decoding.core.spans import Span
from judge_decoding.data.cases import Case, write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.labelling.annotate.agreement import (
    Agreement,
    Errors,
    differing,
    first_wrong,
    pairs,
    self_agreement,
    verdicts,
)
from judge_decoding.labelling.annotate.pieces import case_id, pieces_of, span_of, word_pieces
from judge_decoding.labelling.annotate.queue import Queue, QueuedCase
from judge_decoding.labelling.annotate.storage import (
    PREFIX,
    DecisionLog,
    Event,
    cases_path,
    decisions_path,
    read_events,
    standing,
)

if TYPE_CHECKING:  # it imports torch, which is needed only to annotate with a target
    from judge_decoding.labelling.annotate.reading import AnswerReading


class Decision(BaseModel):
    """A decision sent by the page.

    Attributes:
        action: "mark" (the pieces ``first`` to ``last`` are wrong), "correct", "skip", "undo" or "reopen".
        turn: number of events when the case was shown; guards against a second window.
        key: made by the page for each decision; a decision that is sent twice is saved once.
        seconds: time the person looked at the case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["mark", "correct", "skip", "undo", "reopen"]
    turn: int = Field(ge=0)
    key: str = Field(min_length=8, max_length=64)
    first: int = Field(default=0, ge=0)
    last: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)


class StaleError(JudgeDecodingError):
    """The decision is about a case that is no longer current."""


class Session:
    """The work of one annotator on one file of answers; everything is in ``folder`` and survives a kill.

    The labels of the answers are not shown, and equal answers are shown once. Answers without a reading of the target,
    by `case_id` in ``readings``, are split into words. ``repeats`` is the share of the cases that come twice.

    Attributes:
        annotator: the annotator's name.
        log: the decisions.
        cases_path: a TokenCourt file of the cases decided so far, rewritten after each decision.
        problem: why that file lags behind the decisions, for example a full disk; empty if it does not.

    Raises:
        JudgeDecodingError: the name or the share is invalid, or the decisions cannot be read or written.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        folder: Path,
        annotator: str,
        *,
        readings: Mapping[str, AnswerReading] | None = None,
        repeats: float = 0.1,
        seed: int = 0,
    ) -> None:
        plain = annotator.replace(".", "").replace("_", "").replace("-", "")
        if not plain.isalnum() or len(annotator) > 64:
            raise JudgeDecodingError(
                f"The annotator's name is {annotator!r}; use at most 64 letters, digits, dots, dashes and underscores."
            )
        self.annotator, self._folder = annotator, folder
        self._cases = {case_id(case): case for case in reversed(cases)}
        self._readings = readings or {}
        self._pieces = {name: self._cut(name) for name in self._cases}
        doubts = {name: r.uncertainty for name, r in self._readings.items() if r.uncertainty is not None}
        self._queue = Queue(list(self._cases), annotator, uncertainty=doubts, repeats=repeats, seed=seed)
        self.cases_path = cases_path(folder, annotator)
        self.log = DecisionLog(decisions_path(folder, annotator))
        self.problem = ""
        self._write_cases()

    def _cut(self, name: str) -> list[Span]:
        reading = self._readings.get(name)
        return word_pieces(self._cases[name].answer) if reading is None else list(reading.spans)

    def state(self) -> dict[str, Any]:
        """What the page shows, as JSON values: the progress and the current case, without the answer's writer."""
        if self.problem:
            self.save_cases()
        events = self.log.events
        progress = self._queue.progress(events)
        turn = self._queue.next(events)
        return {
            "turn": len(events),
            "done": progress.done,
            "total": progress.total,
            "skipped": progress.skipped,
            "can_undo": bool(standing(events)[0]),
            "problem": self.problem,
            "case": None if turn is None else self._shown(turn),
        }

    def _shown(self, turn: QueuedCase) -> dict[str, Any]:
        case, pieces, reading = self._cases[turn.case], self._pieces[turn.case], self._readings.get(turn.case)
        earlier = turn.earlier.errors if turn.earlier else ()
        return {
            "question": case.question,
            "reference": case.reference,
            "pieces": [case.answer[start:end] for start, end in pieces],
            "ended": case.ended,
            "choices": None if reading is None else reading.choices,
            "selected": pieces_of(pieces, min(earlier)) if earlier else None,
        }

    def decide(self, decision: Decision) -> None:
        """Save a decision. A decision that was saved before is ignored.

        Raises:
            StaleError: the case is no longer current.
            JudgeDecodingError: the answer has no such piece, there is nothing to undo, or the disk is full.
        """
        events = self.log.events
        if any(event.key == decision.key for event in events):
            return
        if decision.turn != len(events):
            raise StaleError("This case was decided in another window; here is the next one.")
        turn = self._queue.next(events)
        common: dict[str, Any] = {
            "annotator": self.annotator,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "key": decision.key,
        }
        if decision.action == "undo":
            if not standing(events)[0]:
                raise JudgeDecodingError("There is nothing to undo; decide a case first.")
            self.log.append(Event(action="undo", **common))
        elif decision.action == "reopen":
            self.log.append(Event(action="reopen", **common))
        elif turn is None:
            raise StaleError("All cases are decided; nothing is left to label.")
        else:
            self.log.append(
                Event(
                    action="skip" if decision.action == "skip" else "label",
                    case=turn.case,
                    errors=(self._span(turn.case, decision),) if decision.action == "mark" else (),
                    repeat=turn.repeat,
                    seconds=round(decision.seconds, 2),
                    **common,
                )
            )
        self.save_cases()

    def _span(self, name: str, decision: Decision) -> Span:
        case, pieces = self._cases[name], self._pieces[name]
        # The index after the last piece is the end of the answer, if the answer ended.
        last = len(pieces) - 1 + case.ended
        if not decision.first <= decision.last <= last:
            raise JudgeDecodingError(
                f"The pieces {decision.first} to {decision.last} are not in this answer, which has 0 to {last}; "
                "reload the page."
            )
        return span_of(case.answer, pieces, decision.first, decision.last)

    def labelled(self) -> list[Case]:
        """The cases decided so far, in the order of the decisions, without repeats."""
        found = {e.case: e for e in standing(self.log.events)[0] if e.action == "label" and not e.repeat}
        return [
            Case(
                question=case.question,
                answer=case.answer,
                errors=event.errors,
                ended=case.ended,
                source="human",
                writer=case.writer,
                annotator=self.annotator,
                seconds=event.seconds,
                reference=case.reference,
                token_ids=case.token_ids,
                tokenizer=case.tokenizer,
            )
            for name, event in found.items()
            if (case := self._cases.get(name)) is not None
        ]

    def save_cases(self) -> None:
        """Write the file of cases. A failure is only noted in `problem`, because the decisions themselves are saved."""
        try:
            self._write_cases()
        except JudgeDecodingError as error:
            self.problem = (
                f"Your decisions are saved, but not yet in {self.cases_path.name} ({str(error).removesuffix('.')}); "
                "make room; they get there with the next one, or when you load the page or start the command again."
            )
        else:
            self.problem = ""

    def _write_cases(self) -> None:
        # A data set without cases is invalid everywhere, so there is no file before the first decision.
        if (labelled := self.labelled()) or self.cases_path.exists():
            write_cases(self.cases_path, labelled)

    def _everybody(self) -> dict[str, list[Event]]:
        """The events of all annotators in the folder."""
        paths = sorted(self._folder.glob(f"{PREFIX}*.jsonl"))
        events = {path.stem.removeprefix(PREFIX): read_events(path) for path in paths if path != self.log.path}
        return {**events, self.annotator: self.log.events}

    def agreement(self) -> dict[str, Any]:
        """The agreement between annotators, and the cases in which they differ.

        Cases that this annotator has yet to decide are left out: seeing them would bias their own verdict.
        """
        events = self._everybody()
        decided: dict[str, dict[str, Errors]] = {name: verdicts(theirs) for name, theirs in events.items()}
        selves = [self_agreement(name, theirs, self._pieces) for name, theirs in sorted(events.items())]
        split = differing(decided, self._pieces)
        open_cases = self._queue.open_cases(self.log.events)
        return {
            "annotators": [(name, len(decided[name].keys() & self._cases.keys())) for name in sorted(decided)],
            "pairs": pairs(decided, self._pieces),
            "selves": [agreement for agreement in selves if agreement.cases],
            "hidden": sum(case in open_cases for case in split),
            "differing": [self._difference(case, decided) for case in split if case not in open_cases],
        }

    def _difference(self, name: str, decided: Mapping[str, Mapping[str, Errors]]) -> dict[str, Any]:
        case, pieces = self._cases[name], self._pieces[name]
        marks: dict[int, list[str]] = {}
        right: list[str] = []
        for annotator in sorted(decided):
            if name in decided[annotator]:
                place = first_wrong(decided[annotator][name], pieces)
                (right if place is None else marks.setdefault(place, [])).append(annotator)
        return {
            "question": case.question,
            "reference": case.reference,
            "right": right,
            "pieces": [(*_lead(case.answer[a:b]), marks.get(number, [])) for number, (a, b) in enumerate(pieces)],
            "end": marks.get(len(pieces), []),
        }


def _lead(piece: str) -> tuple[str, str]:
    """The white space before a piece, and the rest; if there is only white space, all of it is the rest."""
    ink = len(piece) - len(piece.lstrip())
    return (piece[:ink], piece[ink:]) if ink < len(piece) else ("", piece)


def summary(agreement: Agreement) -> str:
    """Summarise an agreement in one line for a terminal."""
    alone = agreement.first == agreement.second
    who = f"{agreement.first}, the second time" if alone else f"{agreement.first} and {agreement.second}"
    kappa = "not defined" if agreement.verdict_kappa is None else f"{agreement.verdict_kappa:.2f}"
    return f"{who}: the same verdict on {agreement.same_verdict} of {agreement.cases}, Cohen's kappa {kappa}"
