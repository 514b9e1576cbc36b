"""The starter set: labelled answers of real models, included in the package under the name ``starter``.

``starter_set/README.md`` lists contents and licences; ``recipes/starter_set`` builds it.
"""

from __future__ import annotations

from pathlib import Path

from judge_decoding.errors import JudgeDecodingError

STARTER = "starter"
"""The name of the set wherever a file of cases is expected."""

FOLDER = Path(__file__).parent / "starter_set"
FILE = FOLDER / "cases.jsonl.gz"


def is_starter(path: str | Path) -> bool:
    """Whether ``path`` is the name of the starter set."""
    return str(path) == STARTER


def case_file(path: str | Path) -> Path:
    """Return the file of the starter set for its name, and any other path unchanged."""
    if not is_starter(path):
        return Path(path)
    if Path(STARTER).exists():
        raise JudgeDecodingError(
            f"{STARTER} is the name of the built-in set, and there is also a file of this name here; rename the "
            f"file, or give its full path, {Path(STARTER).absolute()}."
        )
    return FILE
