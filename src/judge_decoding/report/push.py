"""Upload a head with its card to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from huggingface_hub import metadata_load

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_text
from judge_decoding.io.uploads import upload
from judge_decoding.judge.files import CARD, PATTERNS, PICTURES, RUN_FILE, files_in
from judge_decoding.judge.head import JudgeHead
from judge_decoding.names import is_repo_id
from judge_decoding.report.card_files import AnyResults, save_head


def push_head(
    head: JudgeHead | str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    results: AnyResults | Sequence[AnyResults] | None = None,
) -> str:
    """Upload a head and its card to the Hub, in one commit, and return the repository's URL.

    The repository is created if it does not exist. Results, plots and pictures of an earlier head in it are removed;
    other files stay.

    Args:
        head: a head, which is saved with its full card for the upload; or a head's folder, whose files are uploaded as
            they are: weights, configuration, card, pictures, results, ``run.yaml`` and ``custom_generate``, no others.
        repo_id: name of the repository, such as "me/my-judge".
        private: create a private repository.
        revision: the branch to upload to, created if needed; the main one by default.
        token: a token that may write; by default the stored one, or that of ``HF_TOKEN``.
        results: as for `save_head`; only with a `JudgeHead`.

    Raises:
        JudgeDecodingError: the folder has no head or its card lacks what the Hub wants, there is no token, it may not
            write to the repository, a private repository is wanted and a public one exists, or the Hub cannot be
            reached.
    """
    if isinstance(head, JudgeHead):
        with tempfile.TemporaryDirectory(prefix="judge-decoding-") as temporary:
            save_head(head, temporary, results=results)
            return push_head(temporary, repo_id, private=private, revision=revision, token=token)
    if results is not None:
        raise JudgeDecodingError(
            "A folder is uploaded with the results in it; add others with judge-decoding card, or leave results out."
        )
    folder = Path(head)
    return upload(
        folder, files_to_push(folder), repo_id,
        private=private, revision=revision, token=token, replaced=(*PATTERNS, *PICTURES, RUN_FILE),
    )  # fmt: skip


def files_to_push(folder: Path) -> list[str]:
    """Return the paths, in a head's folder, of the files that `push_head` uploads.

    Raises:
        JudgeDecodingError: it is no head's folder, or its card lacks what the Hub wants.
    """
    if not folder.is_dir():
        raise JudgeDecodingError(f"{folder} is not a folder; give the folder of a judge head.")
    head = JudgeHead.from_pretrained(folder)
    wanted = ["library_name", "tags"]
    if is_repo_id(head.config.target.name_or_path):
        wanted.append("base_model")
    _check_card(folder, wanted)
    return [path.relative_to(folder).as_posix() for path in files_in(folder)]


def _check_card(folder: Path, wanted: Sequence[str]) -> None:
    """Check that the card has these fields in its front matter.

    Raises:
        JudgeDecodingError: it has not, or there is no card.
    """
    path = folder / CARD
    read_text(path, "the model card")  # what cannot be read is one sentence
    try:
        found = metadata_load(path) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise JudgeDecodingError(f"{path} has no valid front matter; {_anew(folder)}.") from error
    if missing := [name for name in wanted if not found.get(name)]:
        raise JudgeDecodingError(f"{path} has no {missing[0]} in its front matter; {_anew(folder)}.")


def _anew(folder: Path) -> str:
    return f"write the card anew: judge-decoding card --judge {folder} --overwrite"
