"""The notebooks run from top to bottom in a fresh namespace, and come to what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import execute
from judge_decoding import JudgeHead

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def texts(notebook: dict[str, Any]) -> list[str]:
    """All that the outputs show."""
    outputs = [one for cell in notebook["cells"] for one in cell.get("outputs", ())]
    return ["".join(lines) for one in outputs for lines in (one.get("text", []), *one.get("data", {}).values())]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_an_executed_notebook_without_paths_of_a_machine(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    shown = "\n".join(texts(notebook))
    assert shown
    for sign in ("/tmp", "/home", "/root", "/work", "/Users", "Traceback"):
        assert sign not in shown


def test_the_readme_and_the_docs_name_each() -> None:
    assert len(NOTEBOOKS) == 2
    for page in ("README.md", "docs/index.md"):
        text = (FOLDER.parent / page).read_text(encoding="utf-8")
        assert all(f"notebooks/{path.name}" in text for path in NOTEBOOKS), page


@pytest.mark.slow
def test_from_prompts_to_a_judge() -> None:
    found = execute.run(notebook := read(FOLDER / "from_prompts_to_a_judge.ipynb"))
    head = found["fitted"].head
    assert head.config.calibration["auc"] > 0.9
    assert JudgeHead.from_pretrained(found["folder"]).config.threshold == head.config.threshold
    assert found["same"] is True
    assert found["gain"] > 1.5
    assert any("mean acceptance length" in text for text in texts(notebook))


@pytest.mark.slow
def test_choose_a_rule() -> None:
    pytest.importorskip("matplotlib")
    notebook = read(FOLDER / "choose_a_rule.ipynb")
    for cell in notebook["cells"]:  # four questions show what ten do, in less time
        cell["source"] = [line.replace("count=10", "count=4") for line in cell["source"]]
    assert "count=4" in str(notebook)
    found = execute.run(notebook)
    rows = {row.name.removesuffix(", 8 tokens"): row for row in found["found"].rows}
    assert list(rows) == [
        "target alone", "exact", "top_k(k=2)", "top_k(k=2), matched", "judge(threshold=0.5)", "judge(threshold=0.95)",
    ]  # fmt: skip
    assert rows["exact"].accuracy == rows["target alone"].accuracy
    assert rows["top_k(k=2)"].accuracy < rows["judge(threshold=0.95)"].accuracy
    assert found["lengths"][found["best"].name] > 2 * found["exact"]
    assert any(text.startswith("<svg ") for text in texts(notebook))
