"""What the tests of the playground share: decoders with tiny models, and the questions of a page."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from transformers import GenerationConfig

from judge_decoding import JudgeDecoder
from judge_decoding.playground.marks import CaseFile
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.server import Playground
from test_annotate_server import BEARER, HOST, TOKEN
from tiny import EOS

PROMPT = "one two three"


def tiny_playground(decoder: JudgeDecoder, cases: Path) -> Playground:
    return Playground({"tiny": ModelPair("tiny", decoder, target="tiny-target")}, CaseFile(cases), "ann")


def client_of(playground: Playground) -> TestClient:
    return TestClient(playground.app(TOKEN), base_url=HOST, headers={**BEARER, "Origin": HOST})


def settings(**more: object) -> dict[str, object]:
    return {"pair": "tiny", **more}


def events(client: TestClient, path: str = "/answer", **body: object) -> list[dict[str, Any]]:
    """The events of an answer."""
    reply = client.post(path, json={"settings": settings(), **body})
    assert reply.status_code == 200, reply.text
    assert reply.text.isascii()
    return [json.loads(line) for line in reply.text.splitlines()]


def answered(client: TestClient, path: str = "/answer", **body: object) -> tuple[str, dict[str, Any]]:
    """The id and the sample of an answer."""
    first, *_, last = events(client, path, **({"prompt": PROMPT} if path == "/answer" else {}) | body)
    assert (first["type"], last["type"]) == ("id", "answer")
    return first["id"], last["sample"]


def ids_of(sample: dict[str, Any]) -> list[int]:
    return [token for event in sample["rounds"] for token in event["token_ids"]]


def causes_of(sample: dict[str, Any]) -> list[str]:
    return [cause for event in sample["rounds"] for cause in event["causes"]]


def slow(decoder: JudgeDecoder) -> tuple[ModelPair, list[int]]:
    """A pair whose answers have 200 tokens and take some seconds, and the rounds that were drafted."""
    rounds: list[int] = []

    def propose(ids: list[int], count: int) -> Sequence[int]:
        rounds.append(len(ids))
        time.sleep(0.02)
        return [5] * min(count, 1)

    config = GenerationConfig(max_new_tokens=200, suppress_tokens=[EOS])
    made = JudgeDecoder(decoder.target, decoder.tokenizer, propose, num_draft_tokens=1, generation_config=config)
    return ModelPair("tiny", made), rounds
