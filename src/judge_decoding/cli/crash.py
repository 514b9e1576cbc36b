"""Report an unexpected exception: one sentence, and a log file with the traceback."""

from __future__ import annotations

import os
import platform
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from judge_decoding.cli.terminal import fail, say
from judge_decoding.visible import one_line, shown

EXIT = 70
"""The exit code: an internal error, by the list of BSD's ``sysexits.h``."""
PRINT = "JUDGE_DECODING_TRACEBACK"
"""The environment variable that also prints the traceback."""
KEPT = 10
"""The number of log files to keep."""

_NAME = "judge-decoding-"
_LONGEST = 300


def report(error: BaseException) -> None:
    """Say what happened and where the traceback is."""
    trace = shown("".join(traceback.format_exception(error)))
    if os.environ.get(PRINT, "0") not in ("", "0"):
        say(trace.rstrip("\n"), err=True)
    what = one_line(f"{type(error).__name__}: {error}").removesuffix(".")
    what = what if len(what) <= _LONGEST else what[:_LONGEST] + "…"
    log = _log(f"judge-decoding {version('judge-decoding')}, Python {platform.python_version()}\n{trace}")
    where = f"the traceback is in {log}" if log else f"set {PRINT}=1 to see the traceback, which could not be saved"
    fail(f"Error: Something unexpected went wrong ({what}); {where}; please report it.")


def _log(text: str) -> Path | None:
    """Write a log file that only this user can read, and remove the oldest ones."""
    for folder in _folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder, prefix=_NAME, suffix=".log")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            _sweep(folder)
            return Path(name)
    return None


def _folders() -> Iterator[Path]:
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "judge-decoding"
    yield Path(tempfile.gettempdir())


def _sweep(folder: Path) -> None:
    dated = []
    for path in folder.glob(f"{_NAME}*.log"):
        with suppress(OSError):  # another process may be cleaning up, too
            dated.append((path.stat().st_mtime_ns, path))
    for _, path in sorted(dated)[:-KEPT]:
        with suppress(OSError):  # another user's file in a shared temporary folder
            path.unlink()
