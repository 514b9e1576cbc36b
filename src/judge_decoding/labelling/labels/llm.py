"""Labels by a language model: it quotes the first wrong phrase, several times, and the majority decides.

The Judge Decoding paper tried this and found such labels too imprecise (arXiv 2501.19309), so measure them against
labels by hand (`compare`) before a judge learns from them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from judge_decoding.core.spans import Span, touches
from judge_decoding.data.agreement import agreement
from judge_decoding.data.cases import Case
from judge_decoding.data.verdicts import words
from judge_decoding.io.endpoint import Body, Endpoint, Reply
from judge_decoding.io.resume import Unfinished
from judge_decoding.labelling.formats.quotes import END

PROMPT = Path(__file__).with_name("first_error.txt").read_text(encoding="utf-8")
"""The instructions for the model."""

_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "first_error",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "reason": {"type": "string"},
                "error": {
                    "anyOf": [
                        {
                            "type": "object",
                            "properties": {"before": {"type": "string"}, "quote": {"type": "string"}},
                            "required": ["before", "quote"],
                            "additionalProperties": False,
                        },
                        {"type": "null"},
                    ]
                },
            },
            "required": ["reason", "error"],
            "additionalProperties": False,
        },
    },
}

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)```\s*", re.DOTALL)


class ReplyVerdict(Enum):
    """A model's reply about an answer that is not a location in it."""

    RIGHT = "right"
    """The answer has no error."""
    NOWHERE = "nowhere"
    """The quote is missing or ambiguous, the reply is malformed, or there is no majority."""


class _Error(BaseModel):
    quote: str
    before: str = ""


class _Reply(BaseModel):
    error: _Error | None


def request(case: Case, *, temperature: float, max_new_tokens: int) -> Body:
    """The request for the first error of a case's answer."""
    code = hashlib.sha256(f"{case.question}\0{case.answer}".encode()).hexdigest()[:12]
    parts = [f"<question-{code}>\n{case.question}\n</question-{code}>"]
    if case.reference:
        parts.append(
            f"A right answer, or tests of one, to compare with:\n<right-{code}>\n{case.reference}\n</right-{code}>"
        )
    parts.append(f"<answer-{code}>\n{case.answer}\n</answer-{code}>")
    if not case.ended:
        parts.append("The answer was cut off; that it stops is no error.")
    return {
        "messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": "\n\n".join(parts)}],
        "temperature": temperature,
        "max_tokens": max_new_tokens,
        "response_format": _FORMAT,
    }


def locate(answer: str, quote: str, before: str = "") -> Span | None:
    """The character span of ``quote`` in ``answer``; None if it is missing or occurs in several places.

    Whitespace at its ends is ignored. If the exact text is not found, runs of whitespace count as equal. Of several
    places, the one that follows ``before`` counts, compared in the same way.
    """
    quote = quote.strip()
    if not quote:
        return None
    for exact in (True, False):
        found = [match.span(1) for match in re.finditer(f"(?=({_pattern(quote, exact=exact)}))", answer)]
        if len(found) > 1 and before.strip():
            pattern = re.compile(_pattern(before.strip(), exact=exact) + r"\s*\Z")
            found = [span for span in found if pattern.search(answer[: span[0]])]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _pattern(text: str, *, exact: bool) -> str:
    return re.escape(text) if exact else r"\s+".join(map(re.escape, text.split()))


def read_reply(text: str, case: Case) -> Span | ReplyVerdict:
    """The location that a reply names, or its other verdict. A malformed reply names no location."""
    fenced = _FENCED.fullmatch(text)
    try:
        error = _Reply.model_validate_json(fenced[1] if fenced else text).error
    except ValidationError:
        return ReplyVerdict.NOWHERE
    if error is None:
        return ReplyVerdict.RIGHT
    if error.quote.strip() == END and END not in case.answer:
        return (len(case.answer), len(case.answer)) if case.ended else ReplyVerdict.NOWHERE
    return locate(case.answer, error.quote, error.before) or ReplyVerdict.NOWHERE


def majority(votes: Sequence[Span | ReplyVerdict], total: int) -> Span | ReplyVerdict:
    """The verdict of more than half of ``total`` votes; locations are the same if they begin at the same character.

    If they end differently, the most frequent end counts, and of equally frequent ones the first.
    """
    if not votes:
        return ReplyVerdict.NOWHERE
    start, count = Counter(vote if isinstance(vote, ReplyVerdict) else vote[0] for vote in votes).most_common(1)[0]
    if 2 * count <= total:
        return ReplyVerdict.NOWHERE
    if isinstance(start, ReplyVerdict):
        return start
    ends = Counter(vote[1] for vote in votes if not isinstance(vote, ReplyVerdict) and vote[0] == start)
    return start, min(ends, key=lambda end: (-ends[end], end))


