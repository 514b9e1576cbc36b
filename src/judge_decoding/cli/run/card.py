"""Implementation of ``judge-decoding card`` and ``push``, called with checked options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Any

from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.terminal import ask, say, say_json, warn
from judge_decoding.core.results import read_results
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_bytes
from judge_decoding.judge.card import bare_card
from judge_decoding.judge.files import CARD, files_of_card, results_in
from judge_decoding.judge.head import JudgeHead
from judge_decoding.names import embedded_path
from judge_decoding.report.card_files import card_as_written, write_card
from judge_decoding.report.head_pictures import can_draw
from judge_decoding.report.push import check_repo_id, files_to_push, push_head


def write(head: Path, results: list[Path] | None, *, overwrite: bool) -> None:
    """Write the card."""
    loaded = JudgeHead.from_pretrained(head)
    files = results or results_in(head)
    found = [read_results(path) for path in files]
    check_outputs(files_of_card(head), overwrite=True)
    if not overwrite:
        _check_nothing_is_lost(loaded, head, files)
    write_card(loaded, head, files)
    for path, one in zip(files, found, strict=True):
        if not one.judge_hash and not _same_name(one.judge, head):
            _note(f"{path} records the judge {one.judge!r} without a hash of its weights; check that it is {head}.")
    if not can_draw() and any(row.accuracy is not None for one in found for row in one.rows):
        _note("There is no plot of accuracy against speed; it needs matplotlib: pip install 'judge-decoding[eval]'.")
    source = f"{len(files)} file{'s' if len(files) > 1 else ''} of results" if files else "no results"
    say(f"{head / CARD} is written, with {source}.")


def _check_nothing_is_lost(loaded: JudgeHead, head: Path, files: Sequence[Path]) -> None:
    """Check that only a card written by this command is replaced, and only results that are given again."""
    given = [read_bytes(path, "the results") for path in files]
    for path in results_in(head):
        if read_bytes(path, "the results") not in given:
            raise JudgeDecodingError(
                f"{path} is not among the results that are given and would be lost; pass it with --results, too, "
                "or discard it with --overwrite."
            )
    card = head / CARD
    ours = (card_as_written(loaded, head), bare_card(loaded.config))
    if card.exists() and read_bytes(card, "the card") not in [text.encode() for text in ours]:
        raise JudgeDecodingError(
            f"{card} was changed by hand or by another version; keep a copy of what "
            "you need, and replace it with --overwrite."
        )


def _same_name(judge: str, head: Path) -> bool:
    """Whether a name or path can mean this folder: folders are often moved but rarely renamed."""
    return Path(embedded_path(judge, "judge")).name == head.resolve().name


def _note(sentence: str) -> None:
    warn(f"Note: {sentence}")


def upload(head: Path, repo: str, revision: str | None, *, private: bool, dry_run: bool, yes: bool, json: bool) -> None:
    """Upload the head, or list what would be uploaded."""
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
