"""``judge-decoding bench`` as a user meets it."""

from __future__ import annotations

import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from commands import Run, ends_in_one_sentence
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.bench import vllm
from judge_decoding.evaluation.bench.contenders import ContenderLabel
from judge_decoding.evaluation.bench.results import BenchResults, BenchRow, Ratio
from judge_decoding.report.bench import bench_markdown, notes, show

TEXTS = ("one two", "red blue up", "good bad", "seven", "dog left", "up down", "six", "ten cat")


@pytest.fixture
def options(tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setattr("judge_decoding.evaluation.bench.plan.LENGTHS", (2, 4))
    monkeypatch.setattr("judge_decoding.evaluation.bench.plan.CONFIDENT_LENGTHS", (8,))
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in TEXTS))
    return [
        "--task", "jsonl", "--data", path, "--target", folders["target"], "--draft", folders["draft"],
        "--max-new-tokens", 5, "--no-chat", "--limit", 2, "--tune", 1, "--repetitions", 1, "--backend", "eager",
    ]  # fmt: skip


def figures(run: Run, *args: object) -> dict[str, Any]:
    code, out, err = run("bench", *args, "--json")
    assert code == 0, err
    return json.loads(out)


@pytest.mark.slow
def test_every_way_has_a_row(run: Run, options: list[object], folders: dict[str, Path], tmp_path: Path) -> None:
    told = figures(
        run, *options, "--judge", folders["judge"], "--num-draft-tokens", 3, "--batch-size", 1, "--batch-size", 2,
        "--limit", 3, "--tune", 2, "--repetitions", 2, "--out", tmp_path / "o",
    )  # fmt: skip
    assert json.loads((tmp_path / "o" / "results.json").read_text()) == told
    assert "| way |" in (tmp_path / "o" / "bench.md").read_text()
    assert (told["prompts"], told["tuned_on"], told["repetitions"], told["max_new_tokens"]) == (3, 2, 2, 5)
    families = {size: [row["family"] for row in told["rows"] if row["batch_size"] == size] for size in (1, 2)}
    exact = ["exact"] * (families[1].count("exact"))
    assert families[1][:3] == ["generate", "plain", "assisted"]
    assert families[1].count("assisted") == families[2].count("judge") + 2 == len(exact) + 1 == 4
    assert families[2] == ["generate", "plain", *exact, *["judge"] * 2]
    for row in told["rows"]:
        assert len(row["speeds"]) == 2
        assert row["low"] <= row["tokens_per_second"] <= row["high"]
        assert row["same_tokens"] == (row["family"] != "judge")
        if row["same_tokens"]:
            assert row["unlike"] == 0, row["name"]
    assert told["left_out"].keys() == {"assisted, batch size 2", "vllm"}
    assert told["command"][1] == "bench"
    assert told["machine"]
    same = {row["tokens"] for row in told["rows"] if row["same_tokens"]}
    assert len(same) == 1


def test_a_target_alone_is_measured_too(run: Run, options: list[object]) -> None:
    place = options.index("--draft")
    told = figures(run, *options[:place], *options[place + 2 :])
    assert [row["name"] for row in told["rows"]] == ["generate", "plain, eager"]
    assert [(one["of"], one["over"]) for one in told["comparisons"]] == [("plain, eager", "generate")]


def test_the_draft_can_be_the_targets_first_layers(run: Run, options: list[object]) -> None:
    place = options.index("--draft")
    told = figures(run, *options[:place], *options[place + 2 :], "--draft-layers", 1)
    assert told["draft"] == "its first 1 layers"
    assert {row["family"] for row in told["rows"]} == {"generate", "plain", "assisted", "exact"}
    assert not any(row["unlike"] for row in told["rows"])


def test_the_tables_are_for_people(run: Run, options: list[object]) -> None:
    code, out, err = run("bench", *options)
    assert code == 0, err
    for phrase in ("Batch size 1", "least, most", "Ratios", "Every way but the judge gave the tokens"):
        assert phrase in out


def test_a_way_with_other_tokens_is_named(run: Run, options: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    from judge_decoding.evaluation.bench.contenders import OwnLoop

    right = OwnLoop.answer

    def wrong(self: Any, prompts: Any) -> Any:
        given = right(self, prompts)
        if self.label.family != "plain":
            return given
        from dataclasses import replace

        return replace(given, tokens=tuple((5, *tokens[1:]) for tokens in given.tokens))

    monkeypatch.setattr(OwnLoop, "answer", wrong)
    code, out, err = run("bench", *options)
    assert code == 0, err
    assert "NOT the tokens of plain greedy decoding: plain, eager at batch size 1, 2 of 2 prompts." in out
    assert "Every way but" not in out


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        (("--backend", "fast"), "it must be eager or static"),
        (("--draft-layers", 1), "give one of them"),
        (("--task", "jsn"), "no task jsn"),
        (("--tune", 8, "--limit", 1), "leaves none for the table"),
    ],
)
def test_what_is_wrong_is_one_sentence(run: Run, options: list[object], more: tuple[object, ...], phrase: str) -> None:
    ends_in_one_sentence(run("bench", *options, *more), phrase)


def test_too_many_layers_are_one_sentence(run: Run, options: list[object]) -> None:
    place = options.index("--draft")
    ends_in_one_sentence(run("bench", *options[:place], *options[place + 2 :], "--draft-layers", 2), "take from 1 to 1")


