"""The fastest draft length by load, and the option with which vLLM drafts so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from commands import Run
from judge_decoding import JudgeHead
from judge_decoding.core.results import ItemResult, LoadRow, Results, read_results
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.evaluation.loads import best_by_load, lengths_by_load, schedule, steps, vllm_option
from judge_decoding.evaluation.record import ResultRecord
from judge_decoding.evaluation.trial import Method
from judge_decoding.report.page import results_page
from judge_decoding.report.results import loads_table, vllm_options
from judge_decoding.rules import Exact
from judge_decoding.tasks.prompt_format import PromptFormat
from samples import HOSTILE
from test_evaluate_cli import few  # noqa: F401  (a fixture)
from test_report_plots import ROWS
from test_trial import ITEMS, Words


def rows(name: str, speeds: dict[tuple[int, int], float]) -> list[LoadRow]:
    return [
        LoadRow(name=name, batch_size=size, num_draft_tokens=length, tokens_per_second=speed)
        for (size, length), speed in speeds.items()
    ]


MEASURED = [
    *rows("exact", {(1, 0): 10, (1, 4): 20, (1, 8): 25, (4, 0): 40, (4, 4): 60, (4, 8): 50, (16, 0): 99, (16, 4): 90}),
    *rows("top_k(k=2)", {(1, 0): 10, (1, 4): 10, (4, 0): 40, (4, 4): 39, (16, 0): 99, (16, 4): 98}),
]


def test_the_fastest_length_is_chosen_and_the_shortest_on_a_tie() -> None:
    assert best_by_load(MEASURED) == {"exact": {1: 8, 4: 4, 16: 0}, "top_k(k=2)": {1: 0, 4: 0, 16: 0}}


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ({1: 16, 4: 8, 8: 4}, [(1, 3, 16), (4, 7, 8), (8, 8, 4)]),
        ({1: 16, 4: 16, 8: 4}, [(1, 7, 16), (8, 8, 4)]),
        ({4: 8, 32: 0}, [(1, 31, 8), (32, 32, 0)]),
        ({2: 3}, [(1, 2, 3)]),
    ],
)
def test_a_length_holds_up_to_the_next_load(best: dict[int, int], expected: list[tuple[int, int, int]]) -> None:
    assert schedule(best) == expected


def test_vllms_keys_are_the_fewest_that_say_it() -> None:
    assert vllm_option({1: 16, 4: 8}) == {
        "num_speculative_tokens": 16, "num_speculative_tokens_per_batch_size": [(1, 3, 16), (4, 4, 8)]
    }  # fmt: skip
    assert vllm_option({1: 8, 4: 8}) == {"num_speculative_tokens": 8}
    assert vllm_option({1: 0, 4: 0}) == {}
    assert vllm_options(MEASURED) == [
        'exact: the option for vLLM is --speculative-config \'{..., "num_speculative_tokens": 8, '
        '"num_speculative_tokens_per_batch_size": [[1, 3, 8], [4, 15, 4], [16, 16, 0]]}\'',
        "top_k(k=2): no draft pays at batch size 1 and 4 and 16; serve the target alone, without --speculative-config.",
    ]


def test_the_table_has_a_line_for_each_method_and_load() -> None:
    titles, lines = loads_table(MEASURED[:6])
    assert titles[2:] == ["draft\nlength\n0", "draft\nlength\n4", "draft\nlength\n8", "fastest"]
    assert lines == [["exact", "1", "10", "20", "25", "8"], ["exact", "4", "40", "60", "50", "4"]]


def test_a_page_with_loads_is_escaped() -> None:
    named = [one.model_copy(update={"name": HOSTILE}) for one in MEASURED[:6]]
    page = results_page(Results(rows=tuple(ROWS), loads=tuple(named)))
    assert HOSTILE not in page
    assert "Tokens per second by load and draft length" in page


def test_every_batch_is_full_and_what_is_recorded_is_not_decoded_again(
    target: PreTrainedModel, draft: PreTrainedModel, head: JudgeHead, tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    decoder = JudgeDecoder(target, tokenizer, draft, head)
    methods = {"exact": Method(decoder, Exact()), "judge": Method(decoder)}
    batches: list[tuple[int, int | None, int]] = []
    generate = JudgeDecoder.generate_batch

    def watch(self: JudgeDecoder, prompts: Any, budget: Any, **options: Any) -> Any:
        batches.append((budget, options["num_draft_tokens"], len(prompts)))
        return generate(self, prompts, budget, **options)

    monkeypatch.setattr(JudgeDecoder, "generate_batch", watch)

    monkeypatch.setattr("judge_decoding.evaluation.loads.WARM_UP", 4)

    def measured() -> list[LoadRow]:
        batches.clear()
        done: list[ItemResult] = []
        record = ResultRecord(tmp_path / "results.json", {})
        found = lengths_by_load(
            methods, (2, 5), (1, 3), PromptFormat(Words(), max_new_tokens=12), ITEMS, record=record,
            progress=lambda _, one: done.append(one),
        )  # fmt: skip
        assert len(done) == steps(methods, (2, 5), (1, 3), ITEMS) == 5 * (5 + 2)
        return found

    first = measured()
    assert {size for budget, _, size in batches if budget == 12} == {1, 3}  # 5 items: the last batch is filled up
    for length, ways in ((None, 1), (2, 2), (5, 2)):
        assert batches.count((12, length, 1)) == 5 * ways
        assert batches.count((12, length, 3)) == 2 * ways
    assert [(row.name, row.batch_size, row.num_draft_tokens) for row in first] == [
        (name, size, length) for size in (1, 3) for name in methods for length in (0, 2, 5)
    ]
    assert all(row.tokens_per_second > 0 for row in first)
    alone = [row.tokens_per_second for row in first if not row.num_draft_tokens]
    assert alone[0] == alone[1]
    assert alone[2] == alone[3]
    assert measured() == first
    assert batches == []


def test_a_sweep_measures_loads_and_prints_vllms_option(
    run: Run,
    few: None,  # noqa: F811
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    data, out = tmp_path / "questions.jsonl", tmp_path / "o"
    data.write_text("".join(json.dumps({"question": item.turns[0], "answer": "red"}) + "\n" for item in ITEMS))
    code, said, err = run(
        "sweep", "--task", "jsonl(checker=exact, reference=answer)", "--data", data, "--target", folders["target"],
        "--draft", folders["draft"], "--judge", folders["judge"], "--max-new-tokens", 6, "--no-chat", "--tune", 2,
        "--threshold", 0.3, "--num-draft-tokens", 2, "--num-draft-tokens", 4, "--batch-size", 1, "--batch-size", 2,
        "--out", out,
    )  # fmt: skip
    assert code == 0, err
    loads = read_results(out / "results.json").loads
    names = list(dict.fromkeys(row.name for row in loads))
    assert names[:2] == ["exact", "judge(threshold=0.5)"]
    assert [(row.batch_size, row.num_draft_tokens) for row in loads if row.name == "exact"] == [
        (size, length) for size in (1, 2) for length in (0, 2, 4)
    ]
    flat = " ".join(said.split())
    for sentence in vllm_options(loads):
        assert sentence in flat
    assert "num_speculative_tokens" in said or "serve the target alone" in said
    assert "by load and draft length" in (out / "sweep.html").read_text()


def test_a_batch_size_below_one_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, err = run("sweep", "--task", "arithmetic", "--target", "reference", "--batch-size", 0, "--out", tmp_path)
    assert code == 2
    assert "--batch-size" in err
