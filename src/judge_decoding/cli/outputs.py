"""One rule for all outputs: existing files are kept unless ``--overwrite`` is given, and no input is overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from itertools import combinations
from pathlib import Path

import typer

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import check_writable, is_stream
from judge_decoding.io.locks import one_run
from judge_decoding.io.resume import written_before

WORK = "judge_decoding.work"
"""The key of a context's ``meta`` for the files that an interrupted run leaves, from which it resumes."""


def check_outputs(
    outputs: Iterable[Path | None],
    inputs: Iterable[str | Path | None] = (),
    *,
    overwrite: bool,
    folder: bool = False,
    work: Iterable[Path] = (),
    own: Callable[[], Collection[Path]] = tuple,
    alone: tuple[typer.Context, Path] | None = None,
) -> None:
    """Refuse outputs before any work is done on them; nothing is left behind.

    Files are compared by what they are, not by how they are named: a symbolic or hard link is the file it leads to.

    Args:
        outputs: the files that the command writes; None for those that are not wanted.
        inputs: the files and folders that it reads; names of models on the Hub are none, and are passed over.
        overwrite: whether outputs may be there.
        folder: whether the user has named the folder of the outputs, not the outputs themselves.
        work: files that the command keeps meanwhile. They may exist: it resumes from them, or refuses them itself.
        own: gives the outputs that a stopped run of the same command has written, so that they may be there.
        alone: the command's context, and an output that no other run may be at until it ends; see `one_run`.

    Raises:
        JudgeDecodingError: an output cannot be written, is an input or another output, or is there; or another run is
            at it.
    """
    wanted = [path for path in outputs if path is not None]
    kept, reads = list(work), [Path(path) for path in inputs if path is not None]
    written = [*wanted, *kept]
    for path in written:
        check_writable(path)
    if kept and (stream := next(filter(is_stream, wanted), None)):
        raise JudgeDecodingError(f"{stream} is not a file, and unfinished work is kept beside the output; give a file.")
    for one, other in combinations([path for path in written if not is_stream(path)], 2):
        _check_apart(one, other)
    for path in written:
        for read in reads:
            _check_not_read(path, read)
    if alone is not None:
        context, output = alone
        context.with_resource(one_run(output))
        context.meta[WORK] = kept
    if overwrite:
        return
    ours = {_identity(path) for path in own()}
    for path in wanted:
        if _identity(path) not in ours and path.exists() and not is_stream(path):
            another = "folder" if folder else "file"
            raise JudgeDecodingError(
                f"{path} already exists; choose another {another}, or replace it with --overwrite."
            )


def check_resumable(
    context: typer.Context,
    out: Path,
    inputs: Iterable[str | Path | None],
    *,
    overwrite: bool,
    aside: Path | None = None,
) -> Path:
    """Check the outputs of a command whose unfinished work is in ``<out>.part``, and return that file.

    While it is there, outputs of the run that began it may be, too.

    Raises:
        JudgeDecodingError: as for `check_outputs`.
    """
    part = out.with_name(f"{out.name}.part")
    check_outputs(
        [out, aside], inputs, overwrite=overwrite, work=[part], alone=(context, out),
        own=lambda: [out, *written_before(part)] if part.exists() else [],
    )  # fmt: skip
    return part


def _check_apart(one: Path, other: Path) -> None:
    """Check that two output files do not overwrite each other."""
    if _identity(one) == _identity(other):
        raise JudgeDecodingError(f"{one} and {other} are the same file; give each output a file of its own.")
    for file, below in ((one, other), (other, one)):
        if _identity(file) in map(_identity, _real(below).parents):
            raise JudgeDecodingError(f"{below} is below {file}, which is written as a file; choose another place.")


def _check_not_read(path: Path, read: Path) -> None:
    """Check that an output is neither an input nor a file directly in an input folder, such as a model's."""
    if not path.is_file():
        return
    if read.is_file() and _identity(path) == _identity(read):
        raise JudgeDecodingError(f"{path} is read from; choose another file to write.")
    if read.is_dir() and _real(read) == _real(path).parent:
        raise JudgeDecodingError(f"{path} is in {read}, which is read from; choose another place to write.")


def _identity(path: Path) -> object:
    """Return what identifies a file under all its names: device and inode, or the path where it would be created."""
    try:
        found = path.stat()
    except OSError:
        return _real(path)
    return found.st_dev, found.st_ino


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
