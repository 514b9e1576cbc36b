r"""Find the final number of an answer. Every check by number uses this module.

It looks, in this order, for the last ``\boxed{}``, GSM8K's ``####``, a number right after "answer:" or "answer is", and
the last number that is not an ordinal, part of a name or in a bracket that only comments on a number.
"""

from __future__ import annotations

import re

from judge_decoding.tasks.number_text import plain
from judge_decoding.tasks.numbers import FoundNumber, Number, numbers_in
from judge_decoding.tasks.roots import calculated

WINDOW = 20_000
"""The search is limited to this many characters at the end of an answer, which bounds its time."""
BOXES = 3
"""The number of boxes to try, from the last one."""

_HASHES = re.compile(r"####[ \t]*(?=[^\w\n]{0,6}\d)(?!\W*\d+[.)]\s+[^\W\d])(.*)")
_ANSWER = re.compile(r"(?<![A-Za-z])answer(?:\W{0,5}[:=]|\W{1,4}(?:is|was|would\ be)\b)", re.IGNORECASE)
_FILLER = re.compile(
    r"\W{0,12}(?:(?:about|approximately|around|roughly|exactly|simply|just|only|therefore|thus|then)\b\W{0,4})?(?:[A-Za-z]\s?=\W{0,4})?",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(r"\b(?:if|whether|suppose|assuming|unless|wrong|incorrect)\b[^.!?\n]{0,30}$", re.IGNORECASE)
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|oops|sorry|mistake|however|re-?check|rather|no(?=[,.!:]))\b", re.IGNORECASE
)
_CLAUSE_END = re.compile(r"[.!?;,]+(?:\s|\W*$)|\b(?:because|since|so|as|where|which|given)\b|[(\[]", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\n")
_POINTS_AWAY = re.compile(
    r"\b(?:see|steps?|notes?|pages?|lines?|equations?|eq|fig|figure|tables?|ref|parts?)\b", re.IGNORECASE
)
_ROOT = re.compile(r"\\sqrt|\\pi(?![A-Za-z])|√|π")
_FORMULA_SIGN = re.compile(rf"{_ROOT.pattern}|[)}}]\s*\^")
_FORMULA = re.compile(r"\$([^$\n]+)\$\W*$|^\s*([^$\n]+?)\s*$")


def final_number(answer: str) -> Number | None:
    """The number that an answer comes to; None if it has none, or only one that is too long to be meant."""
    window = answer[-WINDOW:]
    boxed = _boxed(window)
    if boxed is not None:
        return boxed
    root = _root_at_end(window)
    if root is not None:
        return root
    text = plain(window)
    hashes = list(_HASHES.finditer(text))
    tail = (hashes[-1][1] if hashes else None) or _answer_phrase(text)
    if tail is not None:
        return _first(tail)
    return _last(text)


def _boxed(window: str) -> Number | None:
    """The number in the last box that contains one."""
    end = len(window)
    for _ in range(BOXES):
        start = window.rfind(r"\boxed", 0, end)
        if start < 0:
            return None
        inside = _braced(window, start + len(r"\boxed"))
        if inside is not None:
            text = plain(inside)
            found = list(numbers_in(text))
            if len(found) != 1 or _FORMULA_SIGN.search(inside):
                number = calculated(inside)
                if number is not None:
                    return number
            if found:
                return _last(text)
        end = start
    return None


def _braced(text: str, start: int) -> str | None:
    """The text in the braces that open at ``start``; None if there are none, or they do not close in time."""
    depth = 0
    for location in range(start, min(len(text), start + 500)):
        if text[location] == "{":
            depth += 1
        elif text[location] == "}":
            depth -= 1
            if depth == 0:
                return text[text.index("{", start) + 1 : location]
        elif depth == 0 and not text[location].isspace():
            return None
    return None


def _root_at_end(window: str) -> Number | None:
    """The value of the formula at the end of an answer, if it contains a root or pi."""
    end = window.rstrip()[-200:].rsplit("\n", 1)[-1]
    if not _ROOT.search(end):
        return None
    formula = _FORMULA.search(end)
    return calculated(formula[1] or formula[2]) if formula else None


def _answer_phrase(text: str) -> str | None:
    """The text after the last "answer is" with a number, unless it is hypothetical, a question or retracted."""
    for found in reversed(list(_ANSWER.finditer(text))):
        tail = text[found.end() : found.end() + 300]
        first = next(numbers_in(tail[:60]), None)
        if first is None or not _FILLER.fullmatch(tail, 0, first.start):
            continue
        if _SUPPOSED.search(text[max(0, found.start() - 60) : found.start()]):
            continue
        number_end = found.end() + first.end
        sentence = _SENTENCE_END.search(text, number_end)
        if (sentence and sentence[0].startswith("?")) or _TAKEN_BACK.search(text, number_end):
            return None
        return tail[: first.start] + tail[first.start :].split("\n", 1)[0]
    return None


def _first(tail: str) -> Number | None:
    """The first number after an announcement; if an equation follows there, its result."""
    found = list(numbers_in(tail))
    if not found:
        return None
    first = found[0]
    cut = _CLAUSE_END.search(tail, first.end)
    clause = [one for one in found if cut is None or one.start < cut.start()]
    rest = tail[first.end : cut.start() if cut else len(tail)]
    equals = tail.rfind("=", first.end, cut.start() if cut else len(tail))
    if equals >= 0:
        return next((one for one in clause if one.start > equals), clause[-1]).read()
    return clause[-1].read() if re.match(r"\s?[-+*/×÷·]\s?[$(]?\d", rest) else first.read()


def _last(text: str) -> Number | None:
    """The last number that is not a side remark, an ordinal or part of a name; if there is none, the last number."""
    found = list(numbers_in(text))
    remarks = _remarks(text, found)
    for one in reversed(found):
        while remarks and remarks[-1][0] > one.start:
            remarks.pop()
        aside = bool(remarks) and one.start < remarks[-1][1]
        if not aside and not one.doubtful:
            return one.read()
    return found[-1].read() if found else None


def _remarks(text: str, found: list[FoundNumber]) -> list[tuple[int, int]]:
    """The brackets, left to right, that only comment on a number before them in the sentence, or point elsewhere."""
    starts = [one.start for one in found if not one.doubtful]
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    remarks = list[tuple[int, int]]()
    number = sentence = 0
    for start, end in _brackets(text):
        while number < len(starts) and starts[number] < start:
            number += 1
        while sentence < len(ends) and ends[sentence] <= start:
            sentence += 1
        opened = ends[sentence - 1] if sentence else 0
        calculation = text[:start].rstrip(" ")[-1:] in {"+", "-", "*", "/", "×", "÷", "·", "=", "^"} or (
            text[start - 1 : start].isdigit() and start > 0
        )
        follows = number > 0 and starts[number - 1] >= opened
        if not calculation and (follows or _POINTS_AWAY.search(text, start, min(end, start + 80))):
            remarks.append((start, end))
    return remarks


def _brackets(text: str) -> list[tuple[int, int]]:
    pairs, opened = list[tuple[int, int]](), list[int]()
    for match in re.finditer(r"[()\[\]]", text):
        if match[0] in "([":
            opened.append(match.start())
        elif opened:
            start = opened.pop()
            while pairs and pairs[-1][0] > start:
                pairs.pop()
            pairs.append((start, match.end()))
    return pairs
