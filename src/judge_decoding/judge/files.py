"""The files in a head's folder: the head's own, and those of a full card, which are removed with the head."""

from __future__ import annotations

import re
from pathlib import Path

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
# With these, transformers can decode from the folder: see `judge_decoding.integrations.head_folder`.
CUSTOM_GENERATE = {
    "custom_generate/generate.py": """\
# Judge decoding with the head in this folder; all the code is in the package judge-decoding:
# model.generate(**inputs, custom_generate=THIS_FOLDER, trust_remote_code=True, draft=DRAFT_MODEL)
from judge_decoding.integrations.head_folder import generate_with_head as generate  # noqa: F401
""",
    "custom_generate/requirements.txt": "judge-decoding\n",
}
PICTURES = {
    "reliability.svg": "Share of correct tokens at each score",
    "roc.svg": "Correct tokens kept against wrong tokens kept, over all thresholds",
}
"""The pictures a full card can show, by file name."""
RUN_FILE = "run.yaml"
"""The options of the command that made what is in the folder; ``--config`` repeats it."""
PATTERNS = ("results.json", "results-*.json", "pareto.svg", "pareto-*.svg")
"""The result files that a full card shows, and their plots."""
_NAMES = re.compile(r"(results(-([2-9]|[1-9]\d+))?\.json)|(pareto(-([2-9]|[1-9]\d+))?\.svg)")


def files_of_head(folder: Path) -> list[Path]:
    """Return the files that saving a head in ``folder`` writes, replaces or removes."""
    names = (CONFIG, WEIGHTS, RUN_FILE, *PICTURES, *CUSTOM_GENERATE)
    return [*(folder / name for name in names), *files_of_card(folder)]


def files_of_card(folder: Path) -> list[Path]:
    """Return the files that saving a card in ``folder`` writes, replaces or removes."""
    return [folder / CARD, *(path for path in folder.glob("*.*") if _NAMES.fullmatch(path.name) and path.is_file())]


def files_in(folder: Path) -> list[Path]:
    """Return the files in a head's folder that belong to the head."""
    return [path for path in files_of_head(folder) if path.is_file()]


def results_in(folder: Path) -> list[Path]:
    """Return the result files in a head's folder, in order."""
    found = [path for path in files_of_card(folder) if path.suffix == ".json"]
    return sorted(found, key=lambda path: (len(path.name), path.name))  # 2 before 10
