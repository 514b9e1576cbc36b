"""The threshold by the accuracy on a task: hand-made curves, a real decoder, and going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import Case, Exact, Judge, JudgeDecoder, JudgeDecodingError, JudgeHead
from judge_decoding.evaluation.thresholds import calibrate, calibration_items, lowest_threshold
from judge_decoding.tasks import parse_task, read_items
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.tasks.prompts import Prompts
from tiny import random_head

CURVE = [{"threshold": t, "accuracy": a} for t, a in ((0.1, 0.90), (0.3, 0.97), (0.5, 0.95), (0.7, 0.98), (0.9, 0.99))]


@pytest.mark.parametrize(
    ("target", "points", "expected"), [(0.98, 1, 0.3), (0.98, 0, 0.7), (0.99, 0, 0.9), (0.98, 3, 0.3), (0.98, 8, 0.1)]
)
def test_the_lowest_threshold_within_the_points(target: float, points: float, expected: float) -> None:
    assert lowest_threshold(CURVE, target, points) == expected
    assert lowest_threshold(CURVE[::-1], target, points) == expected


def test_no_threshold_may_be_good_enough() -> None:
    with pytest.raises(JudgeDecodingError, match=r"within 0.5 points of the target's 100.0% \(the best has 99.0%\)"):
        lowest_threshold(CURVE, 1.0, 0.5)


def asked(*pairs: tuple[str, str]) -> list[Item]:
    return [Item(str(place), (prompt,), reference) for place, (prompt, reference) in enumerate(pairs)]


def test_items_that_can_be_checked_once_each() -> None:
    task = Prompts("number")
    items = asked(("a", "so 4."), ("b", "none"), ("c", "2, then 3.50"), ("a", "5"))
    first, second = calibration_items(task, items)
    assert (first.turns, second.turns) == (("a",), ("c",))
    assert task.check(first, "3 + 1 = 4.0") is True
    assert task.check(first, "44") is False
    assert task.check(first, "nothing") is False
    assert task.check(second, "3.5") is True
    with pytest.raises(JudgeDecodingError, match="No question of the calibration task has a reference with a result"):
        calibration_items(task, items[1:2])


def test_a_task_without_right_answers_calibrates_nothing() -> None:
    items = [Item("1", ("a",), "4")]
    for task in (parse_task("mt_bench"), parse_task("jsonl"), parse_task("spec_bench")):
        with pytest.raises(JudgeDecodingError, match=f"The task {task.name} cannot be used for calibration"):
            calibration_items(task, items)
    with pytest.raises(JudgeDecodingError, match="not every question has one turn"):
        calibration_items(Prompts(), [Item("1", ("a", "b"), "4")])


def test_questions_are_read_with_or_without_the_rest_of_a_case(tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text(
        '{"question": "a", "reference": "4", "id": 7}\n'
        + Case(question="b", answer="x", reference="5").model_dump_json()
        + "\n"
    )
    assert [(item.turns, item.reference) for item in read_items(Prompts(), path)] == [(("a",), "4"), (("b",), "5")]
    path.write_text('{"question": "a", "reference": "4"}\n{"question": "b"}\n')
    told: list[str] = []
    assert len(read_items(Prompts(), path, on_bad=told.append)) == 1
    assert told == [f"{path}, line 2 has no reference; give a right answer, or remove it."]


class Own(Prompts):
    """An answer is right if it is the reference, space by space."""

    def check(self, item: Item, answer: str) -> bool | None:
        return answer == item.reference


PROMPTS = ("one two", "three", "cat dog", "red", "left right", "good")


@pytest.fixture
def judged(target: LlamaForCausalLM, draft: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, draft, random_head(target, scale=0.05))


def own_words(decoder: JudgeDecoder) -> tuple[PromptFormat, list[Item]]:
    """An answer is right if it is the target's own."""
    own = [decoder.generate(prompt, 10, rule=Exact()).text for prompt in PROMPTS]
    return PromptFormat(Own("text"), max_new_tokens=10), asked(*zip(PROMPTS, own, strict=True))


def head_of(decoder: JudgeDecoder) -> JudgeHead:
    assert decoder.judge is not None
    return decoder.judge


