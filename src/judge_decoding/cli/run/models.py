"""Models for a command, and whether their prompts are chats; stderr says what is loaded, compiled and assumed.

One rule for all commands: prompts go through the chat template if there is one and they have no other form.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.terminal import say
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.loading.models import default_device, load_tokenizer
from judge_decoding.models.chat import Message, is_rendered, render

Render = Callable[[Sequence[Message]], str]
"""From the messages of a chat to the whole prompt."""

_COMPILING = 5.0
"""Above this many seconds, models were compiled and not only loaded."""


def load_models(
    target: str | Path,
    draft: str | None = None,
    judge: str | None = None,
    *,
    device: str | None,
    what: str = "the models",
    **more: Any,  # noqa: ANN401  (of `JudgeDecoder.from_pretrained`)
) -> JudgeDecoder:
    """Load a decoder, and make it ready for its back end; see `JudgeDecoder.from_pretrained`."""
    notes = Terminal(err=True)
    with notes.status(f"loading {what}"):
        decoder = JudgeDecoder.from_pretrained(target, draft, judge, device=device or default_device(), **more)
    with notes.status("loading what was compiled" if decoder.backend == "static" else "") as status:
        begin = time.perf_counter()
        for reason in decoder.compile(lambda text: status.update(Text(text))):
            notes.print(f"Not compiled: {reason}.", highlight=False, soft_wrap=True)
    if (seconds := time.perf_counter() - begin) > _COMPILING:
        notes.print(f"Compiled in {seconds:.0f} s; cached for the next run.", style="dim", highlight=False)
    return decoder


def uses_chat(
    chat: bool | None, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str] = (), *, template: str | None = None
) -> bool:
    """Whether prompts go through the chat template; a line on stderr reports the default (``chat=None``).

    The default leaves prompts as they are if all are rendered already, or if there is a prompt ``template``.

    Raises:
        JudgeDecodingError: a chat is asked for, and there is no chat template.
    """
    there = bool(tokenizer.chat_template)
    if chat and not there:
        raise JudgeDecodingError("This model has no chat template; leave --chat out.")
    if chat is not None or not there or template is not None:
        return bool(chat)
    rendered = bool(prompts) and all(is_rendered(text, tokenizer) for text in prompts)
    say(
        "The prompts are rendered already; the chat template is not applied again."
        if rendered
        else "Using the chat template; --no-chat turns it off.",
        err=True,
    )
    return not rendered


def renderer(chat: bool | None, model: str, template: str | None = None) -> Render | None:
    """The chat template of a model, a Hub name or folder; None if prompts stay as they are.

    Raises:
        JudgeDecodingError: a chat is asked for, and there is no chat template.
    """
    if chat is False:
        return None
    tokenizer = load_tokenizer(model)
    if not uses_chat(chat, tokenizer, template=template):
        return None

    def rendered(messages: Sequence[Message]) -> str:
        text = messages[-1]["content"]
        return str(text) if is_rendered(text, tokenizer) else render(messages, tokenizer)

    return rendered
