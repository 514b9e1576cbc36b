"""Counting, dividing, merging and showing cases."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from judge_decoding import Case, JudgeDecodingError
from judge_decoding.data.agreement import agreement, cohens_kappa, summary
from judge_decoding.data.leaks import check_not_trained_on, leaks, relatives
from judge_decoding.data.sets import merge, rethreshold, split
from judge_decoding.data.tokens import check_tokens, fingerprint, token_spans
from judge_decoding.data.verdicts import Verdict, verdicts, words
from judge_decoding.report.cases import cases_page
from judge_decoding.training.labels import IGNORED, encode
from test_cases import TEXT, cases
from tiny import byte_fallback_tokenizer, byte_level_tokenizer, word_tokenizer

LONG_QUESTION = "Ann has 6 shells. Tom gives Ann 2 shells. How many shells does Ann have now?"


def case(answer: str = "good bad cat", question: str = "q", **more: object) -> Case:
    return Case(question=question, answer=answer, **more)  # type: ignore[arg-type]


@given(text=TEXT | st.text(alphabet=" \n\tab", max_size=12))
def test_words_are_the_text(text: str) -> None:
    assert "".join(text[start:end] for start, end in words(text)) == text


def test_verdicts_of_words() -> None:
    answer = "good bad cat"
    assert verdicts(case(errors=((5, 8),)), words(answer)) == [Verdict.CORRECT, Verdict.WRONG, Verdict.AFTER]
    assert verdicts(case(errors=((0, 5),)), words(answer))[1] is Verdict.AFTER  # the space is not the word
    assert set(verdicts(case(correct=False), words(answer))) == {Verdict.UNJUDGED}
    judged = case(judged=((5, 8),))
    assert verdicts(judged, words(answer)) == [Verdict.UNJUDGED, Verdict.CORRECT, Verdict.UNJUDGED]


def test_kappa() -> None:
    assert cohens_kappa([1, 0, 1, 0], [1, 0, 1, 0]) == 1
    assert cohens_kappa([1, 1, 0, 0], [1, 0, 1, 0]) == 0
    assert cohens_kappa([], []) is None
    assert cohens_kappa([1, 1], [1, 1]) is None
    # 50 answers, the textbook's table: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no.
    first, second = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert math.isclose(cohens_kappa(first, second) or 0, 0.4)
    with pytest.raises(ValueError, match="longer"):
        cohens_kappa([1], [1, 2])


def test_agreement_of_two_annotators() -> None:
    one = [case(annotator="a", errors=((5, 8),)), case("x", annotator="a")]
    other = [case(annotator="b", errors=((5, 8),)), case("x", annotator="b", errors=((0, 1),))]
    row = agreement([*one, *other, case("y", annotator="c"), case("z")])
    assert len(row) == 1
    assert row[0]["answers"] == 2
    assert row[0]["kappa over answers"] == 0
    assert row[0]["same first error"] == 1
    assert 0 < float(str(row[0]["kappa over words"])) < 1


def test_summary() -> None:
    found = summary([case(errors=((5, 8),), seconds=2, source="human"), case(question=" Q "), case("x", correct=False)])
    assert [found[name] for name in ("cases", "questions", "right", "wrong", "wrong, not located")] == [3, 1, 1, 1, 1]
    assert found["words"] == {"correct": 4, "wrong": 1, "after the error": 1, "not judged": 1}
    assert found["sources"] == {"unknown": 2, "human": 1}
    assert found["median seconds a label"] == 2


def test_leaks() -> None:
    found = leaks({"train": [case(question="One  two"), case(question="x")], "test": [case(question="one two")]})
    assert found == {"One  two": ["train", "test"]}
    inside = case(question=f"system: be brief. user: {LONG_QUESTION.upper()}")
    assert leaks({"train": [case(question=LONG_QUESTION)], "test": [inside], "dev": [case(question="x")]}) == {
        LONG_QUESTION: ["train", "test"],
        inside.question: ["train", "test"],
    }


@pytest.mark.parametrize(
    ("asked", "trained", "shared"),
    [
        (["What is  it?"], "what IS it?", True),  # the whole question, case and space apart
        (["what is it?"], "tell me: what is it?", False),  # a short one may be part of any text
        (["tell me: what is it?"], "what is it?", False),
        ([LONG_QUESTION], f"<system>Be brief.<user>{LONG_QUESTION}<assistant>", True),  # inside what is trained on
        ([f"Complete this.\n{LONG_QUESTION.upper()}\nEnd with a number."], LONG_QUESTION, True),  # around it
        (["short", f"<user>{LONG_QUESTION}<assistant>"], LONG_QUESTION, True),  # in one of its forms
        ([LONG_QUESTION], LONG_QUESTION[:-30] + "?" * 30, False),
        ([LONG_QUESTION[:29]], LONG_QUESTION, False),
        ([LONG_QUESTION[:30]], LONG_QUESTION, True),
    ],
)
def test_questions_that_were_trained_on_are_refused(asked: list[str], trained: str, shared: bool) -> None:
    data = ["When?", trained]
    check_not_trained_on([["Who?"], ["Where?"]], data)
    if not shared:
        check_not_trained_on([["Who?"], asked], data)
        return
    with pytest.raises(JudgeDecodingError):
        check_not_trained_on([["Who?"], asked], data)


@given(seed=st.integers(0, 50), questions=st.lists(TEXT, min_size=30, max_size=40, unique=True))
def test_no_question_is_in_two_parts(seed: int, questions: list[str]) -> None:
    data = [case(answer, question=question) for question in questions for answer in "ab"]
    parts = split(data, {"train": 0.6, "test": 0.4}, seed)
    assert sorted(map(repr, data)) == sorted(map(repr, parts["train"] + parts["test"]))
    assert leaks(parts) == {}
    more = split([*data, case(question="another")], {"train": 0.6, "test": 0.4}, seed)
    assert all(set(part) <= set(more[name]) for name, part in parts.items())


@given(
    seed=st.integers(0, 50),
    parts=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 6)), min_size=20, max_size=40, unique=True),
)
def test_what_split_writes_can_be_evaluated(seed: int, parts: list[tuple[int, int]]) -> None:
    """Also where questions are parts of others, directly or through a third."""
    sentences = [f"{LONG_QUESTION} {name}." for name in "abcdefgh" * 2]
    questions = [" ".join(sentences[start : start + count]) for start, count in parts]
    data = [case(question=question) for question in [*questions, *map(str, range(200))]]
    halves = split(data, {"train": 0.5, "test": 0.5}, seed)
    train, test = ([one.question for one in halves[name]] for name in ("train", "test"))
    check_not_trained_on([[question] for question in test], train)
    check_not_trained_on([[question] for question in train], test)
    assert leaks(halves) == {}


def test_each_question_goes_with_the_shortest_that_it_is_tied_to() -> None:
    one, other = LONG_QUESTION, LONG_QUESTION.replace("shells", "stones")
    both, apart = f"{one} {other}", LONG_QUESTION.replace("shells", "cakes")
    texts = {name: " ".join(text.casefold().split()) for name, text in
             {"one": one, "other": other, "both": both, "apart": apart, "short": "ann has"}.items()}  # fmt: skip
    found = relatives([both.upper(), one, other, apart, "ann  has"])
    assert found == {
        texts["both"]: texts["one"], texts["one"]: texts["one"], texts["other"]: texts["one"],
        texts["apart"]: texts["apart"], texts["short"]: texts["short"],
    }  # fmt: skip


@pytest.mark.parametrize("shares", [{}, {"a": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 1.0, "b": 0.0}])
def test_shares_must_sum_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(JudgeDecodingError, match="sum to 1"):
        split([case()], shares)


def test_shares_are_kept_about() -> None:
    parts = split([case(question=str(i)) for i in range(2000)], {"a": 0.8, "b": 0.15, "c": 0.05})
    assert [round(len(part) / 2000, 1) for part in parts.values()] == [0.8, 0.2, 0.1] or len(parts["a"]) > 1500


def test_merge() -> None:
    labels = [
        case(correct=False), case(errors=((5, 8),), annotator="a"), case(errors=((5, 8),), annotator="b"),
        case(errors=((0, 4),), annotator="b"), case("x"), case("x"),
    ]  # fmt: skip
    first = merge(labels)
    assert [found.errors for found in first.cases] == [((5, 8),), ()]
    assert (first.duplicates, len(first.conflicts), len(first.conflicts[0])) == (3, 1, 2)
    assert [found.answer for found in merge(labels, "drop").cases] == ["x"]
    assert len(merge(labels, "keep").cases) == 4


@given(data=st.lists(cases(), max_size=6))
def test_merging_twice_changes_nothing(data: list[Case]) -> None:
    once = merge(data + data)
    assert merge(once.cases).cases == once.cases
    assert len(once.cases) + once.duplicates + sum(len(group) - 1 for group in once.conflicts) == 2 * len(data)


def test_a_page_shows_every_verdict_and_escapes_everything() -> None:
    evil = '"><script>alert(1)</script>'
    page = cases_page(
        evil,
        [
            case(evil, question=evil, errors=((0, 2),), source=evil, writer=evil, annotator=evil, reference=evil),
            case("ends", errors=((4, 4),)),
            case(correct=False),
            case(),
        ],
        {evil: evil},
    )
    assert "<script>alert" not in page
    assert "should not end here" in page
    assert all(f'data-kind="{kind}"' in page for kind in ("wrong", "right", "unlocated"))
    assert "default-src 'none'" in page


@given(data=cases())
def test_a_page_has_the_whole_answer(data: Case) -> None:
    import html
    import re

    page = cases_page("t", [data], {})
    body = (
        page.split('class="answer">')[1]
        .split("</p>")[0]
        .replace(' <span class="wrong" title="wrong">should not end here</span>', "")
    )
    # jinja writes text as it is, but for what HTML needs escaped.
    assert html.unescape(re.sub(r"<[^>]*>", "", body)) == html.unescape(html.escape(data.answer))


def test_tokens_and_their_verdicts() -> None:
    tokenizer = word_tokenizer()
    shown = case(" good bad cat", question="one two")
    assert token_spans(shown, tokenizer) == [(1, 5), (6, 9), (10, 13)]
    assert (
        encode(case(" good bad cat", question="one two", judged=((6, 9),)), tokenizer, "from_error").labels.count(1)
        == 1
    )


@pytest.mark.parametrize("make", [byte_level_tokenizer, byte_fallback_tokenizer])
@pytest.mark.parametrize("judged", [None, ((1, 2),), ()])
def test_cases_with_token_ids_are_encoded_as_those_with_text(make: object, judged: object) -> None:
    tokenizer = make()  # type: ignore[operator]
    text = case("bad cat", question="one two ", errors=((1, 3),), judged=judged, ended=False)
    plain = encode(text, tokenizer)
    with_ids = text.model_copy(update={"token_ids": plain.ids, "tokenizer": fingerprint(tokenizer)})
    assert encode(with_ids, tokenizer) == plain
    assert token_spans(with_ids, tokenizer) == token_spans(text, tokenizer)


def test_an_end_token_among_the_ids_is_judged() -> None:
    tokenizer = byte_level_tokenizer()
    ids = (*tokenizer("ab")["input_ids"], tokenizer.eos_token_id)
    found = encode(case("b", question="a", token_ids=ids, errors=((1, 1),)), tokenizer, "from_error")
    assert found.labels == (IGNORED, 1, 0)


def test_what_a_tokenizer_does_not_give_back_is_told(tokenizer: PreTrainedTokenizerFast) -> None:
    check_tokens(case("good cat", question="one "), tokenizer)
    with pytest.raises(JudgeDecodingError, match="does not round-trip"):
        check_tokens(case("good zebra", question="one "), tokenizer)
    ids = tuple(tokenizer("one good cat")["input_ids"])
    check_tokens(case("good cat", question="one ", token_ids=ids, tokenizer=fingerprint(tokenizer)), tokenizer)
    for more, phrase in (
        ({"tokenizer": "other"}, "another tokenizer"),
        ({"token_ids": (9999,)}, "exceed the tokenizer's"),
        ({"token_ids": (5,)}, "do not spell"),
    ):
        with pytest.raises(JudgeDecodingError, match=phrase):
            check_tokens(case("good cat", question="one ", **({"token_ids": ids} | more)), tokenizer)


def test_another_threshold_changes_the_verdicts_and_nothing_else() -> None:
    scored = [case(f"bad {i}", judged=((0, 3),), score=float(i)) for i in range(3)]
    assert [bool(c.errors) for c in rethreshold(scored, 1.0)] == [True, True, False]
    again = rethreshold(rethreshold(scored, 5.0), -1.0)
    assert again == scored
    with pytest.raises(JudgeDecodingError, match="has no score"):
        rethreshold([case("good")], 0.0)
