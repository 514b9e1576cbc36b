"""What the commands that load models share."""

from __future__ import annotations

from typing import TypeVar

from judge_decoding.errors import JudgeDecodingError

Name = TypeVar("Name", str, str | None)

DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_dtype(dtype: str) -> None:
    """Check the name of a dtype.

    Raises:
        JudgeDecodingError: it is none of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise JudgeDecodingError(f"dtype is {dtype}; it must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")


def embedded(name: Name, role: str) -> Name:
    """A model's name or folder; 'reference' is the embedded one of this role: target, draft or judge."""
    from judge_decoding.reference import pair

    folders = {"target": pair.TARGET, "draft": pair.DRAFT, "judge": pair.JUDGE}
    return str(folders[role]) if name == "reference" else name
