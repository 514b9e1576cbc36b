"""An answer as an HTML fragment for a notebook: no script, no style sheet, readable in light and dark themes."""

from __future__ import annotations

from collections.abc import Sequence

from judge_decoding.core.rounds import Cause, Round, Stats
from judge_decoding.pages import templates
from judge_decoding.report.verdicts import MEANING
from judge_decoding.visible import shown

# Only lines and backgrounds are coloured; the text keeps the notebook's own colour.
_STYLES = {
    Cause.AGREED: "",
    Cause.RESCUED: "font-weight: 700; border-bottom: 3px solid #d55e00",
    Cause.CORRECTION: "color: #fff; background: #0072b2; border-radius: 3px",
    Cause.BONUS: "font-style: italic; border-bottom: 2px dotted #0072b2",
}


def answer_fragment(pieces: Sequence[str], rounds: Sequence[Round]) -> str:
    """Return the tokens with their texts ``pieces``, each styled by why it was kept, a legend, and the figures."""
    texts, tokens = iter(pieces), []
    for event in rounds:
        for i, cause in enumerate(event.causes):
            score = f", score {event.scores[i]:.3f}" if cause is Cause.RESCUED and event.scores is not None else ""
            # A special token, or one that ends inside a character, has no text.
            text = shown(next(texts)) or ("▫" if cause is Cause.RESCUED else "")
            ink = text.lstrip(" ") or text  # underline words, not the spaces before them
            tip = "" if cause is Cause.AGREED else cause.value + score
            tokens.append((text[: len(text) - len(ink)], ink, cause, tip))
    stats = Stats.of(rounds)
    met = [cause for cause in Cause if stats.causes[cause]]
    return (
        templates("judge_decoding.report")
        .get_template("generation.html")
        .render(
            tokens=tokens,
            styles=_STYLES,
            legend=[(cause, MEANING[cause]) for cause in met],
            figures=f"{stats.tokens} tokens, mean acceptance length {stats.tokens_per_forward:.2f}, "
            f"{stats.accepted_per_round:.2f} accepted draft tokens per round",
        )
    )
