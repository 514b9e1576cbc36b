"""Cases and tokenizers: does a case's text survive it, and are its token ids of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from judge_decoding.court.cases import Case
from judge_decoding.decoding.text import pieces
from judge_decoding.errors import JudgeDecodingError

# A vocabulary has up to some 100,000 tokens and a file as many cases; the size tells when tokens were added.
_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]] = WeakKeyDictionary()


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What tells tokenizers apart in a file: a hash of the vocabulary."""
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
        known = len(tokenizer), hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:16]
        _KNOWN[tokenizer] = known
    return known[1]


def check_tokens(case: Case, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a case's tokens can be had from ``tokenizer``.

    Raises:
        JudgeDecodingError: its token ids are another tokenizer's or do not spell the answer, or the tokenizer does
            not give the answer back.
    """
    if case.token_ids is not None:
        if case.tokenizer and case.tokenizer != fingerprint(tokenizer):
            raise JudgeDecodingError(
                "The case's token ids are of another tokenizer; use the one of the model it was made with, or remove "
                "token_ids."
            )
        # With a fingerprint it is the right tokenizer, and a model may have more tokens than that.
        beyond = not case.tokenizer and max(case.token_ids, default=0) >= len(tokenizer)
        if beyond or min(case.token_ids, default=0) < 0:
            raise JudgeDecodingError(
                f"The case's token ids go beyond the tokenizer's {len(tokenizer)}; use the tokenizer it was made with."
            )
        if not "".join(pieces(tokenizer, case.token_ids)).endswith(case.answer):
            raise JudgeDecodingError("The case's token ids do not spell its answer; make the case again.")
        return
    check_spelling(case, tokenizer(case.question + case.answer)["input_ids"], tokenizer)


def check_spelling(case: Case, ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that ``ids``, those of question and answer, give the answer back.

    Raises:
        JudgeDecodingError: they do not.
    """
    text = "".join(pieces(tokenizer, ids))
    if not text.endswith(case.answer):
        at = _first_difference(case.answer, text[len(text) - len(case.answer) :] if case.answer else "")
        raise JudgeDecodingError(
            f"The tokenizer does not give the answer back: it changes {case.answer[at : at + 10]!r} at character {at}; "
            "use the target's own tokenizer, or mend the text."
        )


def split_ids(case: Case, tokenizer: PreTrainedTokenizerBase, *, rendered: bool = False) -> tuple[list[int], list[int]]:
    """Token ids of a case's question and of its answer, as they would be in decoding.

    The question's tokens are its own. Where a token of the whole text reaches over the seam it cannot follow them; the
    answer then has the tokens it has by itself. An answer that ended by itself has the end token behind it. Token ids
    that the case brings are taken as they are.

    Args:
        case: question and answer.
        tokenizer: the target's.
        rendered: the question is a rendered chat, with all its special tokens; so is one that starts with the begin
            token.

    Raises:
        JudgeDecodingError: token ids that the case brings are not its own; see `check_tokens`. Whether the others give
            the answer back is for `check_spelling` to say.
    """
    if case.token_ids is not None:
        spans = _given_spans(case, tokenizer)
        seam = next((i for i, (_, end) in enumerate(spans) if end > 0), len(spans))
        return list(case.token_ids[:seam]), list(case.token_ids[seam:])
    begun = rendered or (bool(tokenizer.bos_token) and case.question.startswith(str(tokenizer.bos_token)))
    before, whole = (
        list(tokenizer(text, add_special_tokens=not begun)["input_ids"])
        for text in (case.question, case.question + case.answer)
    )
    ids = whole[len(before) :]
    if whole[: len(before)] != before:
        ids = list(tokenizer(case.answer, add_special_tokens=False)["input_ids"])
    if case.ended and tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return before, ids


def token_spans(case: Case, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Character spans of the answer's tokens. Those that reach into the question or have no text are left out."""
    if case.token_ids is not None:
        spans = _given_spans(case, tokenizer)
    else:
        if not tokenizer.is_fast:
            raise JudgeDecodingError(
                f"{type(tokenizer).__name__} gives no character offsets; use the fast tokenizer of this model."
            )
        start = len(case.question)
        offsets = tokenizer(case.question + case.answer, return_offsets_mapping=True)["offset_mapping"]
        spans = [(begin - start, end - start) for begin, end in offsets]
    return [(max(begin, 0), end) for begin, end in spans if end > 0 and end > begin]


def _given_spans(case: Case, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Character spans of a case's own token ids; those before the answer are below 0."""
    check_tokens(case, tokenizer)
    texts = pieces(tokenizer, case.token_ids or ())
    spans, at = [], len(case.answer) - len("".join(texts))
    for text in texts:
        spans.append((at, at + len(text)))
        at += len(text)
    return spans


def _first_difference(text: str, other: str) -> int:
    """The first place, counted from the back, where ``other`` is not ``text``: what is before may be shifted."""
    same = 0
    while same < min(len(text), len(other)) and text[-1 - same] == other[-1 - same]:
        same += 1
    return max(0, len(text) - 1 - same)
