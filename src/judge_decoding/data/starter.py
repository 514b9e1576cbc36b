"""The starter set: labelled answers of real models that come with the package, by the name ``starter``.

What is in it and under which licences is in ``starter_set/README.md``; ``recipes/starter_set`` makes it.
"""

from __future__ import annotations

from pathlib import Path

from judge_decoding.errors import JudgeDecodingError

STARTER = "starter"
"""The name that stands for the set wherever a file of cases is named."""

FOLDER = Path(__file__).parent / "starter_set"
FILE = FOLDER / "cases.jsonl.gz"


def is_starter(path: str | Path) -> bool:
    """Whether ``path`` is the name of the starter set."""
    return str(path) == STARTER


def case_file(path: str | Path) -> Path:
    """Where the cases called ``path`` are: those of the starter set for its name, else the file.

    Raises:
        JudgeDecodingError: the name is also that of a file in the working directory, which nothing can tell apart.
    """
    if not is_starter(path):
        return Path(path)
    if Path(STARTER).exists():
        raise JudgeDecodingError(
            f"{STARTER} is the set that comes with the package, and there is a file of this name here, too; rename the "
            f"file or give its whole path, {Path(STARTER).absolute()}."
        )
    return FILE
