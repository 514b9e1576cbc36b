"""What installed packages bring under an entry-point group."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from judge_decoding.errors import JudgeDecodingError


def installed(group: str, taken: Container[str]) -> dict[str, EntryPoint]:
    """The entry points of a group by name; this package's own names are ``taken``."""
    return {entry.name: entry for entry in entry_points(group=group) if entry.name not in taken}


def told(entry: EntryPoint, kind: str) -> str:
    """What is brought and by whom, for messages: "The rule NAME of the package PACKAGE"."""
    return f"The {kind} {entry.name} of the package {entry.dist.name if entry.dist else entry.value}"


def imported(entry: EntryPoint, kind: str) -> Any:  # noqa: ANN401  (whatever is there; the caller checks it)
    """What an entry point names.

    Raises:
        JudgeDecodingError: it cannot be imported.
    """
    try:
        return entry.load()
    except Exception as error:  # the import runs another package's code
        raise JudgeDecodingError(
            f"{told(entry, kind)} cannot be imported ({type(error).__name__}: {error}); repair or remove that package."
        ) from error
