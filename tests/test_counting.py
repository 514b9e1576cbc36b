"""The two ways to count, and Spec-Bench's answer format; hand-counted on a model that counts 0, 1, 2, ... 11, 0, ..."""

from __future__ import annotations

import json
from statistics import mean

import pytest

from judge_decoding import Generation, JudgeDecodingError, Round, Stats
from judge_decoding.core.results import ResultRow
from judge_decoding.evaluation.spec_bench import answer_line
from judge_decoding.tasks import Item
from samples import known
from test_loop_counts import Keeps, drafts
from tiny import run, successor

END = 6


def counted(*plan: list[int], prompt: int = 3, budget: int = 20, most: int = 4) -> list[Round]:
    """The rounds of an answer that goes on counting from ``prompt`` to 6, its end; a draft a round."""
    options = {"num_draft_tokens": most, "max_new_tokens": budget, "end_ids": [END]}
    return run(successor(), drafts(*plan) if plan else None, [prompt], Keeps(9), **options)


# From 3 the target says 4, 5, 6, the end. Each row: the rounds, tokens a forward, accepted ones a round, and the share
# of rounds that ended in their draft.
HAND_COUNTED = {
    # Plain decoding: three forwards, a token each.
    "plain": (counted(), 3 / 3, 0 / 3, 0),
    # 4 5 + the target's 6.
    "bonus": (counted([4, 5]), 3 / 1, 2 / 1, 0),
    # 4 + the target's 5 for the 8; + the target's 6 alone.
    "correction": (counted([4, 8], []), 3 / 2, 1 / 2, 0),
    # 4 5 6: the end is the draft's, so that no token of the target follows; the 7 behind it counts nowhere.
    "end inside the draft": (counted([4, 5, 6, 7]), 3 / 1, 3 / 1, 1),
    # The same, its last token; what is behind it would be a bonus.
    "end closes the draft": (counted([4], [6]), 3 / 2, 2 / 2, 1 / 2),
    # 9 is rescued, + the target's 10; then 11 accepted, + the target's 0.
    "rescued": (counted([9], [11], budget=4), 4 / 2, 2 / 2, 0),
    # A budget of 2 leaves room for a draft of one, and the target's own token.
    "budget": (counted([4], budget=2), 2 / 1, 1 / 1, 0),
    # A draft that is longer than it was asked to be is cut where the budget ends.
    "budget inside the draft": (counted([4, 5, 6], budget=2), 2 / 1, 2 / 1, 1),
    # Two turns: 3 tokens in 1 forward and 3 in 2. The forwards count, not the turns: 6 / 3, and not (3 + 1.5) / 2.
    "turns": (counted([4, 5]) + counted([4, 8], []), 6 / 3, 3 / 3, 0),
}


def row_of(stats: Stats) -> ResultRow:
    """The row of a table that has the figures of these rounds."""
    return ResultRow(
        name="judge", rule="judge", num_draft_tokens=4, rounds=stats.rounds, tokens=stats.tokens,
        accepted=stats.accepted, accepted_per_round=stats.accepted_per_round,
        tokens_per_forward=stats.tokens_per_forward,
    )  # fmt: skip


@pytest.mark.parametrize("name", HAND_COUNTED)
def test_both_ways_as_counted_by_hand(name: str) -> None:
    rounds, tokens, accepted, ended = HAND_COUNTED[name]
    found = row_of(Stats.of(rounds))
    assert (found.tokens_per_forward, found.accepted_per_round, found.ended_in_draft) == (tokens, accepted, ended)
    assert found.tokens_per_forward == pytest.approx(accepted + 1 - found.ended_in_draft)


def test_nothing_counts_nothing() -> None:
    found = row_of(Stats())
    assert (found.tokens_per_forward, found.accepted_per_round, found.ended_in_draft) == (0, 0, 0)


def answer(text: str, rounds: list[Round], seconds: float = 0.5) -> Generation:
    return Generation(text, (), tuple(rounds), seconds, "stop", Stats.of(rounds), ())


def test_spec_bench_reads_our_runs() -> None:
    """The line in its format; its mean over accept_lengths is ours, and so are tokens and steps."""
    item = Item("81", ("Write.", "Shorter."), category="writing")
    turns = [answer(" four five\n", counted([4, 5])), answer("é", counted([4, 8], []), 0.25)]
    line = answer_line(item, turns, "ours", when=7.5)
    assert line.endswith("\n")
    found = json.loads(line)
    name = found.pop("answer_id")
    assert found == {
        "question_id": 81,
        "category": "writing",
        "model_id": "ours",
        "choices": [
            {"index": 0, "turns": ["four five", "é"], "decoding_steps": [1, 2], "new_tokens": [3, 3],
             "wall_time": [0.5, 0.25], "accept_lengths": [3, 2, 1]}
        ],
        "tstamp": 7.5,
    }  # fmt: skip
    assert json.loads(answer_line(item, turns, "ours"))["answer_id"] == name != ""
    assert json.loads(answer_line(item, turns, "others"))["answer_id"] != name
    assert json.loads(answer_line(item, turns, "ours"))["tstamp"] > 1.7e9
    stats = Stats.of([*turns[0].rounds, *turns[1].rounds])
    assert mean(found["choices"][0]["accept_lengths"]) == stats.tokens_per_forward


def test_a_file_of_samples_can_be_exported_too() -> None:
    sample = known(seconds=2.0)
    (choice,) = json.loads(answer_line(Item("a", ("What?",)), [sample], "m"))["choices"]
    assert (choice["accept_lengths"], choice["new_tokens"], choice["wall_time"]) == ([4, 3], [7], [2.0])


def test_answers_without_times_are_refused() -> None:
    for one in (answer("x", counted([4, 5]), 0.0), known(seconds=None)):
        sentence = r"question 9 have no individual times.* decode them one at a time"
        with pytest.raises(JudgeDecodingError, match=sentence):
            answer_line(Item("9", ("What?",)), [one], "m")
