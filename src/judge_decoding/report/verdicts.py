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


def shown(
    rounds: Sequence[Round], tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] | None = None
) -> list[ShownRound]:
    """Convert the rounds from ids to texts. Special tokens such as the end token are shown by their spelling.

    Args:
        rounds: the rounds of one answer.
        tokenizer: the target's.
        texts: the text of each token; by default the tokens are decoded as a text of their own.
    """
    left = iter(texts or pieces(tokenizer, [token for event in rounds for token in event.token_ids]))
    special = set(tokenizer.all_special_ids)
    result = []
    for event in rounds:
        tokens, scores = [], event.scores or ()
        for i, (token, cause) in enumerate(zip(event.token_ids, event.causes, strict=True)):
            text = next(left)
            if token in special:
                text += token_text(tokenizer, token)
            own = event.target_ids[i] if i < len(event.target_ids) else token
            tokens.append(
                ShownToken(
                    text,
                    cause,
                    scores[i] if i < len(scores) else None,
                    token_text(tokenizer, own) if own != token else None,
                )
            )
        rejected = () if event.stopped else event.draft_ids[event.accepted :]
        result.append(ShownRound(tuple(tokens), str(tokenizer.decode(list(rejected))), event.accepted))
    return result


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """Return a token decoded by itself, in one line."""
    return str(tokenizer.decode([token])).replace("\n", "⏎")
