"""The playground's server: who it answers, what it streams, and what is kept of it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from starlette.testclient import TestClient
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from browser import wait
from commands import Run, is_one_sentence
from judge_decoding import Case, Cause, JudgeDecoder, JudgeDecodingError, JudgeHead, play, read_cases, write_cases
from judge_decoding.cli.play import parse_pairs
from judge_decoding.core.samples import read_samples
from judge_decoding.data.tokens import check_tokens
from judge_decoding.playground.marks import CaseFile
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.server import Playground
from judge_decoding.web.connections import DeadlineProtocol
from judge_decoding.web.serving import listen
from samples import HOSTILE
from test_annotate_server import BEARER, HOST, TOKEN
from tiny import EOS, WORDS, word_tokenizer

PROMPT = "one two three"
POSTS = ("/answer", "/what-if", "/stop", "/mark")


@pytest.fixture
def decoder(target: LlamaForCausalLM, draft: PreTrainedModel, head: JudgeHead, tokenizer: PreTrainedTokenizerFast):
    return JudgeDecoder(
        target,
        tokenizer,
        draft,
        head,
        num_draft_tokens=4,
        generation_config=GenerationConfig(max_new_tokens=24, suppress_tokens=[EOS]),
    )


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    return tmp_path / "new" / "cases.jsonl"


@pytest.fixture
def playground(decoder: JudgeDecoder, cases: Path) -> Playground:
    return Playground({"tiny": ModelPair("tiny", decoder, target="tiny-target")}, CaseFile(cases), "ann")


@pytest.fixture
def client(playground: Playground) -> TestClient:
    return client_of(playground)


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
    assert not playground.jobs.count()


def test_the_page_is_one_file_that_trusts_nothing_else(client: TestClient) -> None:
    reply = client.get(f"/?token={TOKEN}", headers={"Authorization": ""})
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    nonce = re.search(r"style-src 'nonce-([\w-]+)'", policy)
    assert nonce is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.text.count(f'nonce="{nonce[1]}"') == reply.text.count("<style") + reply.text.count("<script") == 3
    assert not re.search(r"""(?:src|href)="(?!data:,|/)|https?://|@import|url\(|\son\w+=| style=""", reply.text)
    assert reply.headers["cache-control"] == "no-store"


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


# Answers


def test_both_columns_are_what_the_decoder_gives(client: TestClient, decoder: JudgeDecoder) -> None:
    found = events(client, prompt=PROMPT)
    assert [event["column"] for event in found if event["type"] == "start"] == ["target", "judge"]
    right = {"target": decoder.alone().generate(PROMPT), "judge": decoder.generate(PROMPT)}
    for column, answer in right.items():
        rounds = [event for event in found if event["type"] == "round" and event["column"] == column]
        (end,) = (event for event in found if event["type"] == "end" and event["column"] == column)
        assert "".join(piece for event in rounds for piece in event["pieces"]) + end["tail"] == answer.text
        assert [cause for event in rounds for cause in event["causes"]] == [
            cause for event in answer.rounds for cause in event.causes
        ]
        assert end["finish_reason"] == answer.finish_reason
        last = rounds[-1]["figures"]
        assert last["tokens"] == len(answer.token_ids)
        assert last["mean_acceptance_length"] == answer.stats.tokens_per_forward
        assert last["acceptance_rate"] == answer.stats.acceptance_rate
        assert last["tokens_per_second"] == pytest.approx(last["tokens"] / last["seconds"])
    sample = found[-1]["sample"]
    assert ids_of(sample) == list(right["judge"].token_ids)
    assert sample["target_text"] == right["target"].text
    assert sample["rounds"][0]["details"]["alternatives"]


def test_a_chat_goes_through_the_template(client: TestClient, decoder: JudgeDecoder) -> None:
    chat = [
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "red"},
    ]  # fmt: skip
    found = events(client, messages=chat)
    assert ids_of(found[-1]["sample"]) == list(decoder.generate(chat).token_ids)


