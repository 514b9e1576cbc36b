"""The names that mean something to this package, wherever a target, a draft or a judge is named.

They are looked up here and nowhere else: by all commands, `JudgeDecoder.from_pretrained`, `JudgeHead.from_pretrained`,
``custom_generate`` and the lm-evaluation-harness. ``./reference`` and ``Path("reference")`` are folders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar, cast

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.plugins import installed

REFERENCE = "reference"
"""The embedded pair of tiny models: its target, its draft or its judge, by where it is named."""
REFERENCE_DRAFT = "reference-draft"
"""The draft of the embedded pair, by itself."""
PROMPT_LOOKUP = "prompt-lookup"
"""Not a model: the draft continues the text as it went on before; see `PromptLookup`."""
NAMES = (REFERENCE, REFERENCE_DRAFT, PROMPT_LOOKUP)
DRAFTERS = "judge_decoding.drafters"
"""The entry-point group of other packages' drafters."""

Name = TypeVar("Name", bound=str | Path | None)
Draft = TypeVar("Draft")
Judge = TypeVar("Judge")
Role = Literal["target", "draft", "judge"]

_FOLDER = Path(__file__).parent / "reference"
EMBEDDED: dict[Role, Path] = {"target": _FOLDER / "target", "draft": _FOLDER / "draft", "judge": _FOLDER / "judge"}
"""Where the embedded pair and its judge are."""


def complete(
    target: str | Path, draft: Draft | None, judge: Judge | None
) -> tuple[Draft | str | None, Judge | str | None]:
    """Draft and judge of a target: the embedded target comes with its own where none is given."""
    if target != REFERENCE:
        return draft, judge
    return REFERENCE if draft is None else draft, REFERENCE if judge is None else judge


def has_draft(target: str | Path, draft: object) -> bool:
    """Whether there is a draft: one is given, or the target comes with its own."""
    return draft is not None or target == REFERENCE


def is_drafter(name: object) -> bool:
    """Whether ``name`` is that of a drafter without a model, of this package or another; none is imported."""
    return isinstance(name, str) and (name == PROMPT_LOOKUP or name in installed(DRAFTERS, (PROMPT_LOOKUP,)))


def place_of(name: Name, role: Role) -> Name:
    """Where what is named lies: the folder of an embedded model or judge, and any other name as it is.

    Args:
        name: Hub name, folder, or a name that means something here.
        role: what it is named for.

    Raises:
        JudgeDecodingError: the name means something that cannot be in this role, or this copy of the package holds no
            trained pair.
    """
    if role != "draft" and is_drafter(name):
        raise JudgeDecodingError(f"{name} is a way to draft and no {_WHAT[role]}; give it as the draft.")
    if name not in (REFERENCE, REFERENCE_DRAFT):
        return name
    if name == REFERENCE_DRAFT:
        if role == "judge":
            raise JudgeDecodingError(f"{REFERENCE_DRAFT} is a model and no judge head; its judge is {REFERENCE}.")
        role = "draft"
    folder = EMBEDDED[role]
    if not folder.is_dir():
        raise JudgeDecodingError(
            f"The reference pair is not in this copy ({folder.name} is missing); make it as "
            "recipes/reference_pair/README.md tells, or name models of your own."
        )
    return cast(Name, str(folder))


_WHAT: dict[Role, str] = {"target": "model", "draft": "draft", "judge": "judge head"}
