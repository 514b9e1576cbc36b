"""An answer prepared for display: tokens with their text and the reason they were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from judge_decoding.core.rounds import Cause, Round
from judge_decoding.models.text import pieces

if TYPE_CHECKING:  # web pages of finished answers do not need transformers
    from transformers import PreTrainedTokenizerBase

MEANING = {
    Cause.AGREED: "the target would have said the same",
    Cause.RESCUED: "the target would have said something else, the judge found it correct",
    Cause.CORRECTION: "the target's token in place of a rejected draft token",
    Cause.BONUS: "the target's token after a draft that was accepted whole",
}


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A kept token. ``score`` is the judge's; ``instead`` is the target's own choice where it differs."""

    text: str
    cause: Cause
    score: float | None = None
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class ShownRound:
    """The kept tokens of a round, and the text of the rejected rest of its draft."""

    tokens: tuple[ShownToken, ...]
    rejected: str
    accepted: int


def shown(rounds: Sequence[Round], tokenizer: PreTrainedTokenizerBase) -> list[ShownRound]:
    """Convert the rounds from ids to texts. Special tokens such as the end token are shown by their spelling."""
    texts = iter(pieces(tokenizer, [token for event in rounds for token in event.token_ids]))
    special = set(tokenizer.all_special_ids)
    result = []
    for event in rounds:
        tokens, scores = [], event.scores or ()
        for i, (token, cause) in enumerate(zip(event.token_ids, event.causes, strict=True)):
            text = next(texts)
            if token in special:
                text += _spelling(tokenizer, token)
            own = event.target_ids[i] if i < len(event.target_ids) else token
            tokens.append(
                ShownToken(
                    text,
                    cause,
                    scores[i] if i < len(scores) else None,
                    _spelling(tokenizer, own) if cause is Cause.RESCUED else None,
                )
            )
        rejected = () if event.stopped else event.draft_ids[event.accepted :]
        result.append(ShownRound(tuple(tokens), str(tokenizer.decode(list(rejected))), event.accepted))
    return result


def _spelling(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return str(tokenizer.decode([token]))
