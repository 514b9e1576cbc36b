"""Render chats with a model's chat template, and recognise rendered text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from judge_decoding.errors import JudgeDecodingError, reason
from judge_decoding.models.template_bounds import check_bounds

Message = Mapping[str, Any]
"""``role`` and ``content``, a text or a list of parts ``{"type": "text", "text": ...}``."""

_MARK = "Qzxjk"
"""A text that no template contains."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """The texts that a template adds before the first message and after an assistant message."""

    openings: tuple[str, ...]
    turn_end: str


# Cached, as rendering takes a millisecond and is needed for every case of a file.
_KNOWN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, _Facts]] = WeakKeyDictionary()


def render(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> str:
    """Render chat messages as a prompt.

    If the last message is the assistant's, it is the beginning of the answer: it stays open for continuation.
    """
    if not all(isinstance(message, Mapping) for message in messages):
        raise JudgeDecodingError(
            "The prompt is neither text, nor chat messages, nor a tensor of token ids; give one of these, one prompt "
            "at a time."
        )
    if not messages:
        raise JudgeDecodingError("The prompt is empty; give at least one message.")
    if not tokenizer.chat_template:
        raise JudgeDecodingError("This model has no chat template; give the prompt as text.")
    for number, message in enumerate(messages, start=1):
        _check(number, message)
    given = [dict(message) for message in messages]
    joined = [message | {"content": _joined(message.get("content"))} for message in given]
    last = joined[-1]
    continues = last["role"] == "assistant" and bool(last["content"])
    if last["role"] == "assistant" and not continues:
        if last.get("tool_calls") or len(joined) == 1:
            raise JudgeDecodingError(
                "The last message is the assistant's and has no text to continue; leave it out, or give its text."
            )
        given, joined = given[:-1], joined[:-1]  # an empty beginning of the answer
    # Some templates accept only texts, some only lists of parts, and some treat the two differently.
    parts = [message | {"content": _parted(message.get("content"))} for message in given]
    lists = any(not isinstance(message.get("content"), str | None) for message in given)
    plain, refusal = None, None
    for form in (parts, joined) if lists else (joined, parts):
        try:
            text = _apply(form, tokenizer, answers=not continues, continues=continues)
        except Exception as error:  # noqa: BLE001  (a template of a stranger)
            refusal = error if form is joined else refusal
            continue
        if _contains(text, joined[-1]["content"]):
            return text
        plain = text if form is joined else plain
    if plain is not None:
        return plain
    assert refusal is not None
    raise JudgeDecodingError(
        f"The model's chat template refuses these messages ({reason(refusal)}); give the roles and texts it expects, "
        f"or repair the template of {tokenizer.name_or_path or 'the tokenizer'}."
    ) from refusal


def is_rendered(text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether ``text`` begins like a chat of the model's chat template, with all special tokens it needs."""
    return bool(tokenizer.chat_template) and text.startswith(_facts(tokenizer).openings)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text that the chat template writes after an assistant message; empty without a template."""
    return _facts(tokenizer).turn_end if tokenizer.chat_template else ""


def _check(number: int, message: Message) -> None:
    if not isinstance(message.get("role"), str):
        raise JudgeDecodingError(f'Message {number} of the chat has no role; give it one, such as "user".')
    content = message.get("content")
    if content is None:
        if not message.get("tool_calls"):
            raise JudgeDecodingError(f"Message {number} of the chat has no content; give its text.")
        return
    texts = [content] if isinstance(content, str) else content
    if not isinstance(texts, list | tuple) or not all(isinstance(_text(part), str) for part in texts):
        raise JudgeDecodingError(
            f"Message {number} of the chat has content that is not text; give a text, or parts such as "
            '{"type": "text", "text": "..."}.'
        )


def _text(part: object) -> object:
    """Return the text of a message part; None if it is something else, such as an image."""
    if isinstance(part, Mapping):
        return part.get("text") if part.get("type", "text") == "text" else None
    return part


def _joined(content: Any) -> str | None:  # noqa: ANN401  (checked before)
    return content if content is None or isinstance(content, str) else "\n".join(map(str, map(_text, content)))


def _parted(content: Any) -> list[dict[str, Any]] | None:  # noqa: ANN401  (checked before)
    texts = [content] if isinstance(content, str) else content
    return None if content is None else [{"type": "text", "text": _text(part)} for part in texts]


def _contains(text: str, content: str | None) -> bool:
    """Whether a rendered chat contains the last message, rather than nothing or the repr of a list."""
    plain = (content or "").strip()
    return all(line.strip() in text for line in plain.splitlines()) and (
        "'type': 'text'" not in text or "'type': 'text'" in plain
    )


def _apply(
    messages: list[dict[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    answers: bool = False,
    continues: bool = False,
) -> str:
    """Render messages, with a generation prompt or the last message left open; raises whatever the template does."""
    variables = {"tools": None, "documents": None, **tokenizer.special_tokens_map, "add_generation_prompt": answers}
    check_bounds(tokenizer.get_chat_template(), messages, **variables)
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=answers, continue_final_message=continues
        )
    )


def _facts(tokenizer: PreTrainedTokenizerBase) -> _Facts:
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != tokenizer.chat_template:
        user, system, answer = ({"role": role, "content": _MARK} for role in ("user", "system", "assistant"))
        asked = {"role": "user", "content": "x"}
        openings = (_around(chat, tokenizer)[0] for chat in ([user], [system, asked]))
        known = (
            tokenizer.chat_template,
            _Facts(tuple(text for text in openings if text.strip()), _around([asked, answer], tokenizer)[1]),
        )
        _KNOWN[tokenizer] = known
    return known[1]


def _around(messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return the text before and after the marked message of a chat; empty texts if the template rejects the chat."""
    parts = [message | {"content": _parted(message["content"])} for message in messages]
    for form in (messages, parts):
        try:
            text = _apply(form, tokenizer)
        except Exception:  # noqa: BLE001  (a template of a stranger)
            continue
        if _MARK in text and "'type': 'text'" not in text:
            before, _, after = text.partition(_MARK)
            return before, after
    return "", ""
