"""Chats become text as transformers' own ``apply_chat_template`` makes it, and a begun answer is continued."""

from __future__ import annotations

from typing import Any

import pytest

from judge_decoding import JudgeDecoder, JudgeDecodingError
from judge_decoding.models.chat import is_rendered, render, turn_end
from tiny import llama, word_tokenizer

TEXTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + '' }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% for part in m['content'] %}{{ part['text'] }}{% endfor %}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
BOTH = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}[{{ part['text'] | trim }}]{% endfor %}{% endif %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
REPR = TEXTS.replace(" + ''", "")  # writes a list as Python spells it

USER = {"role": "user", "content": "Name a colour."}
ANSWER = {"role": "assistant", "content": "Sure:"}


def tokenizer_of(template: str) -> Any:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [TEXTS, PARTS, BOTH, REPR])
def test_a_chat_is_made_ready_for_an_answer(template: str) -> None:
    expected = "<|user|>\nName a colour.<|end|>\n<|assistant|>\n"
    assert render([USER], tokenizer_of(template)) == expected
    assert is_rendered(expected, tokenizer_of(template))
    assert not is_rendered("Name a colour.", tokenizer_of(template))
    assert turn_end(tokenizer_of(template)) == "<|end|>\n"


@pytest.mark.parametrize("template", [TEXTS, PARTS, BOTH, REPR])
@pytest.mark.parametrize("begun", ["Sure:", "Sure: ", "Sure:\n"])
def test_a_begun_answer_is_continued(template: str, begun: str) -> None:
    chat = [USER, {"role": "assistant", "content": begun}]
    expected = f"<|user|>\nName a colour.<|end|>\n<|assistant|>\n{begun}"
    assert render(chat, tokenizer_of(template)) == expected
    if template != PARTS:
        own = tokenizer_of(template).apply_chat_template(chat, tokenize=False, continue_final_message=True)
        assert own == expected


def test_an_answer_of_which_nothing_is_written_is_begun() -> None:
    tokenizer = tokenizer_of(TEXTS)
    assert render([USER, {"role": "assistant", "content": ""}], tokenizer) == render([USER], tokenizer)


def test_an_answer_in_the_middle_is_not_continued() -> None:
    text = render([USER, ANSWER, USER], tokenizer_of(TEXTS))
    assert text.endswith("Sure:<|end|>\n<|user|>\nName a colour.<|end|>\n<|assistant|>\n")


@pytest.mark.parametrize(("template", "shown"), [(TEXTS, "a\nb"), (PARTS, "ab"), (BOTH, "[a][b]"), (REPR, "a\nb")])
def test_parts_of_text(template: str, shown: str) -> None:
    """As the template writes them, where it knows parts; else one a line."""
    chat = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert render(chat, tokenizer_of(template)) == f"<|user|>\n{shown}<|end|>\n<|assistant|>\n"
    assert chat[0]["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


def test_texts_and_parts_in_one_chat() -> None:
    chat: list[dict[str, Any]] = [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
    ]
    for template in (TEXTS, PARTS):
        assert "be good<|end|>\n<|user|>\na<|end|>" in render(chat, tokenizer_of(template))


@pytest.mark.parametrize(
    ("messages", "phrase"),
    [
        ([{"role": "user", "content": None}], "Message 1 of the chat has no content"),
        ([{"role": "user"}], "Message 1 of the chat has no content"),
        ([USER, {"content": "x"}], "Message 2 of the chat has no role"),
        ([{"role": "user", "content": 5}], "Message 1 of the chat has content that is not text"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "Message 1 .* not text"),
        ([{"role": "assistant", "content": ""}], "no text to continue"),
        ([USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}], "no text to continue"),
        ([], "The prompt is empty"),
        (["one"], "nor chat messages"),
    ],
)
def test_what_is_no_chat_is_told_in_a_sentence(messages: Any, phrase: str) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase):
        render(messages, tokenizer_of(TEXTS))


def test_what_a_template_refuses_is_told_in_a_sentence() -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(JudgeDecodingError, match=r"refuses these messages \(roles must alternate\)"):
        render([USER], tokenizer_of(template))
    assert turn_end(tokenizer_of(template)) == ""
    assert not is_rendered("", tokenizer_of(template))


def test_the_decoder_continues_a_begun_answer() -> None:
    tokenizer, model = word_tokenizer(), llama(0)
    decoder = JudgeDecoder(model, tokenizer)
    chat = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two three"}]
    ids = decoder.encode(chat)[0].tolist()
    assert ids[-2:] == tokenizer("two three")["input_ids"]
    assert decoder.generate(chat, 8).token_ids == decoder.generate(render(chat, tokenizer), 8).token_ids
