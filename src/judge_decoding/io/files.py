"""Read and write files without tracebacks for the user or half-written files."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.inputs import DOCUMENT, LINE, LINES, MOST, cannot_read, descriptor, reading, too_large

LineT = TypeVar("LineT", bound=BaseModel)

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_GZIP = b"\x1f\x8b"  # no text begins with these bytes
_PACKED = 100
"""Largest compression ratio of a large gzip file: text has about ten, a decompression bomb about a thousand."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that replaces ``path`` if the block succeeds, and is removed otherwise.

    For a symbolic link, its target is replaced. A replaced file keeps its mode. If ``path`` is not a regular file, such
    as ``/dev/stdout`` or a named pipe, the content is written to it instead.
    """
    if is_stream(path):
        with _filling(path) as temporary:
            yield temporary
        return
    real = Path(os.path.realpath(path))
    with folder_of(path):
        try:
            temporary = _new_file_beside(real)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            yield temporary
            _give_rights(temporary, real)
            temporary.replace(real)
        except OSError as error:
            raise cannot_write(path, error) from error
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def folder_of(path: Path) -> Iterator[None]:
    """Create the folder of ``path`` for the block; remove new folders that are still empty at the end."""
    made: list[Path] = []
    try:
        try:
            folder = Path(os.path.realpath(path)).parent
            made += [place for place in (folder, *folder.parents) if not place.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        yield
    finally:
        for place in made:
            with suppress(OSError):
                place.rmdir()


@contextmanager
def _filling(path: Path) -> Iterator[Path]:
    """Yield a temporary file whose content is written to ``path`` if the block succeeds."""
    with TemporaryDirectory() as folder:
        temporary = Path(folder) / "content"
        temporary.touch()
        yield temporary
        number = descriptor(path)
        try:
            if number is not None:
                sys.stdout.flush()  # keep the order with earlier output
            # Reopening a descriptor by its name would write from the beginning of the file.
            into = path.open("wb") if number is None else os.fdopen(os.dup(number), "wb")
            with into, temporary.open("rb") as content:
                shutil.copyfileobj(content, into)
        except BrokenPipeError:
            raise  # the reader closed the pipe
        except OSError as error:
            raise cannot_write(path, error) from error


def is_stream(path: Path) -> bool:
    """Whether ``path`` is a pipe, a device or another special file, or an open descriptor.

    These are written to, never replaced.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return descriptor(path) is not None or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _new_file_beside(path: Path) -> Path:
    """Create an empty file with a unique name in the folder of ``path``, readable only by this user."""
    handle, name = mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    os.close(handle)
    return Path(name)


def _give_rights(temporary: Path, path: Path) -> None:
    """Give a new file the mode and owner of the file that it replaces, or the default mode."""
    try:
        old = path.stat()
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        return
    new = temporary.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(OSError):  # only root can change the owner
            os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


def cannot_write(path: Path, error: OSError) -> JudgeDecodingError:
    """Return the error for a path that cannot be written."""
    return JudgeDecodingError(f"Cannot write {path}: {error.strerror}; choose another place.")


def cache_folder(name: str) -> Path:
    """Return a folder in the user's cache directory, which may be removed at any time."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "judge-decoding" / name
    except RuntimeError as error:  # a user without a home directory, as in some containers
        raise JudgeDecodingError("There is no home folder for the cache; set XDG_CACHE_HOME to a folder.") from error


def check_not_a_file(out: Path, what: str) -> None:
    """Check that ``out`` is not a file, where the folder of ``what``, such as "a head", is to be written."""
    if out.exists() and not out.is_dir():
        raise JudgeDecodingError(f"Cannot write {what} to {out}: it is a file; give a folder.")


def check_output_folders(out: Path, what: str, first: str) -> Path:
    """Check that ``what``, such as "a head", can be written to the folder ``out``.

    Return the folder for intermediate files, ``<out>.work``, where ``first`` is the first to be written.
    """
    place = out if out.name not in ("", "..") else out.resolve()
    if not place.name:
        raise JudgeDecodingError(f"Cannot write {what} to {out}: it is the root folder; choose another one.")
    check_not_a_file(out, what)
    work = place.with_name(f"{place.name}.work")
    for path in (out / "config.json", work / first):
        check_writable(path)
    return work


def check_writable(path: Path) -> None:
    """Check, before long work starts, that ``path`` can be written.

    The check writes, as permissions are not sufficient: root may write everywhere except on read-only disks. It leaves
    nothing behind.
    """
    try:
        if path.is_dir():
            raise JudgeDecodingError(f"Cannot write {path}: it is a folder; give a file.")
        if is_stream(path):
            number = descriptor(path)
            if number is not None:
                os.write(number, b"")
            # Not opened: the reader of a pipe would see the end of the file.
            elif path.is_socket() or not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        real = Path(os.path.realpath(path))
        with suppress(FileNotFoundError, NotADirectoryError):
            os.close(os.open(real, os.O_WRONLY))
        parent = next(place for place in real.parents if place.exists())
        if not parent.is_dir():
            raise JudgeDecodingError(f"Cannot write {path}: {parent} is not a folder; choose another place.")
        _new_file_beside(parent / real.name).unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401  (any JSON value)
    """Write ``value`` to ``path`` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def end_line(file: BinaryIO) -> None:
    """End the last line of a file open for reading and appending, so that no row is appended to half a line."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.write(b"\n")


def first_problem(error: ValidationError) -> str:
    """Return the place and message of pydantic's first error, in one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return " ".join(f"{where}: {first['msg']}".split() if where else first["msg"].split())


