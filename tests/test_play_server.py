"""The playground's server: who it answers, what it refuses, and how answers end."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from browser import wait
from judge_decoding import JudgeDecoder
from judge_decoding.playground.server import Playground
from judge_decoding.web.connections import DeadlineProtocol
from judge_decoding.web.serving import listen
from local_pages import check_self_contained
from playing import (
    PROMPT,
    answered,
    client_of,
    events,
    ids_of,
    settings,
    slow,
    tiny_playground,
)
from test_annotate_server import BEARER, HOST, TOKEN

POSTS = ("/answer", "/what-if", "/stop", "/mark")


@pytest.fixture
def playground(decoder: JudgeDecoder, tmp_path: Path) -> Playground:
    return tiny_playground(decoder, tmp_path / "cases.jsonl")


@pytest.fixture
def client(playground: Playground) -> TestClient:
    return client_of(playground)


# Who is answered


@pytest.mark.parametrize("origin", ["", "null", "https://127.0.0.1:8765", "http://127.0.0.1:1", "http://evil.example"])
def test_another_origin_is_refused(client: TestClient, origin: str) -> None:
    for path in POSTS:
        reply = client.post(path, json={}, headers={"Origin": origin})
        assert (reply.status_code, reply.json()["error"][-1]) == (403, ".")


@pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1.evil.example", "", "[", "0.0.0.0:8765"])
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    for path in POSTS:
        assert client.post(path, json={}, headers={"Host": host, "Origin": f"http://{host}"}).status_code == 403
    assert client.get("/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x"])
def test_a_wrong_token_is_refused_everywhere(playground: Playground, given: str) -> None:
    client = TestClient(playground.app(TOKEN), base_url=HOST, headers={"Authorization": given, "Origin": HOST})
    for path in ("/", "/answers/x.html", "/nothing", "/?token=wrong"):
        reply = client.get(path)
        assert reply.status_code == 403
        assert TOKEN not in reply.text
    for path in POSTS:
        assert client.post(path, json={"settings": settings(), "prompt": PROMPT}).status_code == 403
    assert not playground.jobs.running


def test_the_page_is_one_file_that_trusts_nothing_else(client: TestClient) -> None:
    reply = client.get(f"/?token={TOKEN}", headers={"Authorization": ""})
    assert reply.status_code == 200
    check_self_contained(reply.text, reply.headers)
    assert reply.text.count("<style") + reply.text.count("<script") == 3


def test_what_the_page_offers(client: TestClient) -> None:
    page = client.get("/").text
    data = json.loads(page.partition('id="data"')[2].partition(">")[2].partition("</script>")[0])
    (pair,) = data["pairs"]
    assert (pair["name"], pair["chat"], pair["num_draft_tokens"]) == ("tiny", True, 4)
    assert {"exact", "judge", "top_k"} <= {rule["name"] for rule in data["rules"]}
    # Every rule and guard has a value to begin with for all that it needs.
    for row in (*data["rules"], *data["guards"]):
        optional = {"threshold"} if row["name"] == "judge" else set()
        assert all(value is not None for key, value in row["parameters"].items() if key not in optional), row["name"]


# Bad requests


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"{}", b"\xff", b'{"settings": {}}', b'{"settings": {"pair": "tiny"}, "prompt": 1}',
        b'{"settings": {"pair": "tiny", "temperature": NaN}, "prompt": "one"}',
        b'{"settings": {"pair": "tiny", "max_new_tokens": 0}, "prompt": "one"}',
        b'{"settings": {"pair": "tiny"}, "prompt": "one", "more": 1}',
        b'{"settings": {"pair": "tiny"}, "prompt": "\\ud800"}',
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_in_a_sentence(client: TestClient, body: bytes) -> None:
    reply = client.post("/answer", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"].endswith(".")
    for path in ("/what-if", "/stop", "/mark"):
        assert client.post(path, content=body).status_code == 400


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"messages": []}, "message is empty"),
        ({"messages": [{"role": "user", "content": " "}]}, "message is empty"),
        ({"prompt": PROMPT, "messages": [{"role": "user", "content": "one"}]}, "both or neither"),
        ({}, "both or neither"),
        ({"prompt": "one " * 300}, "context is 256"),
        ({"settings": {"pair": "other"}, "prompt": PROMPT}, "no models other"),
        ({"settings": settings(rule="top_q"), "prompt": PROMPT}, "top_k"),
        ({"settings": settings(rule="judge(threshold=2)"), "prompt": PROMPT}, "between 0"),
        ({"settings": settings(guards=["budget"]), "prompt": PROMPT}, "needs tokens"),
        ({"settings": settings(guards=["loop", "loop"]), "prompt": PROMPT}, "twice"),
        ({"settings": settings(num_draft_tokens=0), "prompt": PROMPT}, "num_draft_tokens is 0"),
        ({"settings": settings(temperature=-1), "prompt": PROMPT}, "temperature is -1"),
    ],
)
def test_a_bad_setting_is_refused_in_a_sentence(client: TestClient, body: dict[str, object], phrase: str) -> None:
    reply = client.post("/answer", json={"settings": settings(), **body})
    assert reply.status_code == 400
    assert phrase in reply.json()["error"]


def test_a_body_without_end_is_cut_off(client: TestClient) -> None:
    for path in POSTS:
        assert client.post(path, content=b"x" * 3_000_000).status_code == 413


def test_what_is_not_there_is_told_in_json(client: TestClient) -> None:
    for reply in (
        client.get("/nothing"),
        client.get("/answers/unknown.html"),
        client.post("/what-if", json={"answer": "unknown", "token": 0, "settings": settings()}),
        client.post("/mark", json={"answer": "unknown", "verdict": "right"}),
    ):
        assert (reply.status_code, reply.json()["error"][-1]) == (404, ".")
    assert client.get("/answer").status_code == 405
    assert client.post("/stop", json={"answer": "unknown"}).status_code == 200


# Leaving, stopping, and two at once


async def leave(app: Callable[..., Any], body: bytes, after: int) -> int:
    """Ask as a browser does that leaves after some events; how many it got."""
    gone, got = asyncio.Event(), 0
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal got
        got += bool(message.get("body"))
        if got >= after:
            gone.set()

    headers = {"host": HOST.removeprefix("http://"), "origin": HOST, "authorization": f"Bearer {TOKEN}"}
    scope = {
        "type": "http", "method": "POST", "path": "/answer", "query_string": b"", "http_version": "1.1",
        "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 60)
    return got


def test_a_client_that_leaves_stops_its_decoding(decoder: JudgeDecoder) -> None:
    pair, rounds = slow(decoder)
    playground = Playground({"tiny": pair}, None)
    body = json.dumps({"settings": settings(with_target=False), "prompt": PROMPT}).encode()
    got = asyncio.run(leave(playground.app(TOKEN), body, after=8))
    wait(lambda: not playground.jobs.running, "decoding to end")
    assert 5 <= len(rounds) < 60
    assert got < 60
    # And the next one can decode.
    assert answered(client_of(playground), settings=settings(max_new_tokens=2, with_target=False))


def test_lines_come_one_by_one_and_a_closed_connection_stops_decoding(decoder: JudgeDecoder) -> None:
    """Through the server that the command starts."""
    pair, rounds = slow(decoder)
    playground = Playground({"tiny": pair}, None)
    with listen(0) as listener:
        config = uvicorn.Config(
            playground.app(TOKEN), http=DeadlineProtocol, lifespan="off", ws="none", log_level="warning"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        body = json.dumps({"settings": settings(with_target=False), "prompt": PROMPT}).encode()
        request = urllib.request.Request(f"{origin}/answer", body, {**BEARER, "Origin": origin})
        with urllib.request.urlopen(request) as reply:
            lines = [json.loads(reply.readline()) for _ in range(8)]
            so_far = len(rounds)
        wait(lambda: not playground.jobs.running, "decoding to end")
        server.should_exit = True
        thread.join()
    assert [line["type"] for line in lines[:3]] == ["id", "start", "round"]
    assert so_far <= len(rounds) < 100


@pytest.mark.parametrize("with_target", [True, False])
def test_stop_keeps_what_is_there(decoder: JudgeDecoder, with_target: bool) -> None:
    pair, rounds = slow(decoder)
    playground = Playground({"tiny": pair}, None)

    def stop() -> None:
        wait(lambda: len(rounds) > 4, "some rounds")
        for name in list(playground.jobs.running):
            client_of(playground).post("/stop", json={"answer": name})

    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(stop)
        _, sample = answered(client_of(playground), settings=settings(with_target=with_target))
        stopping.result()
    assert sample["finish_reason"] is None
    assert 4 < len(sample["rounds"]) < 60
    assert (sample["target_text"] is not None) == with_target


def test_two_tabs_do_not_mix(playground: Playground, decoder: JudgeDecoder) -> None:
    prompts = [PROMPT, "red blue", "up", "cat dog good bad"]
    together = threading.Barrier(len(prompts))

    def ask(prompt: str) -> tuple[str, list[dict[str, Any]]]:
        client = client_of(playground)
        together.wait()
        return prompt, events(client, prompt=prompt)

    with ThreadPoolExecutor(len(prompts)) as pool:
        found = list(pool.map(ask, prompts))
    for prompt, own in found:
        assert own[-1]["sample"]["question"] == prompt
        assert ids_of(own[-1]["sample"]) == list(decoder.generate(prompt).token_ids)
    assert len({own[0]["id"] for _, own in found}) == len(prompts)


def test_one_decodes_at_a_time_and_the_other_is_told(decoder: JudgeDecoder) -> None:
    pair, rounds = slow(decoder)
    playground = Playground({"tiny": pair}, None)
    with ThreadPoolExecutor() as pool:
        options = settings(max_new_tokens=20, with_target=False)
        first = pool.submit(answered, client_of(playground), settings=options)
        wait(lambda: rounds, "the first to begin")
        second = events(client_of(playground), prompt="red", settings=options)
        first.result()
    assert [event["type"] for event in second[:2]] == ["id", "waiting"]
    starts = [i for i, length in enumerate(rounds) if i and length < rounds[i - 1]]
    assert len(starts) == 1


def test_what_was_stopped_before_its_first_token_is_told(decoder: JudgeDecoder) -> None:
    playground = Playground({"tiny": slow(decoder)[0]}, None)
    playground.jobs.close()
    found = events(client_of(playground), prompt=PROMPT)
    assert found[-1] == {"type": "nothing"}
    assert "judge" not in {event.get("column") for event in found}


def test_the_end_of_the_server_stops_all(decoder: JudgeDecoder) -> None:
    pair, rounds = slow(decoder)
    playground = Playground({"tiny": pair}, None)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(answered, client_of(playground), settings=settings(with_target=False))
        wait(lambda: len(rounds) > 2, "some rounds")
        playground.jobs.close()
        playground.jobs.join()
        assert asked.result()[1]["finish_reason"] is None
    assert not playground.jobs.running


def test_the_oldest_answer_goes_first(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge_decoding.playground.server._MOST_ANSWERS", 2)
    client = client_of(playground)
    names = [answered(client, prompt=PROMPT, settings=settings(max_new_tokens=2))[0] for _ in range(3)]
    assert [client.get(f"/answers/{name}.json").status_code for name in names] == [404, 200, 200]
