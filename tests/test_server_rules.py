"""What a vLLM server is told of its judge, and what a request says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from judge_decoding import Judge, JudgeDecodingError, TopK
from judge_decoding.serving.server_rules import ServerRules, ServerSettings, speculates


def rules_of(**given: Any) -> ServerRules:
    return ServerRules.of(ServerSettings.read(given))


def test_a_head_and_a_threshold(folders: dict[str, Path]) -> None:
    made = rules_of(head=str(folders["judge"]), threshold=0.25)
    assert isinstance(made.rule, Judge)
    assert made.rule.threshold == 0.25
    assert rules_of(head=str(folders["judge"])).rule.threshold == made.rule.head.config.threshold  # type: ignore[attr-defined]


def test_any_rule_by_its_spelling(folders: dict[str, Path]) -> None:
    assert str(rules_of(rule="top_k(k=2)").rule) == "top_k(k=2)"
    joined = rules_of(rule="judge(threshold=0.7) | top_k(k=2)", head=str(folders["judge"]))
    assert str(joined.rule) == "judge(threshold=0.7) | top_k(k=2)"


@pytest.mark.parametrize(
    ("given", "phrase"),
    [
        ({}, "neither a head nor a rule"),
        ({"head": 3}, "head: Input should be a valid string"),
        ({"heads": "x"}, "heads: Extra inputs"),
        ({"rule": "top_k(k=2)", "threshold": 0.5}, "not both"),
        ({"rule": "judge"}, "needs a judge head"),
        ({"rule": "block"}, "decides on a draft as a whole"),
        ({"rule": "top_k(k=0)"}, "must be 1 or more"),
        ({"rule": "top_k(k=2)", "logprobs": "yes"}, "'strict' or 'refuse'"),
    ],
)
def test_a_wrong_setting_is_refused(given: dict[str, Any], phrase: str) -> None:
    with pytest.raises(JudgeDecodingError) as caught:
        rules_of(**given)
    assert phrase in str(caught.value)


def test_a_head_that_nothing_reads_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(JudgeDecodingError, match="leave one of them out"):
        rules_of(head=str(folders["judge"]), rule="top_k(k=2)")


@pytest.mark.parametrize("value", ["HEAD", 3, ["x"], True])
def test_what_is_no_dictionary_is_refused(value: object) -> None:
    with pytest.raises(JudgeDecodingError, match="give a dictionary"):
        ServerSettings.read(value)


def test_what_a_request_can_say(folders: dict[str, Path]) -> None:
    made = rules_of(rule="judge(threshold=0.7) | top_k(k=2)", head=str(folders["judge"]))
    for nothing in (None, {}, {"else": 1}, {"judge": "on"}, {"judge": True}, {"judge": 1}, {"judge": 1.0}):
        assert made.rule_for(nothing, logprobs=False) is made.rule
        assert made.rule_for(nothing, logprobs=True) is None
    for off in ("off", False, 0, 0.0):
        assert made.rule_for({"judge": off}, logprobs=False) is None
        assert made.rule_for({"judge": off, "judge_threshold": 0.5}, logprobs=False) is None
    lower = made.rule_for({"judge_threshold": 0.25}, logprobs=False)
    assert str(lower) == "judge(threshold=0.25) | top_k(k=2)"
    assert made.rule_for({"judge_threshold": 0.25}, logprobs=False) is lower  # one object groups a batch's requests
    assert isinstance(made.rule_for({"judge_threshold": 0}, logprobs=False).parts[1], TopK)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("extra", "phrase"),
    [
        ({"judge": "maybe"}, 'must be "on" or "off"'), ({"judge": 0.5}, 'must be "on" or "off"'),
        ({"judge": ["off"]}, 'must be "on" or "off"'), ({"judge": None}, 'must be "on" or "off"'),
        ({"judge_threshold": "0.5"}, "a number"), ({"judge_threshold": True}, "a number"),
        ({"judge_threshold": -0.1}, "between 0"), ({"judge_threshold": float("nan")}, "between 0"),
    ],
)  # fmt: skip
def test_what_a_request_cannot_say(folders: dict[str, Path], extra: dict[str, Any], phrase: str) -> None:
    told = rules_of(head=str(folders["judge"])).refusal(extra, logprobs=False, greedy=True)
    assert told is not None
    assert phrase in told


def test_a_threshold_without_a_judge_is_refused() -> None:
    told = rules_of(rule="top_k(k=2)").refusal({"judge_threshold": 0.5}, logprobs=False, greedy=True)
    assert told is not None
    assert "has no judge" in told


def test_log_probabilities_by_the_setting(folders: dict[str, Path]) -> None:
    head = str(folders["judge"])
    assert rules_of(head=head).refusal(None, logprobs=True, greedy=True) is None
    refusing = rules_of(head=head, logprobs="refuse")
    assert "leave logprobs out" in str(refusing.refusal(None, logprobs=True, greedy=True))
    for strict in ({"judge": "off"}, {"judge_threshold": 1}):
        assert refusing.refusal(strict, logprobs=True, greedy=True) is None


def test_rules_that_draw_random_numbers_are_for_temperature_0(folders: dict[str, Path]) -> None:
    for spelling in ("lenience(factor=0.5)", "entropy_gate(entropy=0.2)", "top_k(k=2) | cascade(alpha=0.2)"):
        assert "temperature 0" in str(rules_of(rule=spelling).refusal(None, logprobs=False, greedy=False))
        assert rules_of(rule=spelling).refusal(None, logprobs=False, greedy=True) is None
        assert rules_of(rule=spelling).refusal({"judge": "off"}, logprobs=False, greedy=False) is None
    assert rules_of(head=str(folders["judge"])).refusal(None, logprobs=False, greedy=False) is None


def test_rules_on_draft_probabilities_are_for_higher_temperatures() -> None:
    made = rules_of(rule="kl_judge(tau=0.3)")
    assert "none at temperature 0" in str(made.refusal(None, logprobs=False, greedy=True))
    assert made.refusal(None, logprobs=False, greedy=False) is None


def test_many_thresholds_take_no_memory(folders: dict[str, Path]) -> None:
    made = rules_of(head=str(folders["judge"]))
    for number in range(2500):
        made.rule_for({"judge_threshold": number / 5000}, logprobs=False)
    assert len(made._by_threshold) <= 1000


def test_a_request_can_have_guards_of_its_own() -> None:
    made = rules_of(rule="top_k(k=2)", guards=["strict_start(tokens=8)"])
    assert [repr(one) for one in made.guards_for({"judge": "on"})] == ["strict_start(tokens=8)"]
    own = made.guards_for({"judge_guards": ["budget(tokens=3)", "loop(tokens=4)"]})
    assert [one.name for one in own] == ["budget", "loop"]
    assert [one.name for one in made.guards_for({"judge_guards": "budget(tokens=3)"})] == ["budget"]
    assert made.guards_for({"judge_guards": []}) == ()


@pytest.mark.parametrize(
    ("extra", "phrase"),
    [({"judge_guards": ["budget(tokens=1)", "budget(tokens=2)"]}, "budget is given twice"),
     ({"judge_guards": 3}, "give a list of guards"), ({"judge_guards": [3]}, "give a list of guards"),
     ({"judge_guards": ["bugdet(tokens=3)"]}, "did you mean budget?"), ({"judge_speculation": "no"}, '"on" or "off"')],
)  # fmt: skip
def test_a_request_that_means_nothing_is_refused(extra: dict[str, Any], phrase: str) -> None:
    refused = rules_of(rule="top_k(k=2)").refusal(extra, logprobs=False, greedy=True)
    assert refused is not None
    assert phrase in refused


def test_guards_are_refused_where_they_cannot_work() -> None:
    made, remedy = rules_of(rule="top_k(k=2)"), "start it with --no-async-scheduling"
    guarded = {"judge_guards": ["budget(tokens=3)"]}
    assert made.refusal(guarded, logprobs=False, greedy=True) is None
    assert remedy in (made.refusal(guarded, logprobs=False, greedy=True, unguarded=remedy) or "")
    assert made.refusal(None, logprobs=False, greedy=True, unguarded=remedy) is None


def test_speculation_can_be_off_for_a_request() -> None:
    assert [speculates(one) for one in (None, {}, {"judge": "off"}, {"judge_speculation": "on"})] == [True] * 4
    assert not any(speculates({"judge_speculation": value}) for value in ("off", False, 0))
    made = rules_of(rule="top_k(k=2)")
    assert made.rule_for({"judge_speculation": "off", "judge": "on"}, logprobs=False) is None
    assert made.rule_for({"judge_speculation": "on"}, logprobs=False) is not None


@pytest.mark.parametrize(
    ("extra", "rescued", "greedy", "lossy"),
    [(None, 3, True, True), (None, 0, True, False), (None, 0, False, True), ({"judge": "off"}, 0, False, False),
     ({"judge_speculation": "off"}, 0, False, False), ({"judge_speculation": "off"}, 1, True, True)],
)  # fmt: skip
def test_an_answer_is_marked(extra: dict[str, Any] | None, rescued: int, greedy: bool, lossy: bool) -> None:
    made = rules_of(rule="top_k(k=2)").mark(extra, rescued, logprobs=False, greedy=greedy)
    assert made == {"lossy": lossy, "rescued_tokens": rescued}


def test_a_lossless_rule_marks_no_answer() -> None:
    assert not rules_of(rule="top_k(k=1)").mark(None, 0, logprobs=False, greedy=False)["lossy"]