def results(**more: Any) -> BenchResults:
    one = Ratio(of="exact", over="generate", batch_size=1, medians=2.0, paired=2.5, low=1.0, high=3.0)
    row = BenchRow(
        name="exact, static, M=8, best", family="exact", batch_size=1, num_draft_tokens=8, same_tokens=True, unlike=0,
        tokens=9, tokens_per_second=100.4, low=90, high=110, speeds=(90, 100.4, 110), over_generate=one,
        accepted_per_round=3.2, tokens_per_forward=4.1,
    )  # fmt: skip
    return BenchResults(rows=(row,), comparisons=(one,), **more)


def test_a_table_fits_80_columns() -> None:
    target = io.StringIO()
    show(results(), Console(file=target, width=80))
    text = target.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for cell in ("100 [90, 110]", "2.00x", "2.50x [1.00, 3.00]", "3.20", "4.10"):
        assert cell in text


def test_notes_tell_what_must_not_be_missed() -> None:
    told = " ".join(notes(results(left_out={"vllm": "it is not there"})))
    assert "Left out: vllm: it is not there." in told


def test_results_of_this_and_of_earlier_versions_are_read() -> None:
    """Those had a round's parts, its limits and the machine's speed, too, which are left aside."""
    text = (Path(__file__).parents[1] / "benchmarks" / "results" / "bench" / "results.json").read_text()
    earlier = json.loads(text) | {"bandwidth": 25.2e9, "peak_flops": 69e9}
    earlier["rows"] = [row | {"limits": {"efficiency": 0.9}, "memory": None} for row in earlier["rows"]]
    for given in (text, json.dumps(earlier)):
        found = BenchResults.model_validate_json(given)
        assert len(found.rows) == len(earlier["rows"]) > 10
        assert "over generate" in bench_markdown(found)


def test_the_page_is_markdown_with_nothing_foreign_in_it() -> None:
    page = bench_markdown(results(task="[x](http://y)", target="<b>", command=("bench", "`x`")))
    assert "<b>" not in page.replace(r"\<b\>", "")
    assert "| exact, static, M=8, best | 100 \\[90, 110\\] | 2.00x |" in page


FAKE_VLLM = """
class SamplingParams:
    def __init__(self, **given): self.given = given
class Out:
    def __init__(self, ids): self.token_ids = ids
class Made:
    def __init__(self, ids): self.outputs = [Out(ids)]
class LLM:
    def __init__(self, **given):
        print("vllm prints where it likes")
        if given["model"] == "none": raise ValueError("no such model")
    def generate(self, prompts, params, use_tqdm):
        if len(prompts) > 2: raise RuntimeError("out of memory")
        return [Made([p["prompt_token_ids"][-1] + 1, *params.given["stop_token_ids"], 9]) for p in prompts]
"""


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vllm.VllmSettings:
    import sys

    (tmp_path / "vllm.py").write_text(FAKE_VLLM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return vllm.VllmSettings(sys.executable, "some", "float32", 64, 4, 8, frozenset([2]), 1)


def test_vllm_answers_from_a_process_of_its_own(fake_vllm: vllm.VllmSettings) -> None:
    import torch

    assert vllm.interpreter(fake_vllm.python) == fake_vllm.python
    with closing(vllm.VLLM(ContenderLabel("vllm"), fake_vllm)) as way:
        for _ in range(2):
            given = way.answer([torch.tensor([4, 5]), torch.tensor([7])])
            assert given.tokens == ((6, 2), (8, 2))
            assert given.seconds > 0
        with pytest.raises(JudgeDecodingError, match="vLLM ended: RuntimeError: out of memory"):
            way.answer([torch.tensor([4])] * 3)


def test_an_engine_that_does_not_start_says_why(fake_vllm: vllm.VllmSettings) -> None:
    from dataclasses import replace

    with pytest.raises(JudgeDecodingError, match="vLLM ended: ValueError: no such model"):
        vllm.VLLM(ContenderLabel("vllm"), replace(fake_vllm, target="none"))


def test_vllm_is_a_row_like_the_others(
    run: Run, options: list[object], fake_vllm: vllm.VllmSettings, tmp_path: Path
) -> None:
    code, out, err = run("bench", *options, "--vllm-python", fake_vllm.python, "--out", tmp_path / "o")
    assert code == 0, err
    told = json.loads((tmp_path / "o" / "results.json").read_text())
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["vllm"]["unlike"] == 2  # it says something else
    assert "vllm, M=2, exact" in rows or "vllm, M=4, exact" in rows
    assert "NOT the tokens of plain greedy decoding: vllm at batch size 1, 2 of 2 prompts." in out


def test_vllm_gets_draft_and_judge(fake_vllm: vllm.VllmSettings) -> None:
    from dataclasses import replace

    told = replace(fake_vllm, draft="d", num_draft_tokens=5, judge="j").engine()
    assert told["speculative_config"] == {"method": "draft_model", "model": "d", "num_speculative_tokens": 5}
    assert told["additional_config"] == {"judge": {"head": "j"}}
    assert fake_vllm.engine().keys().isdisjoint({"speculative_config", "additional_config"})
    assert fake_vllm.environment()["OMP_NUM_THREADS"] == "1"
