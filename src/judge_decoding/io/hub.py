"""Locate the files of a model or a head: in a local folder, or in a repository on the Hub.

One request without retries checks that a repository exists, before anything is loaded. The underlying libraries would
request each file separately, six times with pauses: without a network, a wrong name would take most of a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    is_offline_mode,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, and not in its __all__

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.inputs import check_folder
from judge_decoding.names import NAMES
from judge_decoding.spelling import guess

TIMEOUT = 10.0
"""Seconds to wait for an answer of the Hub."""
_FILES = (".bin", ".ckpt", ".gguf", ".json", ".pt", ".pth", ".safetensors", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """The location of a model's files: a folder, or a repository with options for ``from_pretrained``."""

    name_or_path: str
    options: Mapping[str, Any]

    @property
    def is_folder(self) -> bool:
        """Whether it is a local folder."""
        return _is(Path.is_dir, self.name_or_path)

    def file(self, name: str) -> Path | None:
        """Return the path of a file, downloaded if needed; None if there is no such file."""
        if self.is_folder:
            path = Path(self.name_or_path, name)
            return path if path.is_file() else None
        names = ("revision", "cache_dir", "force_download", "token", "local_files_only", "subfolder")
        own = {key: self.options[key] for key in names if self.options.get(key) is not None}
        try:
            return Path(hf_hub_download(self.name_or_path, name, **own))
        except (EntryNotFoundError, HfHubHTTPError, OSError):  # errors are raised where the file is needed
            return None

    def has(self, name: str) -> bool:
        """Whether there is such a file; it is not downloaded."""
        if self.is_folder:
            return Path(self.name_or_path, name).is_file()
        if self.options.get("local_files_only"):
            known = try_to_load_from_cache(
                self.name_or_path, _inside(self.options, name), cache_dir=self.options.get("cache_dir"),
                revision=self.options.get("revision"),
            )  # fmt: skip
            return isinstance(known, str)
        try:
            _request_metadata(self.name_or_path, name, self.options)
        except Exception:  # noqa: BLE001  (as in `_why_unread`)
            return False
        return True


def locate(name: str | Path, what: str, options: Mapping[str, Any]) -> ModelLocation:
    """Locate the files of a model or head.

    Args:
        name: folder, or name on the Hub; a `Path` is a folder.
        what: "model", "tokenizer" or "judge head", for the error message.
        options: repository options of ``from_pretrained``. The ``subfolder`` of a folder becomes part of the place. If
            the Hub cannot be reached and the repository is in the cache, ``local_files_only`` is set.
    """
    options = dict(options)
    if not str(name):
        raise _cannot(what, "''", "the name is empty; give a folder or a name on the Hub.")
    if _is(Path.is_dir, name):
        name_or_path = Path(name, options.pop("subfolder", None) or "")
        if not name_or_path.is_dir():
            raise _cannot(what, name, f"it has no folder {name_or_path.relative_to(name)}; check subfolder.")
        check_folder(name_or_path, f"the {what}")
        return ModelLocation(str(name_or_path), options)
    if _is(Path.exists, name):
        more = f" and gguf_file={Path(name).name!r}" if str(name).endswith(".gguf") else ""
        raise _cannot(what, name, f"it is a file; give its folder{more}.")
    if not _may_be_on_the_hub(name):
        raise _cannot(what, name, f"there is no such folder{guess(str(name), NAMES)}; check the name.")
    name = str(name)
    if is_offline_mode():
        options["local_files_only"] = True
    try:
        unread = None if options.get("local_files_only") else _why_unread(name, options)
    except RevisionNotFoundError as error:
        raise _cannot(what, name, f"it has no revision {options.get('revision')}; check the revision.") from error
    if unread:
        options["local_files_only"] = True
    if options.get("local_files_only") and not _is_cached(name, options):
        reason = unread or f"the Hub is not asked, and there is no copy of it in {_cache(options)}"
        raise _cannot(what, name, f"there is no such folder here, and {reason}{guess(name, NAMES)}; check the name.")
    return ModelLocation(name, options)


def _why_unread(name: str, options: Mapping[str, Any]) -> str | None:
    """Return why a repository cannot be read on the Hub, by one request; None if it can."""
    try:
        _request_metadata(name, "config.json", options)
    except GatedRepoError:
        return f"the Hub shows it only to those with access: ask at https://huggingface.co/{name} and run hf auth login"
    except RepositoryNotFoundError:
        return "no such repository on the Hub, or a private one (then run hf auth login)"
    except RevisionNotFoundError:
        raise
    except (EntryNotFoundError, FileMetadataError):
        return None  # only an adapter or a GGUF file; a mirror that returns less information
    except HfHubHTTPError as error:
        return None if error.response.status_code < 500 else f"the Hub answers {error.response.status_code}"
    except Exception:  # noqa: BLE001  (the HTTP library's own, which is another one by the Hub library's version)
        return "the Hub cannot be reached"
    return None


def _cache(options: Mapping[str, Any]) -> Path:
    return Path(options.get("cache_dir") or constants.HF_HUB_CACHE)


def _is_cached(name: str, options: Mapping[str, Any]) -> bool:
    return (_cache(options) / repo_folder_name(repo_id=name, repo_type="model") / "snapshots").is_dir()


def _request_metadata(name: str, file: str, options: Mapping[str, Any]) -> None:
    url = hf_hub_url(name, _inside(options, file), revision=options.get("revision"))
    get_hf_file_metadata(url, token=options.get("token"), timeout=TIMEOUT)


def _inside(options: Mapping[str, Any], file: str) -> str:
    return f"{options['subfolder']}/{file}" if options.get("subfolder") else file


def _may_be_on_the_hub(name: str | Path) -> bool:
    """Whether a name that is not a folder can be a repository name: ``organization/name``, or a name alone."""
    if isinstance(name, Path) or name.lower().endswith(_FILES):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _is(what: Callable[[Path], bool], name: str | Path) -> bool:
    """Whether ``what`` holds for the path ``name``; False for names that no file can have."""
    try:
        return what(Path(name))
    except (OSError, ValueError):
        return False


def _cannot(what: str, name: str | Path, reason: str) -> JudgeDecodingError:
    return JudgeDecodingError(f"Cannot load the {what} {name}: {reason}")
