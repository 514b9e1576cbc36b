"""The cases that ``train`` learns from, as the target reads them, without those it cannot use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.cli.terminal import warn
from judge_decoding.data.asking import ask_cases
from judge_decoding.data.cases import Case, read_cases
from judge_decoding.data.starter import is_starter
from judge_decoding.data.tokens import split_ids
from judge_decoding.models.context import context_length


def located_cases(paths: Sequence[Path]) -> dict[Path, list[Case]]:
    """The cases of each file, without answers that are known to be wrong, but not where.

    Raises:
        JudgeDecodingError: a file cannot be read, or a line of it is no case.
    """
    found = {path: read_cases(path) for path in paths}
    kept = {path: [case for case in cases if case.located] for path, cases in found.items()}
    left_out = sum(map(len, found.values())) - sum(map(len, kept.values()))
    _warn(left_out, "answers that are known to be wrong, but not where")
    return kept


def prompted_cases(files: dict[Path, list[Case]], tokenizer: PreTrainedTokenizerBase, chat: bool | None) -> list[Case]:
    """All cases as the target reads them.

    The starter set's questions are plain text: they go through the chat template if there is one. Those of other files
    are whole prompts, unless ``chat`` says that they are plain text, too.

    Raises:
        JudgeDecodingError: a chat is asked for, and the model has no chat template.
    """
    out: list[Case] = []
    for path, cases in files.items():
        out += ask_cases(cases, tokenizer, chat=chat) if is_starter(path) or chat else cases
    return out


def within_context(cases: Sequence[Case], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[Case]:
    """Those of ``cases`` that the target has room for; the others are counted in a warning."""
    context = context_length(model)
    kept = [case for case in cases if context is None or sum(map(len, split_ids(case, tokenizer))) <= context]
    _warn(len(cases) - len(kept), f"answers that are longer than the target's context of {context} tokens")
    return kept


def _warn(left_out: int, which: str) -> None:
    if left_out:
        warn(f"Left out: {left_out} {which}.")
