"""Upload a head with its card to the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from huggingface_hub import HfApi, get_token, is_offline_mode, metadata_load
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, and not in its __all__

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_text
from judge_decoding.judge.files import CARD, PATTERNS, PICTURES, RUN_FILE, files_in
from judge_decoding.judge.head import JudgeHead
from judge_decoding.names import is_repo_id
from judge_decoding.report.card_files import AnyResults, save_head
from judge_decoding.visible import one_line

_LOG_IN = "run hf auth login, or set HF_TOKEN to a token that may write"


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


def check_repo_id(repo_id: str) -> None:
    """Check the name of a repository; nothing is requested."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise JudgeDecodingError(f"{repo_id!r} is not a repository name; give one such as me/my-judge.") from error


def upload(
    folder: Path,
    names: Sequence[str],
    repo_id: str,
    *,
    private: bool,
    revision: str | None,
    token: str | None,
    replaced: Sequence[str],
) -> str:
    """Upload files, and create the repository and the branch if they do not exist; return the repository's URL.

    Args:
        folder: the folder of the files.
        names: their paths in it, which they keep in the repository.
        repo_id: the repository.
        private: whether it must be private.
        revision: the branch; None for the main one.
        token: the user's token; None for the one that is stored or in the environment.
        replaced: patterns of files that are removed from the repository unless they are among those uploaded.
    """
    check_repo_id(repo_id)
    if is_offline_mode():
        raise _cannot(repo_id, "HF_HUB_OFFLINE is set; unset it")
    if (token or get_token()) is None:
        raise _cannot(repo_id, f"there is no token for the Hub; {_LOG_IN}")
    api = HfApi(token=token)
    with _explained(repo_id):
        url = api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.model_info(url.repo_id).private:
            raise _cannot(repo_id, "it exists and is public; change that in its settings, or leave private out")
        if revision is not None:
            api.create_branch(url.repo_id, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, revision=revision, allow_patterns=list(names),
            delete_patterns=list(replaced), commit_message="Upload a judge head",
        )  # fmt: skip
    return str(url)


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's library raises into one sentence."""
    try:
        yield
    except JudgeDecodingError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        what = f"the Hub answers {status}: {one_line(error.server_message or 'no reason').rstrip('.')}"
        reason = f"{what}; {'try again later' if status >= 500 else 'check the name and the branch'}"
        if status == 401:
            reason = f"the Hub does not accept the token; {_LOG_IN}"
        elif status in (403, 404):
            reason = "the token may not write there; check the name, or use a token that may write to it"
        raise _cannot(repo_id, reason) from error
    except ValueError as error:  # what the Hub says of the card's front matter
        raise _cannot(
            repo_id, f"the Hub refuses the files: {one_line(str(error)).rstrip('.')}; correct them"
        ) from error
    except Exception as error:  # the HTTP library's own, which is another one by the Hub library's version
        raise _cannot(repo_id, "the Hub cannot be reached; check the network") from error


def _cannot(repo_id: str, reason: str) -> JudgeDecodingError:
    return JudgeDecodingError(f"Cannot upload to {repo_id}: {reason}.")
