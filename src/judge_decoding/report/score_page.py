"""How much of given texts each rule keeps, as one self-contained web page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from judge_decoding.core.rounds import Cause, Round
from judge_decoding.evaluation.acceptance import Acceptance
from judge_decoding.evaluation.texts import TokenizedAnswer
from judge_decoding.models.text import pieces
from judge_decoding.pages import file_page
from judge_decoding.report.score import COLUMNS, cells

MEANING = (
    ("agreed", "the target would have said the same"),
    ("rescued", "the target would have said something else, the rule keeps it"),
    ("rejected", "the rule rejects it"),
    ("correction", "what the target would have said instead"),
    ("bonus", "the target's own token after a fully accepted draft; the text's token stands in for it"),
)

_WIDTH, _HEIGHT = 300, 120
"""Size of a plot in its own units, without the margin for labels."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A bar or point of a plot; ``title`` is its tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """One token of a text: ``kind`` is one of `MEANING`, ``instead`` the target's own choice."""

    text: str
    kind: str
    instead: str | None = None
    score: float | None = None


def bars(shares: Sequence[float], longest: float, width: int = _WIDTH, height: int = _HEIGHT) -> list[Mark]:
    """Return the bars of a histogram over 0, 1, 2, ... accepted draft tokens; the share ``longest`` has full height."""
    step = width / len(shares)
    return [
        Mark(
            round(i * step, 2), round(height * (1 - share / longest), 2), round(0.86 * step, 2),
            round(height * share / longest, 2), f"{i} accepted: {share:.1%} of the rounds",
        )
        for i, share in enumerate(shares)
    ]  # fmt: skip


def points(shares: Sequence[float], width: int = _WIDTH, height: int = _HEIGHT) -> list[Mark]:
    """Return the points of a curve: the acceptance rate at draft position 1, 2, ..."""
    step = width / len(shares)
    return [
        Mark(
            round((i + 0.43) * step, 2), round(height * (1 - share), 2), 0, 0, f"position {i + 1}: {share:.1%} accepted"
        )
        for i, share in enumerate(shares)
    ]


def shown_tokens(
    rounds: Sequence[Round], texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[ScoredToken]:
    """Return the tokens of one text under one rule; ``texts`` has the text of each token."""
    special, left = set(tokenizer.all_special_ids), iter(texts)
    tokens = []
    for event in rounds:
        scores = event.scores or ()
        for i, (token, cause) in enumerate(zip(event.token_ids, event.causes, strict=True)):
            own = event.target_ids[i]
            text = next(left) or (_spelling(tokenizer, token) if token in special else "")
            tokens.append(
                ScoredToken(
                    text,
                    "rejected" if cause is Cause.CORRECTION else cause.value,
                    _spelling(tokenizer, own) if own != token else None,
                    scores[i] if i < len(scores) else None,
                )
            )
    return tokens


def score_page(
    title: str,
    facts: Mapping[str, Any],
    acceptances: Sequence[Acceptance],
    texts: Sequence[TokenizedAnswer],
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    """Return the page: table, plots, the most often rejected tokens, and some texts token by token."""
    most = max(share for each in acceptances for share in each.histogram)
    answers = []
    for number in sorted(acceptances[0].rounds):
        text = texts[number]
        # Decoded after the prompt, since some tokenizers drop the space at the beginning of a text.
        spelled = pieces(tokenizer, [*text.prompt_ids, *text.ids])[len(text.prompt_ids) :]
        views = [shown_tokens(each.rounds[number], spelled, tokenizer) for each in acceptances]
        answers.append((text.prompt, list(zip(views, (len(each.rounds[number]) for each in acceptances), strict=True))))
    return file_page(
        "judge_decoding.report",
        "score",
        title=title,
        facts=facts,
        columns=[column.replace("\n", " ") for column in COLUMNS],
        rows=[cells(each) for each in acceptances],
        names=[each.name for each in acceptances],
        pictures=[(bars(each.histogram, most), points(each.by_position)) for each in acceptances],
        most=most,
        size=(_WIDTH, _HEIGHT),
        rejected=[
            [
                (repr(_spelling(tokenizer, one.token)), one.times, one.decided,
                 ", ".join(f"{_spelling(tokenizer, own)!r}" for own, _ in one.instead))
                for one in each.most_rejected()
            ]
            for each in acceptances
        ],
        legend=MEANING,
        answers=answers,
    )  # fmt: skip


def _spelling(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Return a token decoded by itself, in one line."""
    return str(tokenizer.decode([token])).replace("\n", "⏎")
