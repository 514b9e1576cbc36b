"""Methods side by side on the items of a task, on tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import Exact, Judge, JudgeDecoder, JudgeHead, TopK
from judge_decoding.core.results import TARGET, ItemResult
from judge_decoding.data.leaks import check_not_trained_on
from judge_decoding.decoding.sampling import SamplingParams
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.draft_lengths import best_draft_lengths, fastest, split
from judge_decoding.evaluation.evaluate import METHOD, evaluate, fitting, forms, label
from judge_decoding.evaluation.record import RecordedAnswer, ResultRecord
from judge_decoding.evaluation.sweep import candidates, default_rules, every_length, measure, tune
from judge_decoding.evaluation.trial import Method, answers, compare
from judge_decoding.tasks.base import Item, Task, TextMessage
from judge_decoding.tasks.prompt_format import PromptFormat


class Words(Task):
    """An answer is right if it has an even number of letters: about half of them are."""

    name = "words"
    max_new_tokens = 12
    stop = (" cat",)

    def item(self, row: Any, location: str) -> Item:
        return Item(location, (row,))

    def plain(self, messages: Sequence[TextMessage]) -> str:
        return " ".join(message["content"] for message in messages)

    def check(self, item: Item, answer: str) -> bool | None:
        return None if item.key == "unknown" else len(answer.replace(" ", "")) % 2 == 0


ITEMS = [Item(str(i), (text,)) for i, text in enumerate(("one two", "red blue up", "good bad", "seven", "dog left"))]


@pytest.fixture(scope="module")
def decoder(
    target: PreTrainedModel, draft: PreTrainedModel, head: JudgeHead, tokenizer: PreTrainedTokenizerFast
) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=4)


def head_of(decoder: JudgeDecoder) -> JudgeHead:
    assert decoder.judge is not None
    return decoder.judge


@pytest.fixture
def prompt_format() -> PromptFormat:
    return PromptFormat(Words())


def test_answers_are_those_of_the_decoder(decoder: JudgeDecoder, prompt_format: PromptFormat) -> None:
    method = Method(decoder, TopK(3), 5)
    for item, given in zip(ITEMS, answers(method, prompt_format, ITEMS), strict=True):
        own = decoder.generate(item.turns[0], 12, rule=TopK(3), num_draft_tokens=5, stop=" cat")
        assert [one.token_ids for one in given] == [own.token_ids]


def test_each_turn_is_put_after_the_answer_to_the_one_before(
    decoder: JudgeDecoder, prompt_format: PromptFormat
) -> None:
    item = Item("two turns", ("one two", "red"))
    first, second = answers(Method(decoder, Exact(), 4), prompt_format, [item])[0]
    said = prompt_format.bare(first.text)
    assert not said.endswith(" cat")
    again = decoder.generate(f"one two {said} red", 12, rule=Exact(), stop=" cat")
    assert second.token_ids == again.token_ids
    chat = PromptFormat(Words(), chat=True, system="be good")
    assert chat.prompt(item, ["x"]) == [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "x"},
        {"role": "user", "content": "red"},
    ]


def test_an_answer_ends_before_its_stop_string() -> None:
    # The token that completes a stop string may hold more.
    prompt_format = PromptFormat(Words())
    assert prompt_format.bare("one two cat") == "one two"
    assert prompt_format.bare("one two cats") == "one two"
    assert prompt_format.bare("one two") == "one two"
    assert PromptFormat(Words(), chat=True).bare("one cat") == "one cat"


def test_counts_are_of_all_turns_and_the_verdict_of_the_last(
    decoder: JudgeDecoder, prompt_format: PromptFormat
) -> None:
    item = Item("two turns", ("one two", "red"))
    method = Method(decoder, None, 4)
    given = answers(method, prompt_format, [item])[0]
    (found,) = compare({"m": method}, prompt_format, [item])["m"].answers
    assert found.tokens == sum(len(one.token_ids) for one in given)
    assert found.rounds == sum(len(one.rounds) for one in given)
    assert found.accepted == sum(event.accepted for one in given for event in one.rounds)
    assert found.correct is Words().check(item, prompt_format.bare(given[-1].text))
    assert found.seconds is not None


def test_a_turn_that_does_not_fit_ends_its_item(decoder: JudgeDecoder, prompt_format: PromptFormat) -> None:
    context = decoder.target.config.max_position_embeddings
    long = Item("long", ("one", "two " * context))
    (given,) = answers(Method(decoder, Exact(), 4), prompt_format, [long])
    assert len(given) == 1
    (found,) = compare({"m": Method(decoder, Exact(), 4)}, prompt_format, [long])["m"].answers
    assert found.correct is None
    told: list[str] = []
    whole = Item("whole", ("two " * context,))
    assert fitting([ITEMS[0], whole], prompt_format, decoder, told.append) == [ITEMS[0]]
    assert "whole" in told[0]
    with pytest.raises(JudgeDecodingError, match="No question leaves room"):
        fitting([whole], prompt_format, decoder, told.append)


def test_in_batches_the_answers_are_the_same_and_nothing_is_timed(
    decoder: JudgeDecoder, prompt_format: PromptFormat
) -> None:
    methods = {"judge": Method(decoder, Judge(head_of(decoder), 0.4), 4), "exact": Method(decoder, Exact(), 3)}
    alone, together = compare(methods, prompt_format, ITEMS), compare(methods, prompt_format, ITEMS, batch_size=3)
    for name, outcome in alone.items():
        assert [(a.item, a.correct, a.rounds, a.tokens, a.accepted) for a in outcome.answers] == [
            (a.item, a.correct, a.rounds, a.tokens, a.accepted) for a in together[name].answers
        ]
        assert all(a.seconds is None for a in together[name].answers)
        assert outcome.stats == together[name].stats


def test_methods_take_turns(decoder: JudgeDecoder, prompt_format: PromptFormat) -> None:
    order: list[str] = []
    methods = {"a": Method(decoder, Exact(), 2), "b": Method(decoder, Exact(), 3)}
    compare(methods, prompt_format, ITEMS[:3], lambda name, *_: order.append(name))
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_sampled_answers_depend_on_the_item_and_not_on_its_company(
    decoder: JudgeDecoder, prompt_format: PromptFormat
) -> None:
    method = Method(decoder, Exact(), 4, SamplingParams(temperature=1.0, seed=3))
    every = [one[0].token_ids for one in answers(method, prompt_format, ITEMS)]
    assert every[2:] == [one[0].token_ids for one in answers(method, prompt_format, ITEMS[2:])]
    assert len({*every}) > 1
    same = [Item(key, ("one two",)) for key in "ab"]
    first, second = (one[0].token_ids for one in answers(method, prompt_format, same))
    assert first != second


def test_what_is_known_is_not_answered_again(
    decoder: JudgeDecoder, prompt_format: PromptFormat, tmp_path: Path
) -> None:
    methods = {"m": Method(decoder, Exact(), 4)}
    record = ResultRecord(tmp_path / "out", {"a": 1})
    whole = compare(
        methods, prompt_format, ITEMS, lambda name, item, one, __: record.add((name, item.key), RecordedAnswer(one))
    )["m"]
    # A kill in the middle of a line: that answer is lost, those before it are not.
    lines = record.part.read_bytes().split(b"\n")
    record.part.write_bytes(b"\n".join(lines[:4]) + b"\n" + lines[4][:20])
    again = ResultRecord(tmp_path / "out", {"a": 1})
    assert [key for _, key in again.done] == ["0", "1", "2"]
    asked: list[str] = []
    resumed = compare(methods, prompt_format, ITEMS, lambda _, item, *__: asked.append(item.key), known=again.done)["m"]
    assert asked == ["3", "4"]
    assert [(a.item, a.tokens, a.correct) for a in resumed.answers] == [
        (a.item, a.tokens, a.correct) for a in whole.answers
    ]
    with pytest.raises(JudgeDecodingError, match="started with a 1, not 2"):
        ResultRecord(tmp_path / "out", {"a": 2})


def test_evaluate_tells_the_answers_beside_the_targets_own(decoder: JudgeDecoder, prompt_format: PromptFormat) -> None:
    method = Method(decoder, Judge(head_of(decoder), 0.4), 4)
    items = [*ITEMS, Item("two turns", ("one two", "red"), "ref", "kind")]
    samples, outcomes = evaluate(method, prompt_format, items, target="T")
    assert [(s.item, s.turn) for s in samples] == [*((i.key, 1) for i in items), ("two turns", 2)]
    alone = JudgeDecoder(decoder.target, decoder.tokenizer)
    for sample, item in zip(samples, items, strict=False):
        own = alone.generate(item.turns[0], 12, stop=" cat")
        assert (sample.target_text, sample.target_tokens) == (prompt_format.bare(own.text), len(own.token_ids))
        assert sum(len(event.token_ids) for event in sample.rounds) == sample.stats["tokens"]
    verdicts = {name: [one.correct for one in outcome.answers] for name, outcome in outcomes.items()}
    assert [s.correct for s in samples] == [*verdicts[METHOD][:5], None, verdicts[METHOD][5]]
    assert [s.target_correct for s in samples] == [*verdicts[TARGET][:5], None, verdicts[TARGET][5]]
    assert {s.rule for s in samples} == {"judge(threshold=0.4)"}
    assert {s.threshold for s in samples} == {0.4}
    assert (samples[-1].task, samples[-1].category, samples[-1].reference) == ("words", "kind", "ref")
    assert {s.target for s in samples} == {"T"}


def test_an_interrupted_evaluation_comes_to_the_same(
    decoder: JudgeDecoder, prompt_format: PromptFormat, tmp_path: Path
) -> None:
    method = Method(decoder, TopK(2), 4)
    whole, _ = evaluate(method, prompt_format, ITEMS)

    class StopError(Exception):
        pass

    done: list[ItemResult] = []

    def progress(_: str, one: ItemResult) -> None:
        done.append(one)
        if len(done) == 4:
            raise StopError

    with pytest.raises(StopError):
        evaluate(method, prompt_format, ITEMS, record=ResultRecord(tmp_path / "out", {}), progress=progress)
    left: list[str] = []
    samples, _ = evaluate(
        method,
        prompt_format,
        ITEMS,
        record=ResultRecord(tmp_path / "out", {}),
        progress=lambda name, one: left.append(one.item),
    )
    assert len(left) == 2 * len(ITEMS) - 4
    timed = {"seconds", "target_seconds", "stats"}
    assert [s.model_dump(exclude=timed) for s in samples] == [s.model_dump(exclude=timed) for s in whole]


def test_questions_that_were_trained_on_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    plain, chat = PromptFormat(Words()), PromptFormat(Words(), chat=True)
    for prompt_format, trained in ((plain, "RED  blue up"), (chat, "RED  blue up"), (chat, "user red blue up up")):
        with pytest.raises(JudgeDecodingError, match="1 of the 5 questions were also used for training"):
            check_not_trained_on(forms(ITEMS, prompt_format, tokenizer), [trained])
    check_not_trained_on(forms(ITEMS, plain, tokenizer), ["user red blue up up"])


def test_the_usual_baselines_are_among_the_methods(decoder: JudgeDecoder, tokenizer: PreTrainedTokenizerFast) -> None:
    sampling = SamplingParams(seed=1)
    names = [one.name for one in candidates(decoder, default_rules(decoder, [0.5]), sampling)]
    assert names[:2] == [TARGET, "exact"]
    for name in ("top_k(k=2)", "top_k(k=2), matched", "typical(epsilon=0.09, delta=0.3)", "judge(threshold=0.5)"):
        assert name in names
    assert any(name.startswith("kl_judge") for name in names)
    assert f"judge(threshold={decoder.judge.config.threshold})" in names  # type: ignore[union-attr]
    assert len(names) == len({*names})
    # Prompt lookup has no probabilities, which KL needs.
    from judge_decoding.decoding.drafters.simple import PromptLookup

    lookup = JudgeDecoder(decoder.target, tokenizer, PromptLookup())
    assert not any(str(rule).startswith(("kl", "judge")) for rule in default_rules(lookup))


def test_matched_baselines_sample_and_are_verified_without_loss(decoder: JudgeDecoder) -> None:
    found = {one.name: one for one in candidates(decoder, [TopK(2), Exact()], SamplingParams(seed=7))}
    matched = found["top_k(k=2), matched"]
    assert matched.method.rule is not None
    assert matched.method.rule.is_lossless
    assert (matched.method.sampling.temperature, matched.method.sampling.seed) == (1.0, 7)
    assert (matched.family, matched.setting) == ("top_k, matched", "2")
    lossy = found["top_k(k=2)"].method.rule
    assert lossy is not None
    assert not lossy.is_lossless
    assert "exact, matched" not in found


def test_draft_lengths_are_chosen_on_other_items(
    decoder: JudgeDecoder, prompt_format: PromptFormat, tmp_path: Path
) -> None:
    wanted = candidates(decoder, [Exact(), TopK(2)], SamplingParams(seed=1))
    tuning, items = split(ITEMS, 2)
    assert {item.key for item in tuning}.isdisjoint(item.key for item in items)
    assert len(tuning) == 2
    assert len(items) == 3
    record = ResultRecord(tmp_path / "out", {})
    lengths, rows = tune(wanted, (2, 5), prompt_format, tuning, record, lambda *_: None)
    assert lengths.keys() == {one.name for one in wanted[1:]}
    for name, length in lengths.items():
        speeds = {row.num_draft_tokens: row.tokens_per_second or 0 for row in rows if row.name == name}
        assert speeds.keys() == {2, 5}
        assert max(speeds, key=lambda n: speeds[n]) == length
    table = measure(wanted, lengths, prompt_format, items, record, lambda *_: None, margin=0.02)
    assert [row.name for row in table] == [one.name for one in wanted]
    assert all(row.answers == 3 for row in table)
    assert table[0].speedup is None
    assert table[1].difference == 0  # exact says what the target says
    with pytest.raises(JudgeDecodingError, match="none for the table"):
        split(ITEMS, 5)


def test_the_fastest_of_each_kind_is_taken_and_of_equals_the_first() -> None:
    speeds = {"a 1": 3.0, "a 2": 5.0, "a 4": 5.0, "b 1": 2.0, "b 2": 1.0}
    asked: list[list[str]] = []

    def measure_them(names: Sequence[str], _stage: int) -> dict[str, float]:
        asked.append(list(names))
        return {name: speeds[name] for name in names}

    kinds = {"a": ["a 1", "a 2", "a 4"], "b": ["b 1", "b 2"], "none": []}
    assert fastest(kinds, measure_them) == {"a": "a 2", "b": "b 1"}
    assert asked == [list(speeds)]
    # By halves: what was slow at first is out, whatever it would have done later.
    asked.clear()
    assert fastest(kinds, measure_them, 3) == {"a": "a 2", "b": "b 1"}
    assert asked == [list(speeds), ["a 2", "a 4", "b 1"], ["a 2", "b 1"]]


def test_of_equally_fast_draft_lengths_the_shortest_is_taken(
    decoder: JudgeDecoder, prompt_format: PromptFormat
) -> None:
    item, length = ITEMS[0], 5
    methods = {"m": Method(decoder, Exact()), "n": Method(decoder, TopK(2))}
    lengths = {"m": (8, length, 3), "n": (2, 4)}
    seconds = {"m, 3 tokens": 2.0, "m, 5 tokens": 1.0, "m, 8 tokens": 1.0, "n, 2 tokens": 1.0, "n, 4 tokens": 0.5}
    known = {
        (name, item.key): RecordedAnswer(ItemResult(item.key, True, 2, 10, 4, taken)) for name, taken in seconds.items()
    }
    best, outcomes = best_draft_lengths(methods, lengths, prompt_format, [item], known=known)
    assert {name: method.num_draft_tokens for name, method in best.items()} == {"m": length, "n": 4}
    assert (best["m"].rule, best["n"].rule) == (methods["m"].rule, methods["n"].rule)
    assert {name: outcome.seconds for name, outcome in outcomes.items()} == seconds


def test_every_length_is_a_row_of_its_own(decoder: JudgeDecoder) -> None:
    wanted = candidates(decoder, [Exact(), TopK(2)], SamplingParams(seed=1))
    found, lengths = every_length(wanted, (2, 5))
    assert [one.name for one in found][:3] == [TARGET, "exact, 2 tokens", "exact, 5 tokens"]
    assert len(found) == 1 + 2 * 3
    assert lengths["top_k(k=2), 5 tokens"] == 5


def test_labels_are_short(head: JudgeHead) -> None:
    assert label(Exact()) == ("exact", "")
    assert label(Judge(head, 0.7)) == ("judge", "0.7")
    assert label(Judge(head, 0.7) | TopK(2)) == ("judge(threshold=0.7) | top_k(k=2)", "")
