"""benchmarks/gpu.py and benchmarks/growth.py on toy shapes. What is compiled for users runs as it is here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

import limits
from judge_decoding.rules import Judge
from limits import Machine

pytestmark = pytest.mark.slow

MACHINE = Machine(bandwidth=1e10, flops=1e11)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, uncompiled: None) -> None:
    monkeypatch.setattr(limits, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(limits, "LEAST_CALLS", 1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import gpu

    monkeypatch.setattr(gpu, "measure_machine", lambda *_: MACHINE)
    return gpu


@pytest.fixture
def growth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import growth

    monkeypatch.setattr(growth, "measure_machine", lambda *_: MACHINE)
    return growth


def test_the_gpu_script_on_toy_shapes(gpu: ModuleType, tmp_path: Path) -> None:
    told = gpu.main(
        ["--tiny", "--levels", "2", "6", "--max-new-tokens", "96", "--repetitions", "2", "--out", str(tmp_path)]
    )
    (rows,) = told["pairs"].values()
    by_name = {row["name"]: row for row in rows}
    judges = [row for row in rows if row["family"] == "judge"]
    assert [row["family"] for row in rows] == ["generate", "plain", "judge", "assisted", "judge", "assisted"]
    assert all(row["tokens"] == 96 and len(row["speeds"]) == 2 for row in rows)
    # Everything is accepted: a forward gives the draft and one token.
    for length in (2, 6):
        forwards = math.ceil(96 / (length + 1))
        assert by_name[f"assisted, M={length}, all accepted"]["tokens_per_forward"] == pytest.approx(96 / forwards)
    assert by_name["plain, static"]["tokens_per_forward"] == 1.0
    assert [row["aim"] for row in judges] == [2, 6]
    assert [row["num_draft_tokens"] for row in judges] == [4, 10]
    assert all(0 <= row["threshold"] <= 1 for row in judges)
    assert judges[0]["accepted_per_round"] < judges[1]["accepted_per_round"]
    for row in [*judges, by_name["plain, static"]]:
        found, accepted = row["limits"], row["accepted_per_round"] or 0.0
        floor = max(found["bytes_seconds"], found["flops_seconds"])
        assert row["of_roofline"] == pytest.approx(floor / found["round"])
        assert row["roofline_tokens_per_second"] == pytest.approx((accepted + 1) / floor)
        calls = row["num_draft_tokens"] * found["t_draft"] + found["t_verify"]
        assert calls > 0
        assert found["efficiency"] > 0
    assert json.loads((tmp_path / "gpu.json").read_text()) == json.loads(json.dumps(told))
    assert (tmp_path / "gpu.md").read_text().count("\n| ") == len(rows) + 1


def test_the_threshold_is_searched_for(gpu: ModuleType) -> None:
    from random_pairs import TINY, llama, prompts

    device = torch.device("cpu")
    drafter, target = (llama(TINY, device, torch.float32, seed) for seed in range(2))
    head = gpu.random_head(target)
    engine = gpu.Engine(target, drafter, head, "static")
    asked = prompts(2, 16, int(TINY["vocab_size"]), device)
    found = []
    for level, count in ((2, 8), (5, 8)):
        loop = gpu.Loop(gpu.ContenderLabel("judge", "static", count), engine, 60, Judge(head, 0.5))
        threshold = gpu.threshold_for(level, loop, head, asked)
        stats, scores = gpu.stats_of(gpu.Loop(loop.label, engine, 60, Judge(head, threshold)), asked)
        assert len(scores) == stats.drafted
        assert stats.accepted_per_round == pytest.approx(level, abs=1.5)
        found.append(threshold)
    assert found[0] > found[1]


def test_a_gpu_is_asked_for(gpu: ModuleType, growth: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a GPU; --tiny"):
        gpu.main([])
    with pytest.raises(SystemExit, match="need a GPU; leave out --shapes"):
        growth.main(["--shapes", "llama-3"])


def test_the_shapes_are_those_of_the_published_models() -> None:
    from random_pairs import LLAMA_1B, LLAMA_8B, llama

    for shape, count in ((LLAMA_1B, 1_235_814_400), (LLAMA_8B, 8_030_261_248)):
        model = llama(shape, torch.device("meta"), torch.bfloat16, 0)
        assert sum(weight.numel() for weight in model.parameters()) == count
        assert model.dtype == torch.bfloat16


def test_growth_on_toy_shapes(growth: ModuleType, tmp_path: Path) -> None:
    asked = "--shapes tiny --lengths 1 3 6 --contexts 16 64 --batches 2 --vocabularies 64 96 --draft-length 2".split()
    told = growth.main([*asked, *"--context 20 --rounds 4 --repetitions 2 --out".split(), str(tmp_path)])
    sizes = {name: [point["size"] for point in found["points"]] for name, found in told["curves"].items()}
    assert sizes == {"draft length": [1, 3, 6], "context": [16, 64], "batch": [2], "vocabulary": [64, 96]}
    for name, found in told["curves"].items():
        points = found["points"]
        assert all(0 < point["low"] <= point["round"] <= point["high"] for point in points)
        assert all(point["bare"] > 0 for point in points)
        expected = [point["model"] for point in points]
        assert expected == sorted(set(expected)), name
        for way in ("round", "bare", "model"):
            assert (found["slopes"][way] is None) == (name == "batch")
            assert found["slopes"][way] == growth.slope(sizes[name], [point[way] for point in points])
    assert json.loads((tmp_path / "growth.json").read_text()) == json.loads(json.dumps(told))
    text = (tmp_path / "growth.md").read_text()
    assert text.count("\n| one more |") == 3
    assert text.count("\n| ") == 4 + 8 + 3
    picture = (tmp_path / "growth.svg").read_text()
    assert all(name in picture for name in sizes)
    assert (tmp_path / "growth.png").stat().st_size > 10_000


def test_growth_measures_the_rounds_it_says(growth: ModuleType) -> None:
    pair = growth.Pair.of(growth.SHAPES["tiny"], 64, torch.device("cpu"), torch.float32)
    loop = growth.Loop(growth.ContenderLabel("exact", "static", 5), pair.engine, 5 * 6, rounds=4)
    answers = growth.clocked(loop, growth.prompts(3, 20, 64, torch.device("cpu")))
    assert [len(rounds) for rounds in answers.rounds] == [4, 4, 4]
    assert all(len(event.draft_ids) == 5 for rounds in answers.rounds for event in rounds)
    assert [len(laps) for laps in answers.laps] == [3, 3, 3]
    plain = growth.Loop(growth.ContenderLabel("plain", "static"), pair.engine, 7).answer(
        growth.prompts(1, 20, 64, torch.device("cpu"))
    )
    assert [len(event.draft_ids) for event in plain.rounds[0]] == [0] * 7


def test_the_cost_model_is_the_longer_of_both_limits(growth: ModuleType) -> None:
    pair = growth.Pair.of(growth.SHAPES["tiny"], 64, torch.device("cpu"), torch.float32)
    place = growth.Place(num_draft_tokens=3, context=10, rows=2, vocab_size=64)
    draft_work, verify = growth.work(pair.draft, 1, 10, 2), growth.work(pair.target, 4, 10, 2)
    by_bytes = growth.model_of(pair, place, Machine(bandwidth=1.0, flops=math.inf))
    assert by_bytes == 3 * draft_work.bytes + verify.bytes
    by_flops = growth.model_of(pair, place, Machine(bandwidth=math.inf, flops=1.0))
    assert by_flops == 3 * draft_work.flops + verify.flops


def test_a_slope_is_what_one_more_costs(growth: ModuleType) -> None:
    assert growth.slope([1, 2, 4], [3.0, 5.0, 9.0]) == pytest.approx(2.0)
    assert growth.slope([1, 2, 3], [1.0, 4.0, 1.0]) == pytest.approx(0.0)
    assert growth.slope([5], [1.0]) is None
