"""The store of compiled code: files are executed as they are, so a damaged file must never be loaded."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from judge_decoding.errors import CannotCompileError

_ENDING = ".pt2"
_UNFINISHED = ".unfinished-"
_ABANDONED = 24 * 3600.0
"""Seconds after which unfinished files are assumed to belong to a killed process: compiling takes minutes."""


class CompiledStore:
    """A folder of compiled code, created with its first file; a file's name has its key and the hash of its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, key: str) -> Path | None:
        """Return the file kept for ``key``, if there is an intact one; damaged files are removed."""
        for path in sorted(self.folder.glob(f"{key}-*{_ENDING}")):
            with suppress(OSError):  # another process may remove it, or may be the only one that can read it
                if not path.is_file():
                    continue
                if path == self._path(key, path):
                    return path
                path.unlink()
        return None

    @contextmanager
    def keeping(self) -> Iterator[Path]:
        """Yield the path for a new file, to be passed to `keep` before the block ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            scratch = TemporaryDirectory(dir=self.folder, prefix=_UNFINISHED, ignore_cleanup_errors=True)
        except OSError as error:
            raise self._cannot_keep(error) from error
        with scratch as name:
            yield Path(name, f"new{_ENDING}")

    def keep(self, key: str, made: Path) -> Path:
        """Keep ``made`` for ``key`` and return its new path."""
        path = self._path(key, made)
        try:
            return made.replace(path)
        except OSError as error:
            raise self._cannot_keep(error) from error

    def _path(self, key: str, content: Path) -> Path:
        with content.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return self.folder / f"{key}-{digest[:32]}{_ENDING}"

    def _sweep(self) -> None:
        """Remove files left by processes that were killed while compiling."""
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(path)

    def _cannot_keep(self, error: OSError) -> CannotCompileError:
        return CannotCompileError(f"compiled code cannot be kept in {self.folder} ({error.strerror})")