def test_settings_apply_to_the_next_answer(client: TestClient, decoder: JudgeDecoder) -> None:
    """The threshold, the rule, guards, the length, the target and the back end."""
    _, strict = answered(client, settings=settings(rule="judge(threshold=1)"))
    assert "rescued" not in causes_of(strict)
    assert ids_of(strict) == list(decoder.alone().generate(PROMPT).token_ids)
    _, loose = answered(client, settings=settings(rule="judge(threshold=0)", num_draft_tokens=6))
    assert "rescued" in causes_of(loose)
    assert (loose["threshold"], loose["rounds"][0]["causes"].count("correction")) == (0, 0)
    assert len(loose["rounds"][0]["draft_ids"]) == 6
    _, guarded = answered(client, settings=settings(rule="judge(threshold=0)", guards=["budget(tokens=1)"]))
    assert causes_of(guarded).count("rescued") == 1
    assert guarded["threshold"] is None
    _, short = answered(client, settings=settings(max_new_tokens=3, with_target=False, rule="top_k(k=2)"))
    assert (len(ids_of(short)), short["finish_reason"], short["target_text"]) == (3, "length", None)
    assert short["rule"] == "top_k(k=2)"


def test_sampling_is_repeatable_and_otherwise_new(client: TestClient) -> None:
    hot = [answered(client, settings=settings(temperature=2, seed=seed))[1] for seed in (1, 1, 2)]
    assert ids_of(hot[0]) == ids_of(hot[1]) != ids_of(hot[2])
    assert (hot[0]["temperature"], hot[0]["seed"]) == (2, 1)
    first, second = (answered(client, settings=settings(temperature=2))[1] for _ in range(2))
    assert first["seed"] != second["seed"]


def test_the_static_back_end_gives_the_same_tokens(client: TestClient, uncompiled: None) -> None:
    _, eager = answered(client)
    _, static = answered(client, settings=settings(backend="static"))
    assert ids_of(static) == ids_of(eager)


def test_a_failure_while_decoding_is_an_event(client: TestClient, decoder: JudgeDecoder, caplog) -> None:
    def broken(ids: list[int], count: int) -> Sequence[int]:
        raise RuntimeError("no more")

    pair = ModelPair("tiny", JudgeDecoder(decoder.target, decoder.tokenizer, broken))
    found = events(client_of(Playground({"tiny": pair}, None)), prompt=PROMPT)
    assert found[-1]["type"] == "error"
    assert "no more" in found[-1]["error"]
    assert found[-1]["error"].endswith(".")


# What if


def rescued_in(sample: dict[str, Any]) -> list[int]:
    return [i for i, cause in enumerate(causes_of(sample)) if cause == Cause.RESCUED]


def test_what_if_is_what_decoding_that_prefix_gives(client: TestClient, decoder: JudgeDecoder) -> None:
    name, sample = answered(client, settings=settings(rule="judge(threshold=0)"))
    kept = ids_of(sample)
    own = [token for event in sample["rounds"] for token in event["target_ids"][: len(event["token_ids"])]]
    assert len(rescued_in(sample)) > 3
    for place in rescued_in(sample)[:2]:
        prefix = [*kept[:place], own[place]]
        found = events(
            client, "/what-if", answer=name, token=place, settings=settings(rule="judge(threshold=0.5)")
        )  # fmt: skip
        new = found[-1]["sample"]
        prompt = torch.cat((decoder.encode(PROMPT), torch.tensor([prefix])), 1)
        rounds = [] if prefix[-1] == EOS else list(decoder.rounds(prompt, 24 - len(prefix), threshold=0.5))
        assert ids_of(new) == [*prefix, *(token for event in rounds for token in event.token_ids)]
        assert causes_of(new)[place] == Cause.CORRECTION
        assert new["text"] == decoder.tokenizer.decode(ids_of(new), skip_special_tokens=True)
        assert new["seconds"] is None
        # And from there again.
        more = rescued_in(new)
        if more:
            again = answered(client, "/what-if", answer=found[0]["id"], token=more[0], settings=settings())[1]
            assert ids_of(again)[: more[0]] == ids_of(new)[: more[0]]


def test_what_if_at_a_token_of_the_targets_own_is_refused(client: TestClient) -> None:
    name, sample = answered(client, settings=settings(rule="judge(threshold=1)"))
    for token in (causes_of(sample).index("correction"), causes_of(sample).index("agreed"), 10_000):
        reply = client.post("/what-if", json={"answer": name, "token": token, "settings": settings()})
        assert reply.status_code == 400
        assert reply.json()["error"].endswith(".")


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
    wait(lambda: playground.jobs.count() == 0, "decoding to end")
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
        wait(lambda: playground.jobs.count() == 0, "decoding to end")
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
        for name in list(playground.jobs.names()):
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
    assert playground.jobs.count() == 0


