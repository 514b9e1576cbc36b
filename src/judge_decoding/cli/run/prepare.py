"""Load the questions and the models for ``evaluate``, ``sweep`` and ``bench``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from judge_decoding.cli.checks import check_dtype
from judge_decoding.cli.run.models import load_models, uses_chat
from judge_decoding.cli.shared import read, warnings
from judge_decoding.cli.task_options import TaskOptions
from judge_decoding.data.leaks import check_not_trained_on
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.evaluation.evaluate import fitting, forms, hash_of
from judge_decoding.judge.head import JudgeHead
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
        facts: what the results record of all this.
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
    options: TaskOptions,
    task: Task,
    *,
    limit: int | None,
    backend: str,
    temperature: float = 0.0,
    details: bool = False,
    rules: Sequence[str] = (),
    trained_on: Sequence[Path] = (),
) -> PreparedTask:
    """Read the questions and load the models; what is wrong with the judge or ``rules`` is reported before that."""
    check_dtype(options.dtype)
    draft, judge = complete(options.target, options.draft, options.judge)
    names = {"target": options.target, "draft": draft or "", "judge": judge or ""}
    head = JudgeHead.from_pretrained(judge) if judge is not None else None
    for spelling in rules:
        parse_rule(spelling, head)
    cases = [case for path in trained_on for case in read(path)]
    with warnings() as on_bad:
        items = read_items(task, options.data, limit=limit, seed=options.seed, on_bad=on_bad)
    decoder = load_models(
        options.target, draft, judge, backend=backend, dtype=options.dtype, device=options.device,
        translate=options.translate,
    )  # fmt: skip
    chatted = uses_chat(options.chat, decoder.tokenizer, [item.turns[0] for item in items])
    prompt_format = PromptFormat(task, chatted, options.system, options.max_new_tokens, details)
    with warnings() as on_bad:
        items = fitting(items, prompt_format, decoder, on_bad)
    check_not_trained_on(forms(items, prompt_format, decoder.tokenizer), (case.question for case in cases))
    data = options.data.name if options.data is not None else str(task.source or "made by the task")
    facts = {
        "task": str(task), "data": data, "data_hash": hash_of(items), "items": len(items), **names,
        "judge_hash": decoder.judge.weights_hash if decoder.judge is not None else "",
        "temperature": temperature, "max_new_tokens": prompt_format.budget, "chat": prompt_format.chat,
        "dtype": str(decoder.target.dtype).removeprefix("torch."), "machine": machine(decoder.target.device),
        "backend": "eager" if decoder.fallbacks else backend,
        "versions": versions(), "command": command(),
    }  # fmt: skip
    return PreparedTask(decoder, prompt_format, items, names, facts)
