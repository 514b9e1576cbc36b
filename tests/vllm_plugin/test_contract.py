"""The newest vLLM, which may not run here, still has what the plugin wraps, subclasses and reads."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import contract
import pytest
import vllm

from judge_decoding.integrations.vllm.versions import VERSIONS


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sources of the newest release."""
    folder = tmp_path_factory.mktemp("vllm")
    subprocess.run(
        [sys.executable, *"-m pip download -qq --no-deps --only-binary :all: vllm --dest".split(), folder], check=True
    )
    (wheel,) = folder.glob("vllm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.endswith(".py")])
    (folder / "version").write_text(".".join(wheel.name.split("-")[1].split(".")[:2]))
    wheel.unlink()
    return folder


def test_nothing_moved_in_the_newest_release(newest: Path) -> None:
    version = (newest / "version").read_text()
    known = VERSIONS.get(version, VERSIONS[max(VERSIONS)])
    assert contract.moved(newest, known) == [], f"vLLM {version} differs from what the plugin was written for"
    assert version in VERSIONS, f"vLLM {version} is out, and nothing the plugin uses has moved: add it to VERSIONS"


def test_nothing_moved_in_the_version_that_is_installed() -> None:
    known = VERSIONS[".".join(vllm.__version__.split(".")[:2])]
    assert contract.moved(Path(vllm.__file__).parents[1], known) == []


def test_the_comparison_finds_what_moved(tmp_path: Path) -> None:
    """Held against a vLLM of three small files in which one thing of each kind is different."""
    for path, text in {
        "vllm/v1/outputs.py": (
            "from abc import ABC, abstractmethod\n"
            "class AsyncModelRunnerOutput(ABC):\n"
            "    @abstractmethod\n    def get_output(self): ...\n"
            "    @abstractmethod\n    def get_more(self): ...\n"
        ),
        "vllm/v1/sample/rejection_sampler.py": "from vllm.v1.other import rejection_sample\n",
        "vllm/v1/other.py": "def rejection_sample(draft_token_ids, *, extra): ...\n",
        "vllm/v1/request.py": "class Request:\n    def is_finished(self):\n        self.sampling_params = 1\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = "\n".join(contract.moved(tmp_path, VERSIONS["0.32"]))
    outputs, sampler, request = "vllm.v1.outputs:Async", "vllm.v1.sample.rejection_sampler:", "vllm.v1.request:Request"
    assert f"{outputs}ModelRunnerOutput has the abstract methods get_more, get_output and not get_output" in found
    assert f"{sampler}rejection_sample takes draft_token_ids, extra and not" in found
    assert f"{request} has no spec_token_ids" in found
    assert f"{request} has no is_finished" not in found
    assert f"{request} has no sampling_params" not in found
    assert "vllm.v1.worker.gpu_model_runner:GPUModelRunner.sample_tokens is gone" in found