# Marks


def test_a_mark_is_a_valid_case(client: TestClient, cases: Path, decoder: JudgeDecoder) -> None:
    name, sample = answered(client, messages=[{"role": "user", "content": "one"}], prompt=None)
    assert not cases.exists()
    reply = client.post("/mark", json={"answer": name, "verdict": "wrong", "first": 2, "last": 2, "seconds": 3.21})
    assert reply.json() == {"saved": "wrong", "errors": reply.json()["errors"], "count": 1}
    (case,) = read_cases(cases)
    pieces = [piece for event in sample["rounds"] for piece in event["pieces"]]
    ((start, end),) = case.errors
    assert case.answer == sample["text"]
    assert (case.answer[start:end], end) == (pieces[2].strip(), len("".join(pieces[:3])))
    assert (case.question, case.source, case.annotator, case.seconds) == ("user one up ", "human", "ann", 3.2)
    assert (case.writer, case.ended, case.located) == ("tiny-target", sample["finish_reason"] == "stop", True)
    assert case.token_ids is not None
    assert list(case.token_ids[-len(ids_of(sample)) :]) == ids_of(sample)
    check_tokens(case, decoder.tokenizer)


def test_marks_are_changed_and_taken_back(client: TestClient, cases: Path) -> None:
    cases.parent.mkdir()
    before = b'{"question": "q",   "answer": "a b"}\n{"question":"q2","answer":"half"}'  # no line end
    cases.write_bytes(before)
    name, sample = answered(client)
    other, _ = answered(client, prompt="red")

    def mark(answer: str, verdict: str, **more: int) -> None:
        assert client.post("/mark", json={"answer": answer, "verdict": verdict, **more}).status_code == 200

    mark(name, "wrong", first=0, last=1)
    mark(other, "right")
    assert len(read_cases(cases)) == 4
    mark(name, "wrong", first=3, last=3)
    found = read_cases(cases)
    assert len(found) == 4
    assert found[2].answer[slice(*found[2].errors[0])] == sample["text"].split()[3]
    assert (found[3].errors, found[3].located) == ((), True)
    mark(name, "none")
    mark(name, "none")
    mark(other, "none")
    assert cases.read_bytes() == before + b"\n"


def test_an_end_that_came_too_early(cases: Path, decoder: JudgeDecoder) -> None:
    ending = JudgeDecoder(decoder.target, decoder.tokenizer, decoder.draft, decoder.judge, num_draft_tokens=4)
    client = client_of(Playground({"tiny": ModelPair("tiny", ending)}, CaseFile(cases)))
    ended = next(
        (name, sample)
        for name, sample in (answered(client, prompt=word, settings=settings(max_new_tokens=200)) for word in WORDS)
        if sample["finish_reason"] == "stop"
    )
    last = len(ids_of(ended[1])) - 1
    client.post("/mark", json={"answer": ended[0], "verdict": "wrong", "first": last, "last": last})
    (case,) = read_cases(cases)
    assert case.errors == ((len(case.answer), len(case.answer)),)
    assert case.ended
    check_tokens(case, decoder.tokenizer)


def test_tokens_that_are_not_there_are_not_marked(client: TestClient, cases: Path) -> None:
    name, sample = answered(client)
    for first, last in ((0, 10_000), (3, 2), (len(ids_of(sample)), len(ids_of(sample)))):
        reply = client.post("/mark", json={"answer": name, "verdict": "wrong", "first": first, "last": last})
        assert reply.status_code == 400
    assert not cases.exists()


