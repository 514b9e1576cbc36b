"""From ids to text one token at a time: joined, the pieces are the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from judge_decoding.models.text import Detokenizer, pieces
from tiny import EOS, byte_fallback_tokenizer, byte_level_tokenizer, word_tokenizer

TOKENIZERS = {
    "words": word_tokenizer(),
    "byte fallback": byte_fallback_tokenizer(),
    "byte level": byte_level_tokenizer(),
}
TEXTS = ["é", "a é b", "€uro", "b 😀 c", "日本語 ok", "😀😀", "e\u0301", "\ufffd", "a \ufffd b", "x\n\ny"]
BYTES = ["byte fallback", "byte level"]


def decoded(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("text", TEXTS)
def test_characters_split_over_tokens_join_again(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = pieces(tokenizer, ids)
    assert len(parts) == len(ids)
    assert "".join(parts) == decoded(tokenizer, ids) == text


@pytest.mark.parametrize("name", BYTES)
def test_a_character_appears_whole_with_its_last_byte(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer("a€", add_special_tokens=False)["input_ids"]
    assert pieces(tokenizer, ids)[-4:] == ["a", "", "", "€"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12), st.sampled_from(BYTES))
def test_any_text_joins_again(text: str, name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(pieces(tokenizer, ids)) == decoded(tokenizer, ids)


@given(st.text(max_size=8, alphabet="aé€😀 "), st.integers(1, 3))
def test_an_unfinished_character_is_shown_at_the_end(text: str, missing: int) -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer(text + "😀", add_special_tokens=False)["input_ids"][:-missing]
    joined = "".join(pieces(tokenizer, ids))
    assert joined == decoded(tokenizer, ids)
    assert joined.startswith(text)
    assert joined.endswith("\ufffd")


@given(st.lists(st.integers(0, 255), max_size=10))
def test_any_bytes_join_again(values: list[int]) -> None:
    """Bytes that are no text at all, as a model may say them."""
    tokenizer = TOKENIZERS["byte level"]
    joined = "".join(pieces(tokenizer, values))
    assert joined.replace("\ufffd", "") == decoded(tokenizer, values).replace("\ufffd", "")


def test_words_keep_their_spaces() -> None:
    assert pieces(TOKENIZERS["words"], [4, 5, 22]) == ["one", " two", " cat"]


def test_special_tokens_add_nothing() -> None:
    assert pieces(TOKENIZERS["words"], [1, 4, EOS, 5, 0]) == ["", "one", "", " two", ""]
    assert pieces(TOKENIZERS["words"], [EOS]) == [""]


def test_no_tokens_are_no_text() -> None:
    assert pieces(TOKENIZERS["words"], []) == []
    assert Detokenizer(TOKENIZERS["words"]).flush() == ""
