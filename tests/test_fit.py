"""``judge-decoding fit`` and ``fit_head``: from prompts to a head, in steps that resume."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import Run, ends_in_one_sentence
from judge_decoding import (
    Exact,
    FitConfig,
    FitForecast,
    Fitted,
    Judge,
    JudgeDecoder,
    JudgeDecodingError,
    JudgeHead,
    PromptLookup,
    fit_head,
    read_cases,
)
from judge_decoding.cli.run.fit import how_to_use
from judge_decoding.fit import pipeline
from judge_decoding.io.files import write_json
from judge_decoding.labelling.labels.progress import LabellingProgress as Labels
from judge_decoding.reference import pair
from judge_decoding.reference.pair import prompt_of
from judge_decoding.reference.problems import draw_many
from judge_decoding.report.card_files import card_as_written
from judge_decoding.tasks import read_items
from judge_decoding.tasks.arithmetic import Arithmetic
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.tasks.results import last_number

pytestmark = pytest.mark.slow

PROBLEMS = draw_many(16, "head", 9)  # five are labelled, four choose the threshold
PROMPTS = [prompt_of(problem) for problem in PROBLEMS]
OPTIONS = ("--target", "reference", "--no-chat", "--max-new-tokens", 140, "--batch-size", 20)
# Fewer thresholds and draft lengths than a user would want; one length a way, so that no clock decides anything.
QUICK = partial(
    FitConfig, thresholds=(0.05, 0.9, 1.0), exact_lengths=(4,), judge_lengths=(12,), length_prompts=1,
    timed_prompts=2,
)  # fmt: skip
CONFIG = QUICK(max_new_tokens=140, batch_size=20)


class Killed(BaseException):
    """What no code expects."""


@pytest.fixture(scope="module")
def decoder() -> JudgeDecoder:
    return JudgeDecoder.from_pretrained(pair.TARGET, pair.DRAFT)


@pytest.fixture(scope="module")
def whole(decoder: JudgeDecoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted]:
    """A head of a run that nobody stopped, and what was told of it."""
    out = tmp_path_factory.mktemp("whole") / "head"
    return out, fit_head(decoder, PROMPTS, out, CONFIG)


@pytest.fixture
def made(whole: tuple[Path, Fitted], tmp_path: Path) -> Path:
    """A copy of its work, without the head."""
    shutil.copytree(whole[0].with_name("head.work"), tmp_path / "head.work")
    return tmp_path / "head"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file of prompts without references."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"question": prompt}) + "\n" for prompt in PROMPTS), encoding="utf-8")
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command tries as little as these tests do."""
    monkeypatch.setattr("judge_decoding.cli.run.fit.FitConfig", QUICK)


def rows(out: Path, name: str = "answers") -> list[dict[str, Any]]:
    """The answers that were kept, behind their settings."""
    path = out.with_name("head.work") / f"{name}.jsonl"
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [{"method": row["key"][0], "item": row["key"][1], **row["result"]} for row in found]