def test_a_head_gets_the_threshold_of_its_curve(judged: JudgeDecoder) -> None:
    head, task, told = head_of(judged), own_words(judged), []
    calibrate(
        judged, head, *task, 20, thresholds=(0.0, 0.5, 1.0), num_draft_tokens=4,
        progress=lambda: told.append(1),
    )  # fmt: skip
    assert len(told) == 4 * len(PROMPTS)
    figures = head.config.calibration
    assert figures["target_accuracy"] == 1.0
    assert [row["threshold"] for row in figures["curve"]] == [0.0, 0.5, 1.0]
    accuracies = [row["accuracy"] for row in figures["curve"]]
    assert accuracies[0] < 0.8
    assert accuracies[2] == 1.0
    assert figures["curve"][0]["accepted_per_round"] > figures["curve"][2]["accepted_per_round"]
    assert head.config.threshold == figures["threshold"] == lowest_threshold(figures["curve"], 1.0, 20)
    assert figures["aim"] == "accuracy=20"
    rule = Judge(head, 0.5)
    alone = [judged.generate(prompt, 10, rule=rule, num_draft_tokens=4).text for prompt in PROMPTS]
    assert accuracies[1] == sum(text == item.reference for item, text in zip(task[1], alone, strict=True)) / len(
        PROMPTS
    )


def test_a_stopped_calibration_goes_on(judged: JudgeDecoder, tmp_path: Path) -> None:
    task, part = own_words(judged), tmp_path / "head" / "calibration.part"

    class Killed(BaseException):
        pass

    told: list[int] = []

    def stop() -> None:
        told.append(1)
        if len(told) == 2 * len(PROMPTS) + 1:
            raise Killed

    settings = {"thresholds": (0.2, 0.5, 1.0), "num_draft_tokens": 4, "batch_size": len(PROMPTS)}
    with pytest.raises(Killed):
        calibrate(judged, head_of(judged), *task, 20, part=part, progress=stop, **settings)  # type: ignore[arg-type]
    lines = part.read_text().splitlines()
    kept = [json.loads(line) for line in lines[1:]]
    assert [row["key"][0] for row in kept] == ["target"] * 6 + ["0.2"] * 6 + ["0.5"]
    assert {row["key"][1] for row in kept[:6]} == {item.key for item in task[1]}
    # What is done is believed, not done again.
    for row in kept[1:6]:
        row["result"]["result"]["correct"] = False
    part.write_text("\n".join([lines[0], *map(json.dumps, kept)]) + "\n")
    again: list[int] = []
    calibrate(
        judged,
        head_of(judged),
        *task,
        20,
        part=part,
        progress=lambda: again.append(1),
        **settings,  # type: ignore[arg-type]
    )
    assert len(again) == 4 * len(PROMPTS)
    assert head_of(judged).config.calibration["target_accuracy"] == 1 / 6
    assert not part.exists()
    resumed = head_of(judged).config.calibration["curve"]
    calibrate(judged, head_of(judged), *task, 20, **settings)  # type: ignore[arg-type]
    assert head_of(judged).config.calibration["curve"] == resumed
    assert head_of(judged).config.calibration["target_accuracy"] == 1


def test_other_references_are_another_task(judged: JudgeDecoder, tmp_path: Path) -> None:
    begun = []
    for reference in ("nonsense", "other"):
        task = Prompts("text")
        rows = asked(*((prompt, reference) for prompt in PROMPTS))
        told: list[int] = []

        def stop(told: list[int] = told) -> None:
            told.append(1)
            if len(told) > len(PROMPTS):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            calibrate(
                judged, head_of(judged), PromptFormat(task, max_new_tokens=4), rows, 0,
                thresholds=(1.0,), part=tmp_path / "part", progress=stop,
            )  # fmt: skip
        begun.append(json.loads((tmp_path / "part").read_text().splitlines()[0])["settings"])
    assert begun[0] != begun[1]


def test_a_file_of_something_else_is_refused(judged: JudgeDecoder, tmp_path: Path) -> None:
    (tmp_path / "part").write_text("[]")
    with pytest.raises(JudgeDecodingError, match="part is not unfinished work of this command in this version"):
        calibrate(judged, head_of(judged), *own_words(judged), 0, thresholds=(1.0,), part=tmp_path / "part")
    assert (tmp_path / "part").read_text() == "[]"


RESULT = {"item": "0", "correct": False, "rounds": 1, "tokens": 1, "accepted": 0}
WRONG = json.dumps({"key": ["target", "0"], "result": {"result": RESULT}})


@pytest.mark.parametrize("content", ["{", f'{{"settings": {{"of": "others"}}}}\n{WRONG}\n'])
def test_the_part_of_something_else_is_not_believed(judged: JudgeDecoder, tmp_path: Path, content: str) -> None:
    (tmp_path / "part").write_text(content)
    calibrate(judged, head_of(judged), *own_words(judged), 0, thresholds=(1.0,), part=tmp_path / "part")
    assert head_of(judged).config.calibration["target_accuracy"] == 1.0
    assert head_of(judged).config.threshold == 1.0
