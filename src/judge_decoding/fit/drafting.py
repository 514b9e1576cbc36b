"""The draft model that `fit` makes if none is given."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import normpath
from pathlib import Path

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.fit.config import FitConfig
from judge_decoding.fit.pipeline import divide
from judge_decoding.io.files import parse_json, read_text
from judge_decoding.names import embedded_path
from judge_decoding.training.draft_options import prompts_hash


def draft_prompts(prompts: Sequence[str], config: FitConfig, *, all_of_them: bool = False) -> list[str]:
    """The prompts that a draft may be trained on before `fit_head`: the ones that will be labelled.

    The others choose the threshold and measure the head; training the draft on them would flatter the figures. With
    ``all_of_them``, a task chooses the threshold, so that all prompts are labelled.
    """
    return [*dict.fromkeys(prompts)] if all_of_them else divide(prompts, None, config)[0]


def earlier_draft(folder: Path, target: str, layers: int, prompts: Sequence[str]) -> bool:
    """Whether ``folder`` holds a draft of so many layers that an earlier run made from ``target`` with these prompts.

    Raises:
        JudgeDecodingError: the folder holds another model.
    """
    path = folder / "config.json"
    if not path.exists():
        return False
    try:
        config = parse_json(read_text(path, "the draft's configuration"))
        made_of = normpath(str(config["draft_of"])) == normpath(embedded_path(target, "target"))
        same = made_of and (config["draft_layers"], config["draft_prompts"]) == (layers, prompts_hash(prompts))
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise JudgeDecodingError(
            f"{folder} already exists, and is not a draft of {layers} layers of {target} made with these prompts; "
            "remove it, or give it with --draft instead of --make-draft."
        )
    return True
