"""Reading and writing files so that a user never meets a traceback or half a file."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from judge_decoding.errors import JudgeDecodingError

Row = TypeVar("Row", bound=BaseModel)

_GZIP = b"\x1f\x8b"  # no text begins so


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place when the block ends well, and goes if not.

    Raises:
        JudgeDecodingError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise JudgeDecodingError(f"Cannot write {path}: {error.strerror}; choose another place.") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise JudgeDecodingError(f"Cannot write {path}: {error.strerror}; choose another place.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder(name: str) -> Path:
    """A folder of the user's cache directory. It may be removed at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "judge-decoding" / name


def check_writable(path: Path) -> None:
    """Find out before the work, not after it, that ``path`` cannot be written.

    Raises:
        JudgeDecodingError: it is a folder, or its folder cannot be written.
    """
    if path.is_dir():
        raise JudgeDecodingError(f"Cannot write {path}: it is a folder; name a file.")
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise JudgeDecodingError(f"Cannot write {path}: {parent} is not a folder; choose another place.")
    if not os.access(parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise JudgeDecodingError(f"Cannot write {path}: permission denied; choose another place.")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  (any JSON value)
    """Write ``value`` to ``path`` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def first_problem(error: ValidationError) -> str:
    """The first of the problems pydantic found, in one line: where, and what."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return " ".join(f"{where}: {first['msg']}".split() if where else first["msg"].split())


def read_text(path: Path, what: str) -> str:
    """The text of ``path``; ``what`` names it in the error.

    Raises:
        JudgeDecodingError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise JudgeDecodingError(f"Cannot read {what} {path}: {error.strerror}; check the path.") from error
    except UnicodeDecodeError as error:
        raise JudgeDecodingError(f"Cannot read {what} {path}: it is not UTF-8 text; convert it first.") from error


def read_bytes(path: Path, what: str) -> bytes:
    """The content of ``path``; ``what`` names it in the error.

    Raises:
        JudgeDecodingError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise JudgeDecodingError(f"Cannot read {what} {path}: {error.strerror}; check the path.") from error


def lines(path: Path, what: str, on_bad: Callable[[str], None] | None = None) -> Iterator[tuple[int, str]]:
    """The lines of ``path`` that are not blank, with their numbers; ``what`` names the file in the error.

    Not those of ``splitlines``, which also splits at the line separators that JSON allows inside a string. A line
    that is not UTF-8 is told to ``on_bad`` and left out; without ``on_bad`` it is an error. What is packed with gzip is
    read as what is in it.

    Raises:
        JudgeDecodingError: the file cannot be read, or is not UTF-8.
    """
    content = read_bytes(path, what)
    if content.startswith(_GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise JudgeDecodingError(f"Cannot read {what} {path}: it is a damaged gzip file; get it again.") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise JudgeDecodingError(f"Cannot read {what} {path}: it is UTF-16 and not UTF-8 text; convert it first.")
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            if on_bad is None:
                raise JudgeDecodingError(
                    f"Cannot read {what} {path}: line {number} is not UTF-8 text; convert it first."
                ) from error
            on_bad(f"{path}, line {number} is not UTF-8 text; convert or remove it.")


def rows(
    path: Path,
    what: str,
    kind: type[Row],
    complaint: str,
    on_bad: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, Row]]:
    """The lines of a JSONL file as models of ``kind``, with their numbers; ``what`` names the file in the error.

    ``complaint`` is what is said of a line that is none, with ``{}`` for the reason; see `lines` for ``on_bad``.

    Raises:
        JudgeDecodingError: the file cannot be read, or a line is no such model.
    """
    for number, line in lines(path, what, on_bad):
        try:
            row = kind.model_validate_json(line)
        except ValidationError as error:
            problem = f"{path}, line {number} {complaint.format(first_problem(error))}"
            if on_bad is None:
                raise JudgeDecodingError(problem) from error
            on_bad(problem)
        else:
            yield number, row
