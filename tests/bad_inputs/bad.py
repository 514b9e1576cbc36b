"""What a bad input is: one row of a table, and the few ways in which a good thing is spoilt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Make = Callable[[Path, "Places"], object]
"""Makes the bad thing at a path, of good ones."""
Places = Mapping[str, Path]
"""Good things by name: target, draft, judge, cases, questions, results, samples, recipe, scored."""


def nothing(bad: Path, good: Places) -> None:
    """The bad thing is not there."""


@dataclass(frozen=True)
class Bad:
    """One bad input.

    Attributes:
        name: what is bad.
        command: the command line; in it stand `Places`, ``{bad}`` and ``{new}``, where nothing is yet.
        says: what the sentence has in it; ``{bad}`` is the bad thing's path there, too.
        make: makes the bad thing.
        environment: variables that are set.
        usage: the parser of options answers, in its own form.
        notes: single rows are named before the sentence.
    """

    name: str
    command: str
    says: str
    make: Make = nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    usage: bool = False
    notes: bool = False


def text(content: str, *, encoding: str = "utf-8") -> Make:
    """A file with this text."""
    return lambda bad, good: bad.write_text(content, encoding=encoding)


def raw(content: bytes) -> Make:
    """A file with these bytes."""
    return lambda bad, good: bad.write_bytes(content)


def folder(bad: Path, good: Places) -> None:
    """A folder where a file should be."""
    bad.mkdir()


def cut(name: str, share: float = 0.5) -> Make:
    """The beginning of a good file."""

    def make(bad: Path, good: Places) -> None:
        content = good[name].read_bytes()
        bad.write_bytes(content[: int(len(content) * share)])

    return make


def changed(name: str, **values: Any) -> Make:
    """A good JSON file with other values."""

    def make(bad: Path, good: Places) -> None:
        bad.write_text(json.dumps(json.loads(good[name].read_text()) | values))

    return make


def one(field: str, value: Any) -> dict[str, Any]:
    """An argument by its name."""
    return {field: value}


def copy(
    name: str,
    files: Mapping[str, str | bytes | None] | None = None,
    inside: str = "config.json",
    drop: str = "",
    **values: Any,
) -> Make:
    """A copy of a good folder, spoilt.

    Args:
        name: which one.
        files: new contents of files; None removes one.
        inside: the JSON file that gets ``values``.
        drop: a key that is taken out of it.
        values: new values.
    """

    def make(bad: Path, good: Places) -> None:
        shutil.copytree(good[name], bad)
        for file, content in (files or {}).items():
            if content is None:
                (bad / file).unlink()
            else:
                (bad / file).write_bytes(content.encode() if isinstance(content, str) else content)
        if values or drop:
            old = json.loads((bad / inside).read_text())
            old.pop(drop, None)
            (bad / inside).write_text(json.dumps(old | values))

    return make


def tensors(size: int = 0, last: Any = b"", **entries: Any) -> bytes:
    """A safetensors file with this header, ``size`` zeros and ``last``."""
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size) + last
