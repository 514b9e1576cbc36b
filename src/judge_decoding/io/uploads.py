"""Upload files of a folder to a repository on the Hub, in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, get_token, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, and not in its __all__

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.visible import one_line

_LOG_IN = "run hf auth login, or set HF_TOKEN to a token that may write"


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
