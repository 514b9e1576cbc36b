"""Fixtures shared by the tests."""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import EntryPoints, entry_points

# Set before huggingface_hub is imported: no test may reach the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# What the command line sets for itself, here too, as there it comes before the libraries are imported.
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
# Commands in a process of their own have one thread, as the tests have: several processes run tests at once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import settings
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from commands import Run
from endpoint import KEY, Response, Serve, Server
from judge_decoding import plugins
from judge_decoding.cli import main as cli
from judge_decoding.cli.group import LazyGroup
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.judge.head import JudgeHead
from tiny import EOS, llama, perturbed, random_head, run_uncompiled, word_tokenizer

torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=40)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Imported modules are hundreds of thousands of objects that stay: the collector need not look at them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left with one of them when the other is done."""
    slow = {item.path for item in items if any(item.get_closest_marker(name) for name in ("slow", "browser"))}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _nothing_in_the_users_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_and_plugins_are_found_once() -> Iterator[None]:
    """A program makes its commands once, and these tests call it hundreds of times; that takes longer than most calls.

    The entry points of installed packages are read again where there are other folders, or other things in them.
    """

    @cache
    def found(_places: object, group: str) -> EntryPoints:
        return entry_points(group=group)

    def installed(group: str) -> EntryPoints:
        return found(
            tuple((str(place), place.stat().st_mtime_ns) for place in map(Path, sys.path) if place.is_dir()), group
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        patch.setattr(LazyGroup, "load", cache(LazyGroup.load))
        patch.setattr(plugins, "entry_points", installed)
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_warm_ups() -> Iterator[None]:
    """Times decide nothing in tests, so the uncounted answers before them need not be long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("draft_lengths", "loads"):
            patch.setattr(f"judge_decoding.evaluation.{module}.WARM_UP", 2)
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What a test measures with more must not round the next one's sums in another way."""
    yield
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The static back end runs what would be compiled as it is: the same in a test that is not about compiling."""
    run_uncompiled(monkeypatch)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


@pytest.fixture(scope="session")
def target() -> LlamaForCausalLM:
    return llama(0)


@pytest.fixture(scope="session")
def draft(target: LlamaForCausalLM) -> PreTrainedModel:
    return perturbed(target)


@pytest.fixture(scope="session")
def head(target: LlamaForCausalLM) -> JudgeHead:
    return random_head(target)


@pytest.fixture
def decoder(
    target: LlamaForCausalLM, draft: PreTrainedModel, head: JudgeHead, tokenizer: PreTrainedTokenizerFast
) -> JudgeDecoder:
    """A decoder whose answers have 24 tokens."""
    config = GenerationConfig(max_new_tokens=24, suppress_tokens=[EOS])
    return JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=4, generation_config=config)


@pytest.fixture(scope="session")
def folders(
    target: LlamaForCausalLM,
    draft: PreTrainedModel,
    head: JudgeHead,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A saved target, draft and judge."""
    root = tmp_path_factory.mktemp("saved")
    for name, model in (("target", target), ("draft", draft)):
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    head.save_pretrained(root / "judge")
    return {name: root / name for name in ("target", "draft", "judge")}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; its exit code, stdout and stderr."""

    def call(*args: object, stdin: str = "", columns: int = 160) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["judge-decoding", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setenv("COLUMNS", str(columns))
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return call


@pytest.fixture
def court(run: Run) -> Run:
    """Run ``judge-decoding court ...``."""
    return partial(run, "court")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server that answers so, and point the client to it."""
    servers: list[Server] = []

    def start(answer: Callable[[dict[str, Any], int], Response]) -> Server:
        servers.append(Server(answer))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        return servers[-1]

    yield start
    for server in servers:
        server.close()
