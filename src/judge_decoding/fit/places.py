"""The folder of a head, and the folder of the intermediate files."""

from __future__ import annotations

from pathlib import Path

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import check_writable


def check_places(out: Path) -> Path:
    """Check that a head can be written to ``out``; return the folder for intermediate files, ``<out>.work``.

    Raises:
        JudgeDecodingError: the head cannot be written there.
    """
    place = out if out.name not in ("", "..") else out.resolve()
    if not place.name:
        raise JudgeDecodingError(f"Cannot write a head to {out}: it is the root folder; name another one.")
    if out.exists() and not out.is_dir():
        raise JudgeDecodingError(f"Cannot write a head to {out}: it is a file; name a folder.")
    work = place.with_name(f"{place.name}.work")
    for path in (out / "config.json", work / "labels.jsonl"):
        check_writable(path)
    return work
