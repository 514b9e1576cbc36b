"""The playground's answers: both columns, settings, what-if, downloads, hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from transformers import LlamaForCausalLM, PreTrainedModel

from judge_decoding import Cause, JudgeDecoder, JudgeHead
from judge_decoding.core.samples import read_samples
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.server import Playground
from playing import (
    PROMPT,
    answered,
    causes_of,
    client_of,
    events,
    ids_of,
    settings,
    tiny_playground,
)
from samples import HOSTILE
from test_annotate_server import TOKEN
from tiny import EOS, WORDS, word_tokenizer


@pytest.fixture
def client(decoder: JudgeDecoder, tmp_path: Path) -> TestClient:
    return client_of(tiny_playground(decoder, tmp_path / "cases.jsonl"))


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
