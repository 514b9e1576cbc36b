"""Tokenized cases: the token ids of question and answer, their spans, and checks that they spell the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from judge_decoding.core.spans import Span
from judge_decoding.data.cases import Case
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.models.text import pieces
from judge_decoding.models.tokenize import check_offsets, end_token, prompt_ids, split

# Cached, as a vocabulary and a file may each have some 100,000 entries; the size shows whether tokens were added.
_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]] = WeakKeyDictionary()


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of the vocabulary, which identifies a tokenizer in files."""
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
        known = len(tokenizer), hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:16]
        _KNOWN[tokenizer] = known
    return known[1]


@dataclass(frozen=True, slots=True)
class CaseTokens:
    """A tokenized case.

    Attributes:
        prompt: the question's token ids, from which decoding starts.
        answer: the token ids that follow; the last is the end token if the answer ended by itself.
        spans: the character span in the answer of each token of ``answer``. The end token has the span after it,
            ``(n, n + 1)`` with n the answer's length; other tokens without text have None.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    spans: tuple[Span | None, ...]


def read_tokens(case: Case, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int] | None = None) -> CaseTokens:
    """Tokenize a case as decoding would.

    Token ids in the case are used unchanged. Those of another tokenizer matter only if the labels refer to them;
    otherwise the text is tokenized.

    Args:
        case: question and answer.
        tokenizer: the target's.
        ends: the tokens that end an answer of the target; by default the tokenizer's end token.
    """
    if ends is None:
        ends = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    if case.token_ids is not None and (case.judged is not None or _is_own(case, tokenizer)):
        return _given(case, tokenizer, ends)
    found = split(case.question, case.answer, tokenizer)
    ids, spans = found.answer, [span if span[1] > span[0] else None for span in found.spans]
    end = end_token(case.question, tokenizer, ends) if case.ended else None
    if end is not None:
        ids, spans = [*ids, end], [*spans, (len(case.answer), len(case.answer) + 1)]
    return CaseTokens(tuple(found.prompt), tuple(ids), tuple(spans))


def check_tokens(case: Case, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that ``tokenizer`` can represent a case."""
    if case.token_ids is not None:
        _check_own(case, tokenizer)
    found = read_tokens(case, tokenizer)
    if case.token_ids is None:
        check_spelling(case, found, tokenizer)


def check_spelling(case: Case, tokens: CaseTokens, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the case's ``tokens`` decode to its answer."""
    ended = bool(tokens.spans) and tokens.spans[-1] == (len(case.answer), len(case.answer) + 1)
    ids = [*tokens.prompt, *(tokens.answer[:-1] if ended else tokens.answer)]
    text = "".join(pieces(tokenizer, ids))
    if not text.endswith(case.answer):
        at = _first_difference(case.answer, text[len(text) - len(case.answer) :] if case.answer else "")
        raise JudgeDecodingError(
            f"The answer does not round-trip through the tokenizer, which changes {case.answer[at : at + 10]!r} at "
            f"character {at}; use the target's own tokenizer, or correct the text."
        )


def split_ids(case: Case, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the token ids of a case's question and of its answer; see `read_tokens`."""
    found = read_tokens(case, tokenizer)
    return list(found.prompt), list(found.answer)


def token_spans(case: Case, tokenizer: PreTrainedTokenizerBase) -> list[Span]:
    """Return the character spans of the answer's tokens that have text."""
    if case.token_ids is None:
        check_offsets(tokenizer)
    return [span for span in read_tokens(case, tokenizer).spans if span is not None and span[1] <= len(case.answer)]


def _is_own(case: Case, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the token ids of a case may come from this tokenizer."""
    return not case.tokenizer or case.tokenizer == fingerprint(tokenizer)


def _check_own(case: Case, tokenizer: PreTrainedTokenizerBase) -> None:
    if not _is_own(case, tokenizer):
        raise JudgeDecodingError(
            "The case's token ids come from another tokenizer; use the tokenizer of the model that it was made with, "
            "or remove token_ids."
        )


def _given(case: Case, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> CaseTokens:
    ids = case.token_ids or ()
    if not ids:
        raise JudgeDecodingError("The case's token_ids are empty; remove them.")
    _check_own(case, tokenizer)
    # A fingerprint proves the right tokenizer, and a model may have more tokens than its tokenizer.
    beyond = not case.tokenizer and max(ids, default=0) >= len(tokenizer)
    if beyond or min(ids, default=0) < 0:
        raise JudgeDecodingError(
            f"The case's token ids exceed the tokenizer's vocabulary of {len(tokenizer)}; use the tokenizer it was "
            "made with."
        )
    texts, length = pieces(tokenizer, ids), len(case.answer)
    # An end token may have text, which is not part of the answer.
    marks = {*ends, *tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    whole = "".join(texts).endswith(case.answer)
    ended = case.ended and "".join(texts[:-1]).endswith(case.answer) and (not whole or ids[-1] in marks)
    body = texts[:-1] if ended else texts
    if not whole and not ended:
        raise JudgeDecodingError("The case's token ids do not spell its answer; make the case again.")
    spans, at = list[Span](), length - len("".join(body))
    for text in body:
        spans.append((at, at + len(text)))
        at += len(text)
    prompt = tuple(prompt_ids(case.question, tokenizer))
    seam = len(prompt)
    if ids[:seam] != prompt or any(end > 0 for _, end in spans[:seam]):
        seam = next((i for i, (_, end) in enumerate(spans) if end > 0), len(spans))
    shown = [(max(begin, 0), end) if end > begin else None for begin, end in spans[seam:]]
    return CaseTokens(ids[:seam], ids[seam:], (*shown, *([(length, length + 1)] if ended else [])))


def _first_difference(text: str, other: str) -> int:
    """Return the first difference of ``other`` from ``text`` from the back, as the text before it may be shifted."""
    same = 0
    while same < min(len(text), len(other)) and text[-1 - same] == other[-1 - same]:
        same += 1
    return max(0, len(text) - 1 - same)