def untimed(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without their times, in an order that a stop does not change."""
    for row in answers:
        row["result"]["seconds"] = row["result"].get("seconds") is not None
    return sorted(answers, key=lambda row: (row["method"], int(row["item"])))


def without_speeds(config: dict[str, Any]) -> dict[str, Any]:
    for figures in config["calibration"]["table"]["methods"].values():
        del figures["tokens_per_second"], figures["speedup"]
    return config


def same_head(one: Path, other: Path) -> None:
    """Two heads are one, but for the time that their answers took."""
    heads = [JudgeHead.from_pretrained(path) for path in (one, other)]
    for name, value in heads[0].state_dict().items():
        assert torch.equal(value, heads[1].state_dict()[name]), name
    assert without_speeds(heads[0].config.model_dump()) == without_speeds(heads[1].config.model_dump())


def test_the_table_is_of_the_answers_that_are_kept(decoder: JudgeDecoder, whole: tuple[Path, Fitted]) -> None:
    out, found = whole
    table, head = found.table, found.head
    # Which prompts chose the threshold: those that were not labelled.
    taught = {case.question for case in found.cases}
    task = [prompt for prompt in PROMPTS if prompt not in taught]
    assert found.prompts == len({row["extra"]["prompt"] for row in rows(out)}) <= len(task)
    assert (table.apart, table.length_prompts, table.timed_prompts) == (True, 1, 2)
    assert table.prompts == found.prompts - 1
    kept = {(row["method"], row["extra"]["prompt"]): row for row in rows(out)}
    tuned = {prompt for name, prompt in kept if ", " in name}
    assert {name for name, _ in kept} == {"target", "exact", "judge", "exact, 4 tokens", "judge, 12 tokens"}
    shown = {prompt for name, prompt in kept if name == "judge"}
    assert len(tuned) == 1
    assert len(shown) == table.prompts
    assert not tuned & shown
    own = {row["extra"]["text"] for row in rows(out, "own_answers")}
    ways = {
        "target": lambda prompt: decoder.alone().generate(prompt, 140),
        "exact": lambda prompt: decoder.generate(prompt, 140, rule=Exact(), num_draft_tokens=4),
        "judge": lambda prompt: decoder.generate(prompt, 140, rule=Judge(head), num_draft_tokens=12),
    }  # fmt: skip
    target: Any = decoder.target
    truths = {}
    for prompt in shown:
        ids = decoder.tokenizer(prompt, return_tensors="pt")["input_ids"]
        by_transformers = target.generate(ids, max_new_tokens=140, do_sample=False)[0, ids.shape[1] :]
        truths[prompt] = str(decoder.tokenizer.decode(by_transformers, skip_special_tokens=True))
    for name, answer in ways.items():
        answers = {prompt: answer(prompt) for prompt in shown}
        right = []
        for prompt, one in answers.items():
            right.append(last_number(one.text) == last_number(truths[prompt]))
            row = kept[name, prompt]
            assert row["extra"]["text"] == one.text
            assert row["result"]["correct"] == right[-1]
            assert name != "target" or one.text in own
        figures = table.methods[name]
        assert figures.accuracy == pytest.approx(sum(right) / len(shown))
        rounds, tokens = (sum(getattr(a.stats, of) for a in answers.values()) for of in ("rounds", "tokens"))
        assert figures.accepted_per_round == pytest.approx(sum(a.stats.accepted for a in answers.values()) / rounds)
        assert figures.tokens_per_forward == pytest.approx(tokens / rounds)
        # Each way was timed on the same two prompts, and on no others.
        timed = [row for (way, _), row in kept.items() if way == name and row["result"].get("seconds") is not None]
        assert len(timed) == 2
        assert {row["extra"]["prompt"] for row in timed} == {
            prompt
            for (way, prompt), row in kept.items()
            if way == "target" and row["result"].get("seconds") is not None
        }
        speed = sum(row["result"]["tokens"] for row in timed) / sum(row["result"]["seconds"] for row in timed)
        assert figures.tokens_per_second == pytest.approx(speed)
        assert figures.speedup == pytest.approx(speed / table.methods["target"].tokens_per_second)
    assert table.methods["target"].accepted_per_round == 0
    assert (table.methods["target"].num_draft_tokens, table.methods["exact"].num_draft_tokens) == (0, 4)
    assert head.config.num_draft_tokens == table.methods["judge"].num_draft_tokens == 12
    assert head.config.calibration["table"] == table.to_dict()


def test_the_fastest_draft_length_is_taken(decoder: JudgeDecoder, made: Path) -> None:
    config = QUICK(max_new_tokens=140, batch_size=20, exact_lengths=(1, 4), judge_lengths=(1, 8))
    table = fit_head(decoder, PROMPTS, made, config).table
    speeds: dict[Any, Any] = {}
    for row in rows(made):
        name, at, length = row["method"].removesuffix(" tokens").partition(", ")
        if at:
            tokens, seconds = speeds.get((name, int(length)), (0, 0.0))
            speeds[name, int(length)] = tokens + row["result"]["tokens"], seconds + row["result"]["seconds"]
    assert speeds.keys() == {("exact", 1), ("exact", 4), ("judge", 1), ("judge", 8)}
    for name in ("exact", "judge"):
        fastest = max((t / s, length) for (way, length), (t, s) in speeds.items() if way == name)[1]
        assert table.methods[name].num_draft_tokens == fastest


def test_with_few_prompts_the_table_says_that_they_chose_the_draft_lengths(
    run: Run, quick: None, made: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judge_decoding.cli.run.fit.FitConfig", partial(QUICK, length_prompts=4))
    code, told, err = run("fit", *OPTIONS, "--prompts", prompts, "--out", made)
    assert code == 0, err
    answers = [row for row in rows(made) if row["method"] == "target"]
    tuned = {row["extra"]["prompt"] for row in rows(made) if ", " in row["method"]}
    assert tuned <= {row["extra"]["prompt"] for row in answers}
    assert f"On the {len(answers)} prompts that chose the threshold" in told
    assert "Tokens per second: 2 of these, one at a time" in told
    assert f"Draft lengths: the fastest on {len(tuned)} of these, so the speeds" in told


def test_references_say_what_is_right(decoder: JudgeDecoder, made: Path) -> None:
    # Half of the references are wrong: the target's accuracy is the other half.
    task = [row["extra"]["prompt"] for row in rows(made) if row["method"] == "target"]
    wrong = set(task[::2])
    references = ["no more than 987654321" if prompt in wrong else "" for prompt in PROMPTS]
    table = fit_head(decoder, PROMPTS, made, CONFIG, references=references).table
    assert table.prompts == len(task)
    for name in ("target", "exact"):
        assert table.methods[name].accuracy == pytest.approx(1 - len(wrong) / len(task))


def test_a_task_by_name_chooses_the_threshold(
    decoder: JudgeDecoder, whole: tuple[Path, Fitted], tmp_path: Path
) -> None:
    task = Arithmetic(split="calibration", count=4)
    prompt_format, items = PromptFormat(task, max_new_tokens=140), read_items(task)
    out, config = tmp_path / "head", QUICK(max_new_tokens=140, batch_size=20, length_prompts=1)
    # The labels of the same questions are those of the run without a task.
    teaching, _ = pipeline.divide(PROMPTS, None, CONFIG)
    (tmp_path / "head.work").mkdir()
    for name in ("labels.jsonl", "labels.settings.json"):
        shutil.copy(whole[0].with_name("head.work") / name, tmp_path / "head.work")
    found = fit_head(decoder, teaching, out, config, calibrate_on=(prompt_format, items))
    assert found.labelling is None
    # All prompts are labelled, and the task's alone are in the table.
    about = json.loads((tmp_path / "head.work" / "labels.settings.json").read_text(encoding="utf-8"))
    assert about["questions"] == hashlib.sha256("\0".join(teaching).encode()).hexdigest()
    assert {case.question for case in found.cases} <= set(teaching)
    assert (found.prompts, found.table.prompts, found.table.length_prompts) == (4, 3, 1)
    assert {row["extra"]["prompt"] for row in rows(out)} == {item.turns[0] for item in items}
    own = [decoder.alone().generate(f"Q: {item.turns[0]}\nA:", 140).text for item in items]
    right = [last_number(text) == item.reference for text, item in zip(own, items, strict=True)]
    assert found.head.config.calibration["target_accuracy"] == sum(right) / 4
    assert not any("no reference" in sentence for sentence in found.warnings)
    # None of its questions may be labelled.
    prompts = [*teaching, f"Q: {items[0].turns[0]}\nA:"]
    with pytest.raises(JudgeDecodingError, match="1 of the 4 questions were also used for training"):
        fit_head(decoder, prompts, tmp_path / "other", config, calibrate_on=(prompt_format, items))
    assert not (tmp_path / "other").exists()


def test_a_prompt_inside_one_that_chooses_the_threshold_is_not_labelled() -> None:
    teaching, tuning = pipeline.divide(PROMPTS, None, CONFIG)
    texts = [item.turns[0] for item in tuning]
    # What stands around a prompt decides where it goes: one of these is put beside the labelled ones.
    more = [f"Be brief. {number} {texts[0]}" for number in range(40)]
    again, others = pipeline.divide([*PROMPTS, *more], None, CONFIG)
    assert again == teaching
    assert 0 < len(others) - len(tuning) < len(more)


STOPS = [
    ("loading the models", 0), ("labelling a few prompts for a forecast", 1), ("labelling", 1),
    ("reading the answers", 1), ("fitting", 2), ("the target's own answers", 0), ("calibrating the threshold", 7),
    ("timing draft lengths", 1), ("measuring speed", 4), ("measuring accuracy", 1),
]  # fmt: skip


def test_stopped_at_any_moment_it_gives_what_it_gives_without_a_stop(
    decoder: JudgeDecoder, whole: tuple[Path, Fitted], tmp_path: Path
) -> None:
    out, reached = tmp_path / "head", list[tuple[str, int]]()

    def stop(moment: tuple[str, int], what: str, done: int, total: int) -> None:
        if what == moment[0] and done >= moment[1]:
            reached.append(moment)
            raise KeyboardInterrupt

    counts = []
    for moment in STOPS:
        with pytest.raises(KeyboardInterrupt):
            fit_head(decoder, PROMPTS, out, CONFIG, progress=partial(stop, moment))
        assert not out.exists()
        part = out.with_name("head.work") / "labels.jsonl.part"
        counts.append(len(part.read_text(encoding="utf-8").splitlines()) - 1 if part.exists() else None)
    assert reached == STOPS
    # Nothing is there after the first stop; then the first prompt, three more of the next run's forecast and one of
    # the others; then the labels are whole.
    assert counts == [None, 1, 5, *[None] * 7]
    fit_head(decoder, PROMPTS, out, CONFIG)
    same_head(out, whole[0])
    for name in ("labels.jsonl", "calibration.jsonl", "own_answers.jsonl", "labels.settings.json"):
        mine, theirs = (path.with_name("head.work") / name for path in (out, whole[0]))
        assert mine.read_bytes() == theirs.read_bytes(), name
    assert untimed(rows(out)) == untimed(rows(whole[0]))


@pytest.mark.parametrize("noted", [False, True])
def test_a_kill_as_the_labels_are_written_labels_nothing_again(
    decoder: JudgeDecoder, made: Path, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = made.with_name("head.work")
    mark, labels = work / "labels.settings.json", work / "labels.jsonl"
    about = json.loads(mark.read_text(encoding="utf-8"))
    # As it is just before the labels are written: all of them in the part.
    part = Labels(labels, about["settings"])
    teaching, _ = pipeline.divide(PROMPTS, None, CONFIG)
    for question in teaching:
        part.add(question, [case for case in read_cases(labels) if case.question == question])
    before = labels.read_bytes()
    labels.unlink()
    mark.unlink()
    write = write_json

    def killed(path: Path, value: Any) -> None:
        if noted:
            write(path, value)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_json", killed)
        with pytest.raises(Killed):
            fit_head(decoder, PROMPTS, made, CONFIG)
    assert part.part.exists()
    assert mark.exists() == noted
    monkeypatch.setattr(pipeline, "label_by_equivalence", None)
    fit_head(decoder, PROMPTS, made, CONFIG)
    assert labels.read_bytes() == before
    assert not part.part.exists()


def test_what_is_done_is_not_done_again(
    decoder: JudgeDecoder, whole: tuple[Path, Fitted], made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("generate", "generate_batch"):
        monkeypatch.setattr(JudgeDecoder, name, None)
    again = fit_head(decoder, PROMPTS, made, CONFIG)
    assert again.labelling is None
    assert again.table == whole[1].table
    same_head(made, whole[0])


def test_what_is_logged_is_what_the_head_and_the_table_say(decoder: JudgeDecoder, made: Path) -> None:
    told: list[dict[str, float]] = []

    class Told:
        def log(self, metrics: Mapping[str, float], /, *, step: int | None = None) -> None:
            told.append(dict(metrics))

    fitted = fit_head(decoder, PROMPTS, made, CONFIG, logger=Told())
    figures = fitted.head.config.calibration
    curve = [{f"calibration/{key}": value for key, value in row.items()} for row in figures["curve"]]
    table = [
        {f"table/{name}/{key}": value for key, value in row.items()}
        for name, row in fitted.table.to_dict()["methods"].items()
    ]
    assert told[-len(curve) - len(table) :] == [*curve, *table]
    assert any(figures["auc"] in one.values() for one in told[: -len(curve) - len(table)])


def test_a_start_that_fails_leaves_nothing(decoder: JudgeDecoder, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "head"

    def cannot_load() -> JudgeDecoder:
        raise JudgeDecodingError("Cannot load the model; check the name.")

    without = JudgeDecoder(decoder.target, decoder.tokenizer, PromptLookup())
    for start, message in ((cannot_load, "Cannot load"), (without, "needs a draft model")):
        with pytest.raises(JudgeDecodingError, match=message):
            fit_head(start, PROMPTS, out, CONFIG)
    with pytest.raises(JudgeDecodingError, match="too few to split"):
        fit_head(cannot_load, PROMPTS[:1], out, CONFIG)
    with pytest.raises(JudgeDecodingError, match="9 prompts and 3 references"):
        fit_head(cannot_load, PROMPTS, out, CONFIG, references=[None] * 3)
    with pytest.raises(JudgeDecodingError, match="root folder"):
        fit_head(cannot_load, PROMPTS, "/", CONFIG)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"share": 1.0}, "share is 1; it must be between 0 and 1"),
        ({"points": 101}, "points is 101"),
        ({"result": "nonsense"}, "There is no checker nonsense"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"judge_lengths": ()}, "judge_lengths is empty"),
        ({"exact_lengths": (0, 2)}, "exact_lengths is 0; it must be 1 or more"),
    ],
)
def test_settings_that_make_no_sense(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(JudgeDecodingError, match=message):
        FitConfig(**setting)


def test_the_forecast_can_be_refused(decoder: JudgeDecoder, tmp_path: Path) -> None:
    forecasts = list[FitForecast]()

    def refuse(forecast: FitForecast) -> bool:
        forecasts.append(forecast)
        return False

    with pytest.raises(JudgeDecodingError, match=r"finished work is kept in .*head\.work"):
        fit_head(decoder, PROMPTS, tmp_path / "head", CONFIG, agree=refuse)
    teaching, tuning = pipeline.divide(PROMPTS, None, CONFIG)
    assert len(teaching) + len(tuning) == len(PROMPTS)
    (told,) = forecasts
    assert (told.prompts, told.thresholds) == (len(tuning), 3)
    assert told.seconds > 0
    assert told.labelling.left == len(teaching) - 3
    part = (tmp_path / "head.work" / "labels.jsonl.part").read_text(encoding="utf-8").splitlines()
    assert told.labelling.questions == len(part) - 1 == 3


def test_the_command_gives_the_head_of_the_function(
    run: Run, quick: None, whole: tuple[Path, Fitted], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, args = tmp_path / "head", ("fit", *OPTIONS, "--prompts", prompts, "--out", tmp_path / "head")
    # The cost is told first, and nobody is there to agree to it; what was measured is kept.
    refused = run(*args)
    ends_in_one_sentence(refused, "add --yes")
    assert refused[2].splitlines()[0] == "Labelling a few prompts for a forecast ..."
    assert "3 questions gave" in refused[2]
    assert "target forwards" in refused[2]
    assert not out.exists()
    part = tmp_path / "head.work" / "labels.jsonl.part"
    assert len(part.read_text(encoding="utf-8").splitlines()) == 4  # the settings and three questions
    # With the function's work it has nothing to label: its settings are the function's.
    shutil.copytree(whole[0].with_name("head.work"), tmp_path / "head.work", dirs_exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "label_by_equivalence", None)
        code, told, err = run(*args, "--yes", "--json")
    assert code == 0, err
    same_head(out, whole[0])
    figures = json.loads(told)
    assert figures == {"head": str(out), **whole[1].to_dict(), "methods": figures["methods"]}
    for name, row in figures["methods"].items():
        expected = whole[1].table.to_dict()["methods"][name]
        assert {key: row[key] for key in row if key not in ("tokens_per_second", "speedup")} == {
            key: expected[key] for key in expected if key not in ("tokens_per_second", "speedup")
        }
    assert figures["cases"] == len(read_cases(tmp_path / "head.work" / "labels.jsonl"))
    # There are no references, and few prompts.
    assert any("the target's own answer" in sentence for sentence in figures["warnings"])
    assert any("accuracy is rough" in sentence for sentence in figures["warnings"])
    head = JudgeHead.from_pretrained(out)
    assert head.config.threshold == figures["threshold"]
    assert (out / "README.md").read_text(encoding="utf-8") == card_as_written(head, out)
    decoder = JudgeDecoder.from_pretrained(pair.TARGET, pair.DRAFT, out)
    # Where its threshold is put depends on few prompts; that it tells tokens apart does not.
    exact, judged = (
        decoder.generate(PROMPTS[0], 140, threshold=threshold, num_draft_tokens=16) for threshold in (1.0, 0.05)
    )
    assert judged.stats.accepted_per_round > exact.stats.accepted_per_round

    # Run again, it keeps the head; when that may be replaced, it labels nothing, and says how to use the head.
    ends_in_one_sentence(
        run(*args), "config.json already exists; choose another folder, or replace it with --overwrite"
    )
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "label_by_equivalence", None)
        code, told, err = run(*args, "--overwrite")
    assert code == 0, err
    assert "The labels already exist" in err
    count = figures["calibration_prompts"]
    assert f"On {count - 1} of the {count} prompts that chose the threshold" in told
    assert "Tokens per second: 2 of these, one at a time, the three methods in turn." in told
    assert "Draft lengths: the fastest on 1 other prompt." in told
    for way in ("JudgeDecoder.from_pretrained(", "custom_generate=", "judge-decoding generate "):
        assert way in told
    # No path of this machine, and no command that cannot work.
    assert "vLLM cannot serve the embedded pair" in told
    assert str(pair.TARGET.parent) not in told

    # With other settings the labels are others.
    def labelled(*_: Any, **__: Any) -> None:
        raise JudgeDecodingError("Labelled again.")

    monkeypatch.setattr(pipeline, "label_by_equivalence", labelled)
    ends_in_one_sentence(run(*args, "--seed", 1, "--overwrite"), "Labelled again.")


def test_how_to_use_a_head_has_the_command_for_vllm() -> None:
    told = how_to_use("TARGET", "DRAFT", "my head", 12, chat=True)
    (serve,) = (shlex.split(line) for line in told.splitlines() if "vllm serve " in line)
    assert serve[:3] == ["vllm", "serve", "TARGET"]
    speculative, additional = (
        json.loads(serve[serve.index(name) + 1]) for name in ("--speculative-config", "--additional-config")
    )
    assert speculative == {"method": "draft_model", "model": "DRAFT", "num_speculative_tokens": 12}
    assert additional == {"judge": {"head": "my head"}}


def test_a_user_who_stops_the_command_learns_how_to_go_on(
    run: Run, quick: None, made: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def stopped(step: str, out: Path) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(step, stop)
            code, told, err = run("fit", *OPTIONS, "--prompts", prompts, "--out", out, "--yes", "--overwrite")
        assert (code, told) == (130, "")
        return err.splitlines()[-1]

    kept = f"Stopped: finished work is kept in {made}.work, and the same command resumes."
    for step in ("train_head", "calibrate", "measure_table"):
        assert stopped(f"judge_decoding.fit.pipeline.{step}", made) == kept
    # Before anything is done: as the models are loaded, and in the first prompt.
    for step in ("cli.run.fit.load_decoder", "labelling.labels.equivalence.draft_choices"):
        new = tmp_path / "new" / "head"
        assert stopped(f"judge_decoding.{step}", new) == "Stopped: nothing is kept."
        assert not new.parent.exists()
    code, _, err = run("fit", *OPTIONS, "--prompts", prompts, "--out", made, "--overwrite")
    assert code == 0, err


def test_no_threshold_may_be_good_enough(decoder: JudgeDecoder, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise JudgeDecodingError("No threshold keeps the accuracy.")

    monkeypatch.setattr(pipeline, "calibrate", never)
    with pytest.raises(JudgeDecodingError, match=r"No threshold keeps the accuracy\. The head without a calibrated"):
        fit_head(decoder, PROMPTS, made, CONFIG)
    JudgeHead.from_pretrained(made.with_name("head.work") / "head")
    assert not made.exists()


def test_what_cannot_be_done_ends_in_one_sentence(run: Run, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "head"
    args = ("fit", *OPTIONS, "--prompts", prompts)
    ends_in_one_sentence(run(*args, "--out", out, "--share", "1.5"), "share")
    ends_in_one_sentence(
        run("fit", "--target", tmp_path / "none", "--draft", tmp_path / "x", "--prompts", prompts, "--out", out), "none"
    )
    ends_in_one_sentence(
        run("fit", "--target", pair.TARGET, "--prompts", prompts, "--out", out), "give one with --draft"
    )
    assert not out.parent.exists()
