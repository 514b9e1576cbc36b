"""Guards, speculation off and the mark of an answer inside vLLM: the same tokens as our own loop's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import answers, engine
from pair import MAX_NEW_TOKENS, NUM_DRAFT_TOKENS, PROMPTS, Answers
from vllm import LLM, SamplingParams
from vllm.exceptions import VLLMValidationError

from judge_decoding.core.rounds import Cause
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.decoding.answer import Generation
from judge_decoding.decoding.guards import parse_guard
from judge_decoding.reference import pair

SOME = PROMPTS[:12]
GUARDS = [
    ("budget(tokens=2)", "budget(tokens=2)"),
    ("strict_start(tokens=21)", "strict_start(tokens=20)"),  # vLLM's first token is part of our prompt
    ("phase(begin=\" Solution\", end=\",\")", "phase(begin=\" Solution\", end=\",\")"),
    ("phase(begin=\" Solution\", end=\",\", where=outside)", "phase(begin=\" Solution\", end=\",\", where=outside)"),
    ("loop(tokens=1, times=2)", "loop(tokens=1, times=2)"),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(draft: Path, plain: Answers) -> Iterator[LLM]:  # an engine at a time: that of `plain` comes before
    judge = {"head": str(pair.JUDGE), "threshold": 0.2, "guards": ["budget(tokens=1)"]}
    with engine(draft, judge, async_scheduling=False) as llm:
        yield llm


def ours(decoder: JudgeDecoder, made: Answers, *guards: str) -> list[Generation]:
    ids = [torch.tensor([[*prompt, answer[0]]]) for prompt, answer in made]
    return decoder.generate_batch(
        ids, MAX_NEW_TOKENS, batch_size=12, threshold=0.2, num_draft_tokens=NUM_DRAFT_TOKENS,
        guards=[parse_guard(guard) for guard in guards],
    )  # fmt: skip


def tokens(made: list[Generation]) -> list[list[int]]:
    return [list(one.token_ids) for one in made]


@pytest.mark.parametrize(("theirs", "own"), GUARDS)
def test_a_guard_keeps_the_tokens_of_our_own_loop(server: LLM, decoder: JudgeDecoder, theirs: str, own: str) -> None:
    free = answers(server, SOME, judge_guards=[])
    made = answers(server, SOME, judge_guards=[theirs])
    expected = ours(decoder, made, own)
    assert [answer[1:] for _, answer in made] == tokens(expected)
    assert made != free  # the guard has something to forbid
    assert any(Cause.RESCUED in event.causes for one in expected for event in one.rounds)  # and something to permit


def test_the_servers_guards_are_the_default(server: LLM, decoder: JudgeDecoder) -> None:
    made = answers(server, SOME)
    assert [answer[1:] for _, answer in made] == tokens(ours(decoder, made, "budget(tokens=1)"))


def test_requests_of_one_batch_have_their_own_guards(server: LLM, decoder: JudgeDecoder) -> None:
    chosen: list[tuple[str, ...]] = [(), ("budget(tokens=2)",), ("budget(tokens=0)",)] * 4
    params = [extra({"judge_guards": list(one)}) for one in chosen]
    made = server.generate(SOME, params, use_tqdm=False)
    for one, guards in zip(made, chosen, strict=True):
        pair_of = (list(one.prompt_token_ids or ()), list(one.outputs[0].token_ids))
        assert pair_of[1][1:] == tokens(ours(decoder, [pair_of], *guards))[0]


def extra(given: dict[str, Any]) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS, extra_args=given)


def test_a_guard_that_means_nothing_is_refused(server: LLM) -> None:
    with pytest.raises(VLLMValidationError, match="did you mean budget"):
        server.generate(SOME[:1], extra({"judge_guards": ["bugdet(tokens=1)"]}), use_tqdm=False)


def test_every_answer_says_whether_it_is_lossy(server: LLM, decoder: JudgeDecoder, plain: Answers) -> None:
    free = server.generate(SOME, extra({"judge_guards": []}), use_tqdm=False)
    marks = [one.kv_transfer_params["judge"] for one in free]
    own = ours(decoder, [(list(one.prompt_token_ids or ()), list(one.outputs[0].token_ids)) for one in free])
    rescued = [sum(event.causes.count(Cause.RESCUED) for event in one.rounds) for one in own]
    # vLLM counts a draft to its end, even behind an end token.
    assert all(mark["rescued_tokens"] >= number for mark, number in zip(marks, rescued, strict=True))
    assert all(mark["lossy"] for mark, number in zip(marks, rescued, strict=True) if number)
    for mark, one, (_, target) in zip(marks, free, plain, strict=False):
        assert mark["lossy"] or list(one.outputs[0].token_ids) == target
    off = server.generate(SOME, extra({"judge": "off"}), use_tqdm=False)
    assert {str(one.kv_transfer_params["judge"]) for one in off} == {"{'lossy': False, 'rescued_tokens': 0}"}


def test_an_answer_that_a_stop_string_ends_is_marked(server: LLM) -> None:
    given = SamplingParams(temperature=0, max_tokens=MAX_NEW_TOKENS, stop=[","], extra_args={"judge_guards": []})
    made = server.generate(SOME, given, use_tqdm=False)
    assert any(one.outputs[0].stop_reason == "," for one in made)
    assert all("lossy" in one.kv_transfer_params["judge"] for one in made)


def test_speculation_can_be_off_for_a_request(server: LLM, plain: Answers) -> None:
    scheduler = server.llm_engine.engine_core.engine_core.scheduler
    drafted: list[int] = []
    original = scheduler.update_from_output

    def counting(output: Any, runner_output: Any) -> Any:
        drafted.append(sum(map(len, output.scheduled_spec_decode_tokens.values())))
        return original(output, runner_output)

    scheduler.update_from_output = counting
    try:
        assert answers(server, SOME, judge_speculation="off") == plain[:12]
        assert drafted
        assert not any(drafted)
        drafted.clear()
        answers(server, SOME)
        assert any(drafted)
    finally:
        scheduler.update_from_output = original
