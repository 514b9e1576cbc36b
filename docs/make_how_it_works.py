"""Make the figures of docs/how-it-works.md from one answer of the embedded pair: ``python docs/make_how_it_works.py``.

It writes the picture of the answer's first rounds (``pictures/rounds.svg``) and the tables between the markers of the
page. `tests/test_docs.py` checks that both are what a run gives.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from judge_decoding import Cause, Exact, Generation, Judge, JudgeDecoder, Round
from judge_decoding.reference.pair import load_pair

PAGE = Path(__file__).parent / "how-it-works.md"
PICTURE = Path(__file__).parent / "pictures" / "rounds.svg"
THRESHOLD, DRAFT_LENGTH = 0.95, 16
QUESTION = (
    "Ann has 6 shells. Tom gives Ann 1 shells. Tom gives Ann 2 shells. Ann buys 11 shells. "
    "How many shells does Ann have now?"
)
FILL = {
    Cause.AGREED: "#e3eef1",
    Cause.RESCUED: "#f7c98b",
    Cause.CORRECTION: "#b9d3f5",
    Cause.BONUS: "#cfe8cf",
    None: "#ffffff",
}
LEGEND = {
    Cause.AGREED: "agreed: the target's choice",
    Cause.RESCUED: "rescued by the judge",
    None: "rejected",
    Cause.CORRECTION: "correction: the target's token",
    Cause.BONUS: "bonus: the target's token",
}
# Narrow enough to be read on a phone; a monospaced letter is so wide at this size.
WIDTH, LETTER, LINE, BOX = 640, 7.3, 29, 23
SHOWN = 2


def answers() -> tuple[JudgeDecoder, Generation, Generation]:
    """The embedded pair, and its answers to the question with the judge and with standard verification."""
    pair, _ = load_pair()
    assert pair.judge is not None
    prompt = f"Q: {QUESTION}\nA:"
    rules = (Judge(pair.judge, THRESHOLD), Exact())
    judged, exact = (
        pair.generate(prompt, 140, rule=rule, num_draft_tokens=DRAFT_LENGTH, details=True) for rule in rules
    )
    return pair, judged, exact


def _words(pair: JudgeDecoder, ids: tuple[int, ...]) -> list[str]:
    return [str(pair.tokenizer.decode([token])).strip() for token in ids]


def table(pair: JudgeDecoder, event: Round) -> str:
    """Each draft token of a round with what the target and the judge say of it."""
    assert event.details is not None
    assert event.scores is not None
    lines = [
        "| | draft token | p(token) | target's choice | standard | judge's score | kept |",
        "|--:|---|--:|---|---|--:|---|",
    ]
    drafted, own = _words(pair, event.draft_ids), _words(pair, event.target_ids)
    for place, (token, choice, details, score) in enumerate(
        zip(drafted, own, event.details, event.scores, strict=False), 1
    ):
        if place <= event.accepted:
            verdict = str(event.causes[place - 1])
        else:
            verdict = "rejected" if place == event.accepted + 1 else "discarded"
        standard = "keeps" if details.agreed else "rejects"
        lines.append(
            f"| {place} | {token} | {details.target_prob:.3f} | {choice} | {standard} | {score:.3f} | {verdict} |"
        )
    last = _words(pair, event.token_ids)[-1]
    lines.append(f"| {len(event.token_ids)} | - | - | **{last}** | | | {event.causes[-1]} |")
    return "\n".join(lines)


def counts(judged: Generation, exact: Generation) -> str:
    """What the two ways of verification need for this answer."""
    lines = [
        "| verification | tokens | rounds | accepted draft tokens per round | mean acceptance length |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, answer in (("standard", exact), ("judge", judged)):
        stats = answer.stats
        lines.append(
            f"| {name} | {stats.tokens} | {stats.rounds} | {stats.accepted_per_round:.2f} "
            f"| {stats.tokens_per_forward:.2f} |"
        )
    return "\n".join(lines)


def picture(pair: JudgeDecoder, events: list[Round]) -> str:
    """The rounds as rows of tokens, coloured by why each was kept."""
    parts: list[str] = []
    y = 10

    def box(x: float, word: str, cause: Cause | None) -> float:
        width = LETTER * len(word) + 12
        struck = ' text-decoration="line-through" fill="#777"' if cause is None else ""
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BOX}" rx="4" fill="{FILL[cause]}" stroke="#888"/>'
            f'<text x="{x + width / 2:.1f}" y="{y + 16}" text-anchor="middle"{struck}>{escape(word)}</text>'
        )
        return width

    x = 10.0
    for cause, words in LEGEND.items():
        if x + LETTER * len(words) + 24 > WIDTH:
            x, y = 10.0, y + 20
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="14" height="14" rx="3" fill="{FILL[cause]}" stroke="#888"/>')
        parts.append(f'<text x="{x + 20:.1f}" y="{y + 11}">{words}</text>')
        x += LETTER * len(words) + 36
    y += 30
    for number, event in enumerate(events, 1):
        parts.append(f'<text x="10" y="{y + 16}" font-weight="bold">{number}</text>')
        x = 28.0
        kept = list(zip(_words(pair, event.token_ids), event.causes, strict=True))
        rejected = [(word, None) for word in _words(pair, event.draft_ids)[event.accepted :]]
        for word, cause in [*kept[: event.accepted], *rejected[:1], *kept[event.accepted :], *rejected[1:]]:
            if x + LETTER * len(word) + 12 > WIDTH - 10:
                x, y = 28.0, y + LINE
            x += box(x, word, cause) + 4
        y += LINE + 10
    label = "The first rounds of one answer: draft tokens by why each was kept, and the target's own token after them"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img" aria-label="{label}" '
        f'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">'
        f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>' + "\n".join(parts) + "</svg>\n"
    )


def sections() -> tuple[dict[str, str], str]:
    """What stands between each pair of markers of the page, and the picture."""
    pair, judged, exact = answers()
    rounds = list(judged.rounds)
    texts = {
        "question": f"> {QUESTION}",
        "answer": f"> {judged.text.strip()}",
        "accepted": table(pair, rounds[0]),
        "rejected": table(pair, rounds[1]),
        "counts": counts(judged, exact),
    }
    return texts, picture(pair, rounds[:SHOWN])


def filled(page: str, texts: dict[str, str]) -> str:
    """The page with ``texts`` between its markers."""
    for name, text in texts.items():
        marked = re.compile(rf"(<!-- made: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        assert len(marked.findall(page)) == 1, name
        page = marked.sub(lambda match, text=text: f"{match[1]}\n{text}\n{match[2]}", page)  # type: ignore[misc]
    return page


def main() -> None:
    """Write both."""
    texts, drawn = sections()
    PICTURE.write_text(drawn, encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), texts), encoding="utf-8")


if __name__ == "__main__":
    main()
