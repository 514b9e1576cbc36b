"""How the labels of an answer are read: which tokens are wrong, which are correct, and which are not used."""

from __future__ import annotations

import pytest
from tokenizers.processors import TemplateProcessing

from judge_decoding import Case
from judge_decoding.training.labels import IGNORED, AfterError, Labels, data_hash, encode
from tiny import EOS, byte_fallback_tokenizer, byte_level_tokenizer, word_tokenizer

READINGS: list[tuple[Labels, AfterError]] = [
    ("error", "ignore"), ("error", "correct"), ("span", "ignore"), ("span", "correct"), ("from_error", "ignore"),
]  # fmt: skip


def labels(
    answer: str,
    *errors: tuple[int, int],
    reading: Labels = "span",
    after: AfterError = "ignore",
    ended: bool = True,
    judged: tuple[tuple[int, int], ...] | None = None,
) -> list[int]:
    """Labels of the answer's tokens and its end; the question's two tokens must be unused."""
    case = Case(question="one two ", answer=answer, errors=errors, ended=ended, judged=judged)
    example = encode(case, word_tokenizer(), reading, after)
    assert len(example.ids) == len(example.labels) == len(example.numbers)
    assert example.labels[:2] == (IGNORED, IGNORED)
    return list(example.labels[2:])


def test_a_right_answer_is_correct_to_its_end() -> None:
    for reading, after in READINGS:
        assert labels("three four five", reading=reading, after=after) == [1, 1, 1, 1]
        assert labels("three four five", reading=reading, after=after, ended=False) == [1, 1, 1]


def test_an_ended_answer_has_the_end_token() -> None:
    tokenizer = word_tokenizer()
    case = Case(question="one ", answer="two")
    assert encode(case, tokenizer).ids == (4, 5, EOS)
    assert encode(case.model_copy(update={"ended": False}), tokenizer).ids == (4, 5)


@pytest.mark.parametrize(
    ("reading", "after", "expected"),
    [
        ("error", "ignore", [1, 0, IGNORED, IGNORED, IGNORED, IGNORED]),
        ("error", "correct", [1, 0, 1, 1, 1, 1]),
        ("span", "ignore", [1, 0, 0, IGNORED, 0, IGNORED]),
        ("span", "correct", [1, 0, 0, 1, 0, 1]),
        ("from_error", "ignore", [1, 0, 0, 0, 0, 0]),
        ("from_error", "correct", [1, 0, 0, 0, 0, 0]),
    ],
)
def test_each_reading_of_two_errors(reading: Labels, after: AfterError, expected: list[int]) -> None:
    """``three [bad bad] four [bad]`` and its end; the errors in any order."""
    first, second = (6, 13), (19, 22)
    assert labels("three bad bad four bad", first, second, reading=reading, after=after) == expected
    assert labels("three bad bad four bad", second, first, reading=reading, after=after) == expected


@pytest.mark.parametrize("span", [(6, 9), (6, 6), (7, 8), (8, 9), (5, 7)])
def test_a_token_that_touches_the_span_is_wrong(span: tuple[int, int]) -> None:
    """``three bad four``: also a part of a word, and the space before it."""
    for reading in ("error", "span"):
        assert labels("three bad four", span, reading=reading, after="correct") == [1, 0, 1, 1]


def test_a_span_over_two_tokens_makes_both_wrong_or_the_first() -> None:
    assert labels("three bad four", (4, 7), after="correct") == [0, 0, 1, 1]
    assert labels("three bad four", (4, 7), reading="error", after="correct") == [0, 1, 1, 1]
    assert labels("three bad four", (4, 7), reading="error") == [0, IGNORED, IGNORED, IGNORED]


def test_neighbours_of_a_span_are_not_wrong() -> None:
    assert labels("three bad four", (5, 6), after="correct") == [1, 1, 1, 1]


@pytest.mark.parametrize(("reading", "after"), READINGS)
def test_an_answer_that_ends_too_early_has_a_wrong_end(reading: Labels, after: AfterError) -> None:
    assert labels("three four", (10, 10), reading=reading, after=after) == [1, 1, 0]


def test_an_error_in_the_last_word_leaves_the_end_to_the_reading() -> None:
    assert labels("three bad", (6, 9), after="correct") == [1, 0, 1]
    assert labels("three bad", (6, 9)) == [1, 0, IGNORED]
    assert labels("three bad", (6, 9), reading="from_error") == [1, 0, 0]


def test_of_the_tokens_of_one_character_the_first_is_wrong() -> None:
    """A character in three tokens, which have the same place in the text."""
    case = Case(question="a", answer="b€c", errors=((1, 2),), ended=False)
    for reading, wrong in (("error", [0]), ("span", [0, 0, 0])):
        found = encode(case, byte_fallback_tokenizer(), reading, "ignore").labels  # type: ignore[arg-type]
        assert [label for label in found if label == 0] == wrong
        assert found[-1] == IGNORED


def test_what_is_not_judged_is_not_used_and_cannot_be_the_first_wrong_token() -> None:
    only = ((10, 13),)
    assert labels("three bad bad four", (6, 13), judged=only) == [IGNORED, IGNORED, 0, IGNORED, IGNORED]
    assert labels("three bad bad four", (6, 13), judged=only, reading="error")[2] == 0


def test_the_judged_tokens_are_those_of_any_reading() -> None:
    case = Case(question="one two ", answer="three bad four", errors=((6, 9),))
    found = {encode(case, word_tokenizer(), *reading).judged for reading in READINGS}
    assert found == {(2, 3, 4, 5)}
    part = case.model_copy(update={"judged": ((6, 9),)})
    assert encode(part, word_tokenizer()).judged == (3,)


def test_numbers_are_known() -> None:
    tokenizer = word_tokenizer(["one", "12", "$3.50,", "4th", "-", "x2"])
    case = Case(question="12 ", answer="one 12 $3.50, 4th - x2", ended=True)
    assert encode(case, tokenizer).numbers == (False, False, True, True, False, False, False, False)


def test_a_token_over_the_end_of_the_question_is_not_used() -> None:
    """Decoding has read the question by itself: what follows it has the tokens that the answer has by itself."""
    tokenizer = byte_level_tokenizer("ab")
    case = Case(question="xa", answer="bab", errors=((0, 1),), ended=False)
    example = encode(case, tokenizer, "span", "correct")
    assert tokenizer.convert_ids_to_tokens(list(example.ids)) == ["x", "a", "b", "ab"]
    assert example.labels == (IGNORED, IGNORED, 0, 1)


def test_the_begin_token_is_there_once_and_unused() -> None:
    """Chat templates write it themselves; read as in decoding, it must not be there twice."""
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    plain = encode(Case(question="one ", answer="two", ended=False), tokenizer)
    assert (plain.ids, plain.labels) == ((1, 4, 5), (IGNORED, IGNORED, 1))
    chat = encode(Case(question="<s> one ", answer="two", ended=False), tokenizer)
    assert (chat.ids, chat.labels) == ((1, 4, 5), (IGNORED, IGNORED, 1))


def test_the_data_hash_is_of_what_is_learnt() -> None:
    case = Case(question="q", answer="abc", errors=((0, 1),))
    same = case.model_copy(update={"annotator": "me", "seconds": 2.0})
    assert data_hash([case]) == data_hash([same])
    for change in ({"question": "r"}, {"answer": "abd"}, {"errors": ()}, {"ended": False}):
        assert data_hash([case.model_copy(update=change)]) != data_hash([case])
    assert data_hash([case, case]) != data_hash([case])
