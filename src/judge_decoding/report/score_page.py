"""How much of given texts each rule keeps, as one self-contained web page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from judge_decoding.evaluation.acceptance import Acceptance
from judge_decoding.evaluation.texts import TokenizedAnswer
from judge_decoding.models.text import pieces
from judge_decoding.pages import file_page
from judge_decoding.report.score import COLUMNS, cells
from judge_decoding.report.verdicts import shown, token_text

MEANING = (
    ("agreed", "the target would have said the same"),
    ("rescued", "the target would have said something else, the rule keeps it"),
    ("rejected", "the rule rejects it"),
    ("correction", "what the target would have said instead"),
    ("bonus", "the target's own token after a fully accepted draft; the text's token stands in for it"),
)


def score_page(
    title: str,
    facts: Mapping[str, Any],
    acceptances: Sequence[Acceptance],
    texts: Sequence[TokenizedAnswer],
    tokenizer: PreTrainedTokenizerBase,
) -> str:
    """Return the page: table, plots, the most often rejected tokens, and some texts token by token."""
    answers = []
    for number in sorted(acceptances[0].rounds):
        text = texts[number]
        # Decoded after the prompt, since some tokenizers drop the space at the beginning of a text.
        spelled = pieces(tokenizer, [*text.prompt_ids, *text.ids])[len(text.prompt_ids) :]
        answers.append((text.prompt, [shown(each.rounds[number], tokenizer, spelled) for each in acceptances]))
    return file_page(
        "judge_decoding.report",
        "score",
        title=title,
        facts=facts,
        columns=[column.replace("\n", " ") for column in COLUMNS],
        rows=[cells(each) for each in acceptances],
        acceptances=acceptances,
        rejected=[
            [
                (repr(token_text(tokenizer, one.token)), one.times, one.decided,
                 ", ".join(f"{token_text(tokenizer, own)!r}" for own, _ in one.instead))
                for one in each.most_rejected()
            ]
            for each in acceptances
        ],
        legend=MEANING,
        answers=answers,
    )  # fmt: skip
