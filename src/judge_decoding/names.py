"""Reserved names that can stand for a target, a draft or a judge.

They are resolved only here, for all commands, `JudgeDecoder.from_pretrained`, `JudgeHead.from_pretrained`,
``custom_generate`` and the lm-evaluation-harness. ``./reference`` and ``Path("reference")`` are folders.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeVar, cast

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.plugins import installed

REFERENCE = "reference"
"""The embedded pair of tiny models: its target, draft or judge, depending on the role."""
REFERENCE_DRAFT = "reference-draft"
"""The draft of the embedded pair on its own."""
PROMPT_LOOKUP = "prompt-lookup"
"""Drafts without a model, by copying the continuation of an earlier match in the text; see `PromptLookup`."""
NAMES = (REFERENCE, REFERENCE_DRAFT, PROMPT_LOOKUP)
DRAFTERS = "judge_decoding.drafters"
"""The entry-point group for drafters of other packages."""

NameT = TypeVar("NameT", bound=str | Path | None)
DraftT = TypeVar("DraftT")
JudgeT = TypeVar("JudgeT")
Role = Literal["target", "draft", "judge"]

_FOLDER = Path(__file__).parent / "reference"
EMBEDDED: dict[Role, Path] = {"target": _FOLDER / "target", "draft": _FOLDER / "draft", "judge": _FOLDER / "judge"}
"""Where the embedded pair and its judge are."""


def complete(
    target: str | Path, draft: DraftT | None, judge: JudgeT | None
) -> tuple[DraftT | str | None, JudgeT | str | None]:
    """Return the draft and judge for a target; the embedded target's own are its defaults."""
    if target != REFERENCE:
        return draft, judge
    return REFERENCE if draft is None else draft, REFERENCE if judge is None else judge


def has_draft(target: str | Path, draft: object) -> bool:
    """Whether a draft is given or comes with the target."""
    return draft is not None or target == REFERENCE


def is_drafter(name: object) -> bool:
    """Whether ``name`` names a drafter without a model, of this package or a plugin; nothing is imported."""
    return isinstance(name, str) and (name == PROMPT_LOOKUP or name in installed(DRAFTERS, (PROMPT_LOOKUP,)))


def embedded_path(name: NameT, role: Role) -> NameT:
    """Return the folder of an embedded model or judge given for ``role``; other names and folders are unchanged."""
    if role != "draft" and is_drafter(name):
        raise JudgeDecodingError(f"{name} is a drafter, not a {_WHAT[role]}; give it as the draft.")
    if name not in (REFERENCE, REFERENCE_DRAFT):
        return name
    if name == REFERENCE_DRAFT:
        if role == "judge":
            raise JudgeDecodingError(f"{REFERENCE_DRAFT} is a model, not a judge head; its judge is {REFERENCE}.")
        role = "draft"
    folder = EMBEDDED[role]
    if not folder.is_dir():
        raise JudgeDecodingError(
            f"The reference pair is not in this copy ({folder.name} is missing); make it as described in "
            "recipes/reference_pair/README.md, or use models of your own."
        )
    return cast(NameT, str(folder))


def reserved_name(name: str) -> str:
    """Return the reserved name of an embedded model from its folder, and any other name unchanged."""
    return {str(EMBEDDED["target"]): REFERENCE, str(EMBEDDED["draft"]): REFERENCE_DRAFT}.get(name, name)


_WHAT: dict[Role, str] = {"target": "model", "draft": "draft", "judge": "judge head"}


def is_repo_id(name: str) -> bool:
    """Whether ``name`` can be a repository ``owner/name`` on the Hub."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII) is not None