def test_no_line_is_lost_when_many_write(tmp_path: Path) -> None:
    """Two programs with the same file, each with several threads that add, change and remove."""
    path = tmp_path / "cases.jsonl"
    files = [CaseFile(path), CaseFile(path)]

    def work(number: int) -> None:
        file = files[number % 2]
        file.put(f"{number}", Case(question=f"{number}", answer="first"))
        file.put(f"{number}", Case(question=f"{number}", answer="second"))
        if number % 3 == 0:
            file.drop(f"{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(24)))
    found = read_cases(path)
    assert {case.answer for case in found} == {"second"}
    assert sorted(int(case.question) for case in found) == [n for n in range(24) if n % 3]
    assert sum(file.count for file in files) == len(found)


def test_a_file_of_other_things_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a case\n")
    with pytest.raises(JudgeDecodingError, match="line 1 is not a case"):
        CaseFile(path)
    assert path.read_text() == "not a case\n"


# Downloads and hostile text


def test_downloads(client: TestClient, tmp_path: Path) -> None:
    name, sample = answered(client)
    text = client.get(f"/answers/{name}.json?token={TOKEN}", headers={"Authorization": ""})
    (tmp_path / "a.json").write_bytes(text.content)
    (read,) = read_samples(tmp_path / "a.json")
    assert (read.text, read.target_text) == (sample["text"], sample["target_text"])
    assert read.stats["tokens"] == len(ids_of(sample))
    page = client.get(f"/answers/{name}.html")
    assert page.headers["content-disposition"] == f'attachment; filename="answer-{name[:8]}.html"'
    assert "Judge decoding, token by token" in page.text


def test_hostile_output_is_data(target: LlamaForCausalLM, draft: PreTrainedModel, head: JudgeHead) -> None:
    words = [f"{HOSTILE}{i}" for i in range(len(WORDS))]
    decoder = JudgeDecoder(target, word_tokenizer(words), draft, head, num_draft_tokens=4)
    pair = ModelPair(HOSTILE, decoder, target=HOSTILE)
    client = client_of(Playground({HOSTILE: pair}, None, HOSTILE))
    page = client.get("/").text
    assert "window.taken" in page
    assert not re.search(r"<(?:script>document|img|/title></textarea)", page)
    body = {"settings": {"pair": HOSTILE, "max_new_tokens": 12}, "prompt": HOSTILE}
    reply = client.post("/answer", json=body)
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.headers["x-content-type-options"] == "nosniff"
    first, *_, last = map(json.loads, reply.text.splitlines())
    assert HOSTILE[:50] in last["sample"]["text"]
    report = client.get(f"/answers/{first['id']}.html").text
    assert not re.search(r"<(?:script>document|img|/title></textarea)", report)


# The command


def test_pairs_by_name() -> None:
    assert parse_pairs(["reference", "a/t,b/d", "mine=a/t, prompt-lookup ,c/j"]) == [
        ("reference", "reference", "reference", "reference"),
        ("t", "a/t", "b/d", None),
        ("mine", "a/t", "prompt-lookup", "c/j"),
    ]


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        (("--pair", "nowhere/at-all"), "has no draft"),
        (("--pair", "a,b,c,d"), "NAME=TARGET,DRAFT,JUDGE"),
        (("--pair", "a,,c"), "NAME=TARGET,DRAFT,JUDGE"),
        (("--pair", "reference", "--pair", "reference"), "Two pairs are called reference"),
        (("--pair", "prompt-lookup,x"), "is a drafter, not a"),
        (("--dtype", "float7"), "dtype"),
        (("--cases", "."), "it is a folder"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, more: tuple[str, ...], phrase: str) -> None:
    is_one_sentence(run("play", "--no-browser", *more), phrase)


def test_without_the_extra_it_says_what_to_install(run: Run, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("judge_decoding.cli.play.find_spec", lambda name: None)
    is_one_sentence(run("play", "--cases", tmp_path / "c.jsonl"), "judge-decoding[court]")


def test_an_input_is_no_file_of_cases(run: Run, tmp_path: Path) -> None:
    write_cases(tmp_path / "c.jsonl", [Case(question="q", answer="a")])
    pair = f"{tmp_path / 'c.jsonl'},prompt-lookup"
    is_one_sentence(run("play", "--no-browser", "--pair", pair, "--cases", tmp_path / "c.jsonl"), "c.jsonl")


def test_from_python(decoder: JudgeDecoder, cases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is served on the address that is told, with the decoders by name."""
    told: list[str] = []

    def served(playground: Playground, listener: socket.socket, token: str) -> None:
        assert f"http://127.0.0.1:{listener.getsockname()[1]}/?token={token}" == told[0]
        name, _ = answered(client_of(playground), settings={"pair": "mine", "max_new_tokens": 4})
        assert client_of(playground).post("/mark", json={"answer": name, "verdict": "right"}).status_code == 200

    monkeypatch.setattr("judge_decoding.playground.play.Playground.serve", served)
    assert play({"mine": decoder}, cases=cases, port=0, browser=False, started=told.append) == 1
    assert len(read_cases(cases)) == 1
    with pytest.raises(JudgeDecodingError, match="no models to play with"):
        play({})
