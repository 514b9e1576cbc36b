"""The draft that `fit` makes where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.fit.config import FitConfig
from judge_decoding.fit.pipeline import divide
from judge_decoding.io.files import parse_json, read_text
from judge_decoding.names import place_of


def draft_prompts(prompts: Sequence[str], config: FitConfig, *, all_of_them: bool = False) -> list[str]:
    """The prompts that a draft may be trained on before `fit_head`: those that are labelled.

    The others choose the threshold and show what the head gives, which a draft that knows them would flatter.

    Args:
        prompts: those that `fit_head` will get.
        config: its configuration.
        all_of_them: a task chooses the threshold, so that all prompts are labelled.
    """
    return [*dict.fromkeys(prompts)] if all_of_them else divide(prompts, None, config)[0]


def earlier_draft(folder: Path, target: str, layers: int) -> bool:
    """Whether the draft in ``folder`` is the one of so many layers that an earlier run has made of ``target``.

    Raises:
        JudgeDecodingError: there is another model.
    """
    path = folder / "config.json"
    if not path.exists():
        return False
    try:
        config = parse_json(read_text(path, "the draft's configuration"))
        same = (config["draft_of"], config["num_hidden_layers"]) == (place_of(target, "target"), layers)
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise JudgeDecodingError(
            f"{folder} is there already, and is no draft of {layers} layers of {target}; remove it, or give it with "
            "--draft instead of --make-draft."
        )
    return True
