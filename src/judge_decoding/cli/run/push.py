"""Implementation of ``judge-decoding push``, called with checked options."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Any

from judge_decoding.cli.terminal import ask, say, say_json
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.uploads import check_repo_id
from judge_decoding.report.push import files_to_push, push_head


def run(head: Path, repo: str, revision: str | None, *, private: bool, dry_run: bool, yes: bool, json: bool) -> None:
    """Upload the head, or tell what would be uploaded."""
    check_repo_id(repo)
    sizes = {name: (head / name).stat().st_size for name in files_to_push(head)}
    branch = f", branch {revision}" if revision else ""
    what = f"{len(sizes)} files ({_size(sum(sizes.values()))}) to {'the private ' if private else ''}{repo}{branch}"
    if not json or not (dry_run or yes):
        say("\n".join(f"{_size(size):>9}  {name}" for name, size in sizes.items()), err=json)
    found: dict[str, Any] = {
        "repo_id": repo, "revision": revision, "private": private, "dry_run": dry_run,
        "files": [{"name": name, "bytes": size} for name, size in sizes.items()],
    }  # fmt: skip
    if dry_run:
        if json:
            say_json(dumps(found, indent=2))
        else:
            say(f"Would upload {what}; nothing is uploaded.")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise JudgeDecodingError("Nobody is there to confirm the upload; add --yes.")
        ask(f"Upload {what}?")
    url = push_head(head, repo, private=private, revision=revision)
    if json:
        say_json(dumps({"url": url} | found, indent=2))
    else:
        say(f"Uploaded {what}: {url}")


def _size(count: int) -> str:
    """A number of bytes in words."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count = round(count / 1000)
    return f"{count} GB"