def parse_json(text: str) -> Any:  # noqa: ANN401  (any JSON value)
    """Parse a JSON value.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or contains a lone surrogate.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("it has half a surrogate pair, which is not valid text") from error
    return value


def read_bytes(path: Path, what: str, most: int = DOCUMENT) -> bytes:
    """Return the content of ``path``; ``what`` names it in the error."""
    parts, size = [], 0
    with reading(path, what, most) as file:
        while part := file.read(2**20):
            parts.append(part)
            size += len(part)
            if size > most:
                raise too_large(path, what, most)
    return b"".join(parts)


def read_text(path: Path, what: str) -> str:
    """Return the text of ``path``; ``what`` names it in the error."""
    try:
        return read_bytes(path, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise cannot_read(path, what, "it is not UTF-8 text; convert it first") from error


def lines(
    path: Path, what: str, on_bad: Callable[[str], None] | None = None, *, longest: int = LINE
) -> Iterator[tuple[int, str]]:
    """Yield the lines of ``path`` that are not blank, with their numbers; ``what`` names the file in the error.

    Unlike ``splitlines``, it does not split at the line separators that JSON allows inside a string. A line that is not
    UTF-8, or longer than ``longest`` bytes, is reported to ``on_bad`` and skipped; without ``on_bad`` it is an error.
    Gzip files are decompressed.
    """

    def bad(number: int, reason: str) -> None:
        if on_bad is None:
            raise cannot_read(path, what, f"line {number} {reason}")
        on_bad(f"{path}, line {number} {reason}.")

    for number, line in enumerate(_byte_lines(path, what, longest), start=1):
        if number > LINES:
            raise cannot_read(path, what, f"it has more than {LINES:,} lines; divide it")
        if number == 1:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise cannot_read(path, what, "it is UTF-16 and not UTF-8 text; convert it first")
            line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901
        if len(line) > longest:
            bad(number, f"is longer than {longest / 2**20:,.0f} MiB; divide or remove it")
        elif line.strip():
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                bad(number, "is not UTF-8 text; convert or remove it")
            else:
                yield number, text


def _byte_lines(path: Path, what: str, longest: int) -> Iterator[bytes]:
    """Yield the lines without line ends; a line longer than ``longest`` is cut, but stays longer than that."""
    with reading(path, what, MOST) as raw:
        file: io.BufferedReader | gzip.GzipFile = raw
        most = MOST
        if raw.peek(2).startswith(_GZIP):
            file = gzip.GzipFile(fileobj=raw)
            if packed := os.fstat(raw.fileno()).st_size:
                most = min(MOST, max(_PACKED * packed, DOCUMENT))
        size = 0
        try:
            while line := file.readline(longest + 2):
                yield line.removesuffix(b"\n")
                size += len(line)
                while line and not line.endswith(b"\n") and size <= most:
                    size += len(line := file.readline(longest))
                if size > most:
                    raise too_large(path, what, most)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise cannot_read(path, what, "it is a damaged gzip file; download it again") from error


def rows(
    path: Path,
    what: str,
    kind: type[LineT],
    complaint: str,
    on_bad: Callable[[str], None] | None = None,
    *,
    longest: int = LINE,
) -> Iterator[tuple[int, LineT]]:
    """Yield the lines of a JSONL file as models of ``kind``, with their numbers; ``what`` names the file in the error.

    ``complaint`` is the message for an invalid line, with ``{}`` for the reason; see `lines` for the other parameters.
    """
    for number, line in lines(path, what, on_bad, longest=longest):
        try:
            row = kind.model_validate_json(line)
        except ValidationError as error:
            problem = f"{path}, line {number} {complaint.format(first_problem(error))}"
            if on_bad is None:
                raise JudgeDecodingError(problem) from error
            on_bad(problem)
        else:
            yield number, row
