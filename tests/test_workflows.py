"""What CI and a release run is there: targets of make, actions and workflows of our own; the version is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import judge_decoding

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(path: Path) -> Iterator[dict[str, Any]]:
    """The jobs of a workflow."""
    yield from yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_a_workflow_runs_is_there(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in jobs(path):
        # A job that hangs is stopped, unless it is a workflow with limits of its own.
        assert "timeout-minutes" in job or "uses" in job, job
        for step in [job, *job.get("steps", ())]:
            if step.get("uses", "").startswith("./"):
                assert (ROOT / step["uses"]).exists(), step
            if made := re.match(r"make (\S+)$", step.get("run", "")):
                assert made[1] in targets, step


def test_the_version_is_one() -> None:
    """What a release checks; there, the changelog has it, too."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == judge_decoding.__version__
    (release,) = (path for path in WORKFLOWS if path.stem == "release")
    text = release.read_text(encoding="utf-8")
    assert re.search(r'__version__ = "(.*)"', text)
    assert "src/judge_decoding/__init__.py" in text


def test_dependabot_watches_what_there_is() -> None:
    updates = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert {one["package-ecosystem"] for one in updates} == {"pip", "github-actions"}
    assert all((ROOT / one["directory"].lstrip("/")).is_dir() for one in updates)
