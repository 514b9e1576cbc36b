"""Load the questions and the models for ``evaluate``, ``sweep`` and ``bench``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from judge_decoding.cli.console import Terminal
from judge_decoding.cli.court_files import Warnings, read
from judge_decoding.cli.models import check_dtype
from judge_decoding.cli.run.models import compiled
from judge_decoding.cli.run.rendering import uses_chat
from judge_decoding.data.leaks import check_not_trained_on
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.evaluation.evaluate import fitting, forms, hash_of
from judge_decoding.evaluation.trial import Method, answers
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import default_device
from judge_decoding.models.provenance import command, fingerprint, machine, versions
from judge_decoding.names import complete
from judge_decoding.rules import parse_rule
from judge_decoding.tasks import read_items
from judge_decoding.tasks.base import Item, Task
from judge_decoding.tasks.prompt_format import PromptFormat


@dataclass(frozen=True, slots=True)
class PreparedTask:
    """A task that is ready to be put to models.

    Attributes:
        decoder: the models.
        prompt_format: how the items are put.
        items: what is asked.
        names: of the models, as they were given.
        facts: what the results tell of all this.
    """

    decoder: JudgeDecoder
    prompt_format: PromptFormat
    items: list[Item]
    names: dict[str, str]
    facts: dict[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """What must not change while answers are collected."""
        models = (("target", self.decoder.target), ("draft", self.decoder.draft))
        weights = {
            f"weights of the {role}": fingerprint(model) for role, model in models if isinstance(model, nn.Module)
        }
        same = {name: value for name, value in self.facts.items() if name != "command"}
        return same | {"system": self.prompt_format.system} | weights


def prepare(
    task: Task,
    data: Path | None,
    models: tuple[str, str | None, str | None],
    *,
    chat: bool | None,
    system: str,
    max_new_tokens: int | None,
    limit: int | None,
    seed: int,
    trained_on: Sequence[Path],
    dtype: str,
    device: str | None,
    backend: str,
    temperature: float,
    translate: bool = False,
    details: bool = False,
    check: Callable[[str | None], None] = lambda _: None,
) -> PreparedTask:
    """Read the questions and load the models; ``check`` is given the head's folder before they are loaded."""
    check_dtype(dtype)
    target, draft, judge = models
    draft, judge = complete(target, draft, judge)
    names = {"target": target, "draft": draft or "", "judge": judge or ""}
    check(judge)
    cases = [case for path in trained_on for case in read(path)]
    warnings = Warnings()
    try:
        items = read_items(task, data, limit=limit, seed=seed, on_bad=warnings)
    finally:
        warnings.close()

    with Terminal(err=True).status("loading the models"):
        decoder = JudgeDecoder.from_pretrained(
            target, draft, judge, backend=cast(Any, backend), dtype=dtype, device=device or default_device(),
            translate=translate,
        )  # fmt: skip
    compiled(decoder, Terminal(err=True))
    chatted = uses_chat(chat, decoder.tokenizer, [item.turns[0] for item in items])
    prompt_format = PromptFormat(task, chatted, system, max_new_tokens, details)
    warnings = Warnings()
    try:
        items = fitting(items, prompt_format, decoder, warnings)
    finally:
        warnings.close()
    check_not_trained_on(forms(items, prompt_format, decoder.tokenizer), (case.question for case in cases))
    facts = {
        "task": str(task), "data": _source(task, data), "data_hash": hash_of(items), "items": len(items), **names,
        "judge_hash": decoder.judge.weights_hash if decoder.judge is not None else "",
        "temperature": temperature, "max_new_tokens": prompt_format.budget, "chat": prompt_format.chat,
        "dtype": str(decoder.target.dtype).removeprefix("torch."), "machine": machine(decoder.target.device),
        "backend": "eager" if decoder.fallbacks else backend,
        "versions": versions(), "command": command(),
    }  # fmt: skip
    return PreparedTask(decoder, prompt_format, items, names, facts)


def rule_check(spellings: Sequence[str]) -> Callable[[str | None], None]:
    """A check of rules that shows what is wrong with one before the models are loaded."""

    def check(judge: str | None) -> None:

        head = JudgeHead.from_pretrained(judge) if judge is not None else None
        for spelling in spellings:
            parse_rule(spelling, head)

    return check


def warm_up(methods: Sequence[Method], ready: PreparedTask) -> None:
    """Answer one item with each method, uncounted: the first answer of a process is slow."""
    with Terminal(err=True).status("warming up"):
        for method in methods:
            answers(method, ready.prompt_format, ready.items[:1])


def _source(task: Task, data: Path | None) -> str:
    return data.name if data is not None else str(task.source or "made by the task")
