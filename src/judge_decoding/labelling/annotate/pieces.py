"""Split an answer into the pieces that a person can mark: words, or the target's tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from judge_decoding.core.spans import Span, body, touches
from judge_decoding.data.cases import Case

# White space belongs to the word after it, as in most tokenizers. Scripts without spaces are split into characters.
_WIDE = "\u3000-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_PUNCTUATION = re.escape("""!"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~""")
_LETTERS = rf"[^\s{_WIDE}{_PUNCTUATION}]"
_WORD = re.compile(rf"\s*(?:\d+(?:[.,]\d+)*|[{_WIDE}]|[{_PUNCTUATION}]|{_LETTERS}+(?:'{_LETTERS}+)*)|\s+")


def case_id(case: Case) -> str:
    """The id of a case in the decisions: a hash of question, answer, and whether it ended."""
    return hashlib.sha256(repr((case.question, case.answer, case.ended)).encode()).hexdigest()[:16]


def word_pieces(text: str) -> list[Span]:
    """Character spans of words, numbers and punctuation marks; together they cover the whole text."""
    return [match.span() for match in _WORD.finditer(text)]


def cover(length: int, spans: Iterable[Span]) -> list[tuple[int, Span]]:
    """Make token offsets cover a text without gaps: ``(index of the token, its span)``, in order.

    Tokens of the same character (its bytes) become one piece, named by the first. Characters without a token go to the
    token after them.
    """
    pieces: list[tuple[int, Span]] = []
    done = 0
    for number, (_, end) in enumerate(spans):
        if (stop := min(end, length)) > done:
            pieces.append((number, (done, stop)))
            done = stop
    if pieces and done < length:
        number, (start, _) = pieces[-1]
        pieces[-1] = number, (start, length)
    return pieces or [(0, (0, length))] * (length > 0)


def span_of(answer: str, pieces: Sequence[Span], first: int, last: int) -> Span:
    """The span of the pieces ``first`` to ``last``; index ``len(pieces)`` is the end of the answer.

    White space before the first piece is left out, unless there is nothing else.
    """
    if first == len(pieces):
        return len(answer), len(answer)
    start, end = pieces[first][0], pieces[min(last, len(pieces) - 1)][1]
    return body(answer, start, end), end


def pieces_of(pieces: Sequence[Span], span: Span) -> tuple[int, int]:
    """The first and the last piece that ``span`` touches; ``len(pieces)`` for a span at the end of the answer."""
    touched = [number for number, (start, end) in enumerate(pieces) if touches(start, end, [span])]
    return (touched[0], touched[-1]) if touched else (len(pieces), len(pieces))