def labelled(case: Case, verdict: Span | ReplyVerdict, source: str) -> Case | None:
    """The case with this label; None if it has none, or if the label is right although a checker found it wrong."""
    if verdict is ReplyVerdict.NOWHERE or (verdict is ReplyVerdict.RIGHT and case.correct is False):
        return None
    errors = () if isinstance(verdict, ReplyVerdict) else (verdict,)
    return case.model_copy(
        update={"errors": errors, "source": source, "annotator": source, "judged": None, "seconds": None, "score": None}
    )


VoteKey = tuple[str, str, int]
"""Question, answer, and index of the vote."""


class VoteRecord(Unfinished[VoteKey, str]):
    """The replies so far."""

    row = TypeAdapter(tuple[VoteKey, str])

    def of(self, case: Case, count: int) -> list[Span | ReplyVerdict]:
        """The votes on a case, at most ``count``."""
        replies = [self.done.get((case.question, case.answer, number)) for number in range(count)]
        return [read_reply(reply, case) for reply in replies if reply is not None]


def missing_votes(
    cases: Sequence[Case], record: VoteRecord, votes: int, *, temperature: float, max_new_tokens: int
) -> list[tuple[VoteKey, Body]]:
    """The requests for the replies that ``record`` lacks."""
    return [
        (key, request(case, temperature=temperature, max_new_tokens=max_new_tokens))
        for case in cases
        for number in range(votes)
        if (key := (case.question, case.answer, number)) not in record.done
    ]


@dataclass(frozen=True, slots=True)
class LlmLabels:
    """The result of `label_by_llm`.

    Attributes:
        labelled: the cases with the majority's label.
        unlabelled: the cases without a label.
        failures: why requests failed.
    """

    labelled: list[Case]
    unlabelled: list[Case]
    failures: list[str]


def label_by_llm(
    cases: Sequence[Case],
    endpoint: Endpoint,
    record: VoteRecord,
    requests: Sequence[tuple[VoteKey, Body]],
    votes: int,
    progress: Callable[[], None] = lambda: None,
) -> LlmLabels:
    """Let a model vote on the first error of each case, and label the cases by majority.

    Args:
        cases: the answers to label, each once.
        endpoint: the model.
        record: the replies so far; new ones are added.
        requests: those for the other replies, from `missing_votes`.
        votes: number of replies per answer.
        progress: called after each reply or failure.

    Raises:
        JudgeDecodingError: as for `Endpoint.request_all`; replies received before that are kept.
    """
    failures: list[str] = []

    def done(key: VoteKey, reply: Reply) -> None:
        record.add(key, reply.text)
        progress()

    def failed(_: VoteKey, reason: str) -> None:
        failures.append(reason)
        progress()

    if requests:
        endpoint.request_all(requests, done, failed)
    source = f"llm:{endpoint.model}"
    labels = [labelled(case, majority(record.of(case, votes), votes), source) for case in cases]
    return LlmLabels(
        [found for found in labels if found is not None],
        [case for case, found in zip(cases, labels, strict=True) if found is None],
        failures,
    )


def compare_with_hand(decided: Iterable[Case], aside: Iterable[Case], hand: Iterable[Case]) -> dict[str, Any]:
    """Measure how labels agree with labels by hand on the same answers.

    Args:
        decided: answers that the model labelled.
        aside: answers for which the model gave no label.
        hand: labels by hand; if an answer has several, the first counts.
    """
    theirs = {(case.question, case.answer): case for case in hand if case.located}
    ours = {(case.question, case.answer): case for case in decided}
    lost = {(case.question, case.answer) for case in aside} & theirs.keys()
    both = sorted(ours.keys() & theirs.keys())
    counts = dict.fromkeys(
        ("same first error", "another first error", "wrong by hand, called right", "wrong by hand, set aside",
         "right by hand, called right", "right by hand, called wrong", "right by hand, set aside"), 0
    )  # fmt: skip
    for key in both:
        mine, yours = (_first_word(side[key]) for side in (ours, theirs))
        if yours is None:
            counts["right by hand, called right" if mine is None else "right by hand, called wrong"] += 1
        elif mine is None:
            counts["wrong by hand, called right"] += 1
        else:
            counts["same first error" if mine == yours else "another first error"] += 1
    for key in lost:
        counts[f"{'wrong' if theirs[key].errors else 'right'} by hand, set aside"] += 1
    pair = [
        side[key].model_copy(update={"annotator": who})
        for who, side in (("llm", ours), ("hand", theirs))
        for key in both
    ]
    rows = agreement(pair)
    kappas = {name: value for name, value in (rows[0] if rows else {}).items() if name.startswith("kappa")}
    return {"answers": len(both) + len(lost), **counts, **kappas}


def _first_word(case: Case) -> int | None:
    """The index of the first wrong word; the end of the answer is the last index. None for a right answer."""
    if not case.errors:
        return None
    start, end = min(case.errors)
    spans = [*words(case.answer), (len(case.answer), len(case.answer) + 1)]
    return next(number for number, span in enumerate(spans) if touches(*span, [(start, end)]))
