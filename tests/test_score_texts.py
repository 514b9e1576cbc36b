"""From a file of answers to the tokens that are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from judge_decoding import Case, JudgeDecodingError, read_cases
from judge_decoding.data.tokens import fingerprint, split_ids
from judge_decoding.evaluation.texts import PromptTemplate, TokenizedAnswer, read_answers, tokenized
from tiny import EOS, byte_level_tokenizer, word_tokenizer


def spelled(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[str]:
    return list(tokenizer.convert_ids_to_tokens(ids))


def text(
    case: Case, tokenizer: PreTrainedTokenizerFast, form: PromptTemplate | None = None, **limits: int | None
) -> TokenizedAnswer:
    return tokenized(
        case, tokenizer, form or PromptTemplate(), size=limits.get("size") or 1000, context=limits.get("context")
    )


# The seam of question and answer


def test_the_answer_has_the_tokens_it_has_behind_its_question() -> None:
    tokenizer = byte_level_tokenizer("ab", "cd")
    before, ids = split_ids(Case(question="xab", answer="cd"), tokenizer)
    assert spelled(tokenizer, before) == ["x", "ab"]
    assert spelled(tokenizer, ids) == ["cd", "</s>"]


def test_a_token_over_the_seam_cannot_follow_the_question() -> None:
    tokenizer = byte_level_tokenizer("ab")
    before, ids = split_ids(Case(question="xa", answer="bab", ended=False), tokenizer)
    assert spelled(tokenizer, before) == ["x", "a"]
    assert spelled(tokenizer, ids) == ["b", "ab"]


def test_an_answer_that_did_not_end_has_no_end_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert split_ids(Case(question="one", answer=" two"), tokenizer)[1][-1] == EOS
    assert spelled(tokenizer, split_ids(Case(question="one", answer=" two", ended=False), tokenizer)[1]) == ["two"]


def test_a_rendered_chat_gets_no_second_begin_token() -> None:
    tokenizer: Any = word_tokenizer()
    tokenizer.add_bos_token = True
    begun = split_ids(Case(question="<s> one", answer=" two"), tokenizer)
    assert spelled(tokenizer, begun[0]) == ["<s>", "one"]


def test_the_cases_own_tokens_are_taken(tokenizer: PreTrainedTokenizerFast) -> None:
    one, two, three = (tokenizer.vocab[word] for word in ("one", "two", "three"))
    case = Case(
        question="one", answer=" two three", token_ids=(one, two, three, EOS), tokenizer=fingerprint(tokenizer)
    )  # fmt: skip
    assert split_ids(case, tokenizer) == ([one], [two, three, EOS])
    # Another tokenizer reads the text, unless the labels are about these very tokens.
    other = byte_level_tokenizer()
    assert spelled(other, list(text(case, other).ids)) == [*"ĠtwoĠthree", "</s>"]
    with pytest.raises(JudgeDecodingError, match="another tokenizer"):
        text(case.model_copy(update={"judged": ((0, 4),)}), other)
    # In another form they are not the prompt's any more.
    assert text(case, tokenizer, PromptTemplate("good {question}")).prompt_ids == (
        tokenizer.vocab["good"], tokenizer.vocab["one"],
    )  # fmt: skip


# What cannot be scored


def test_an_answer_that_the_tokenizer_changes() -> None:
    with pytest.raises(JudgeDecodingError):
        text(Case(question="one", answer=" two nonsense"), word_tokenizer())


@pytest.mark.parametrize(
    ("case", "limits", "phrase"),
    [
        (Case(question="one", answer="  "), {}, "The answer is empty"),
        (Case(question="", answer="two"), {}, "The prompt is empty"),
        (Case(question="one two", answer=" three"), {"context": 3}, "has 4 tokens with its prompt .* context is 3"),
        (Case(question="one two", answer=" three"), {"size": 5}, "token id 6, but the target's ids are 0 to 4"),
    ],
)
def test_answers_that_do_not_fit(case: Case, limits: dict[str, Any], phrase: str) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase):
        text(case, word_tokenizer(), **limits)


# Forms


@pytest.mark.parametrize(
    ("template", "question", "answer"),
    [
        ("Q: {question}\nA:", "Q: why?\nA:", "so"),
        ("Q: {question}\nA: {answer}", "Q: why?\nA:", " so"),
        ("Q: {question}\nA:\n{answer}", "Q: why?\nA:\n", "so"),
        ("{question}", "why?", "so"),
    ],
)
def test_a_template(template: str, question: str, answer: str) -> None:
    shown = PromptTemplate(template).apply(Case(question="why?", answer="so", ended=False), word_tokenizer())
    assert (shown.question, shown.answer, shown.ended) == (question, answer, False)


def test_a_question_that_looks_like_a_template_is_no_template() -> None:
    shown = PromptTemplate("Q: {question} A: {answer}").apply(
        Case(question="{answer} {question}", answer="so"), word_tokenizer()
    )
    assert (shown.question, shown.answer) == ("Q: {answer} {question} A:", " so")


def test_a_chat() -> None:
    shown = PromptTemplate(chat=True).apply(Case(question="one", answer="two"), word_tokenizer())
    assert shown.question == "user one up "
    shown = PromptTemplate("good {question}", chat=True).apply(Case(question="one", answer="two"), word_tokenizer())
    assert shown.question == "user good one up "
    with pytest.raises(JudgeDecodingError):
        PromptTemplate(chat=True).apply(Case(question="one", answer="two"), word_tokenizer(chat=False))


@pytest.mark.parametrize(
    ("template", "chat", "phrase"),
    [
        ("Q:", False, "no {question}"),
        ("{question} {answer}.", False, "wrong place"),
        ("{answer} {question}", False, "wrong place"),
        ("{question} {answer}", True, "wrong place"),
    ],
)
def test_bad_templates(template: str, chat: bool, phrase: str) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase):
        PromptTemplate(template, chat)


# Files


def test_answers_of_a_file(tmp_path: Path) -> None:
    rows: list[object] = [
        {"question": "a", "answer": "b", "extra": 1},
        {"prompt": "a"},
        [1],
        {"question": "a", "answer": None},
        {"question": "a", "answer": "b", "ended": "perhaps"},
        {"question": "c", "answer": "d", "ended": False, "errors": [[0, 1]]},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\n".join(json.dumps(row).encode() for row in rows) + b'\n{"question": "\xff"}\n{"questi')
    told: list[str] = []
    found = list(read_answers(path, "question", "answer", told.append))
    assert found == [(1, Case(question="a", answer="b")), (6, Case(question="c", answer="d", ended=False))]
    phrases = (
        "line 2 has no field 'question', only prompt; name the fields", "line 3 is not a JSON object",
        "line 4 has no text in the field 'answer'", "line 5 is not an answer: ended", "line 7 is not UTF-8",
        "line 8 is not JSON",
    )  # fmt: skip
    assert len(told) == len(phrases)
    for sentence, phrase in zip(told, phrases, strict=True):
        assert phrase in sentence
        assert sentence.endswith(".")


def test_fields_can_have_other_names(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"problem": "a", "solution": "b"}\n')
    assert list(read_answers(path, "problem", "solution", pytest.fail)) == [(1, Case(question="a", answer="b"))]


def test_a_tokencourt_file_is_read_as_it_is(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = tmp_path / "cases.jsonl"
    case = Case(
        question="one", answer=" two", ended=False, token_ids=tuple(tokenizer("one two")["input_ids"]),
        tokenizer=fingerprint(tokenizer), source="human", judged=((0, 2),),
    )  # fmt: skip
    path.write_text(case.model_dump_json() + "\n")
    (_, read), *_ = read_answers(path, "question", "answer", pytest.fail)
    assert read.token_ids == read_cases(path)[0].token_ids
    assert split_ids(read, tokenizer) == split_ids(case, tokenizer)
