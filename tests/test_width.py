"""What a terminal of 80 columns shows: no number is broken, no line is cut, and a sweep ends with its best setting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress, ProgressColumn

from commands import Run
from judge_decoding.cli.console import progress
from judge_decoding.cli.run import showing
from judge_decoding.core.results import MATCHED, ItemResult, ResultRow, Results
from judge_decoding.core.rounds import Cause
from judge_decoding.intervals import fewest_digits, short_numbers
from judge_decoding.report.results import COMPARISON, cells, fastest_line, plain_table, results_tables
from judge_decoding.report.terminal import legend, worked_example
from judge_decoding.report.verdicts import ShownRound, ShownToken
from judge_decoding.serving.recipe import packaged

LONG = "judge(threshold=0.8466737270355225) | top_k(k=4)"


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def row(name: str, *, speed: float, good: bool | None, rule: str = "judge") -> ResultRow:
    """A row with intervals as wide as they come."""
    given: dict[str, Any] = {
        "accuracy": 0.75, "accuracy_low": 0.686, "accuracy_high": 0.805, "difference": -0.04, "difference_low": -0.0912,
        "difference_high": 0.0123, "mcnemar_p": 0.000123, "non_inferior": good,
    } if good is not None else {}  # fmt: skip
    return ResultRow(
        name=name, rule=rule, num_draft_tokens=12, answers=1000, tokens_per_forward=speed + 1, speedup=speed,
        speedup_low=speed - 0.1, speedup_high=speed + 0.1, tokens_per_second=1234.5, accepted_per_round=speed, **given,
    )  # fmt: skip


def results(*rows: ResultRow) -> Results:
    return Results(task="gsm8k", items=1000, margin=0.02, rows=rows)


def lines(*shown: object, width: int = 80) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as told:
        for one in shown:
            console.print(one)
    return [line.rstrip() for line in told.get().splitlines()]


@pytest.mark.parametrize("recipe", sorted(packaged()))
def test_a_plan(run: Run, recipe: str) -> None:
    out = run("plan", recipe, columns=80)[1]
    assert "…" not in out
    wide = [line for line in out.splitlines() if len(line) > 80]
    assert [line.split()[:2] for line in wide] == [["judge-decoding", "fit"]]


def test_tables_of_results_and_the_line_below_them() -> None:
    rows = (
        row("exact", speed=1.5, good=True), row(LONG, speed=3.5, good=True), row("typical", speed=5, good=False),
        row(f"typical{MATCHED}", speed=6, good=True, rule=f"typical{MATCHED}"),
    )  # fmt: skip
    told = lines(*results_tables(results(*rows)))
    assert max(map(len, told)) <= 80
    assert sum("75.0% [68.6, 80.5]" in line for line in told) == 4
    assert sum("-4.0 [-9.1, +1.2]" in line for line in told) == 4
    assert not any("84667370" in line for line in told)
    assert fastest_line(results(*rows)) == (
        "Fastest setting shown non-inferior with a margin of 2 percentage points: judge(threshold=0.8466737) | "
        "top_k(k=4), draft length 12: 3.50x, accuracy -4.0 [-9.1, +1.2] points."
    )
    assert fastest_line(results(rows[2])).startswith("No setting is shown to be non-inferior")
    assert fastest_line(results(row("exact", speed=2, good=None))) == ""


def full(name: str) -> ResultRow:
    """A row with a figure in every column, each as wide as it comes."""
    more = {"acceptance_rate": 1.0, "acceptance_by_position": (1.0,) * 3, "cut_off": 1000, "non_inferior": False}
    return row(name, speed=13.5, good=True).model_copy(
        update={**more, "accuracy": 1.0, "accuracy_low": 0.722, "accuracy_high": 1.0, "difference_low": -0.763}
    )


def test_names_of_a_sweep_stand_in_all_of_its_tables_and_fold_between_words() -> None:
    """With every figure there is, as wide as it comes."""
    names = [
        "target alone", "exact", "typical(epsilon=0.09, delta=0.3)", f"typical(epsilon=0.09, delta=0.3){MATCHED}",
        "kl_judge(tau=0.3, confidence=0.9)", "judge(threshold=0.95)", f"margin_ratio(k=3, ratio=0.5){MATCHED}",
        "running_surprise(epsilon=2, beta=0.2)", "entropy_gate(entropy=0.3, window=6)", LONG,
    ]  # fmt: skip
    tables = results_tables(results(*map(full, names)))
    assert len(tables) == 3
    for table in tables:
        told = lines(table)
        assert max(map(len, told)) <= 80
        assert not any("…" in line for line in told)
        first = [str(cell) for cell in table.columns[0].cells]
        assert [" ".join(cell.split()).replace("( ", "(") for cell in first] == [*map(short_numbers, names)]
        for cell in first:
            assert all(line in "\n".join(told) for line in cell.splitlines())
        for column in table.columns[1:]:
            assert all(str(cell) in "\n".join(told) for cell in column.cells)


def test_a_round_wraps_with_its_indent() -> None:
    tokens = tuple(ShownToken(f" word{i}", Cause.AGREED) for i in range(30))
    told = lines(worked_example([ShownRound(tokens, " more", 30), ShownRound(tokens[:2], "", 1)]))
    assert told[0].startswith("  1  30 accepted │ word0")
    assert all(line.startswith(" " * 18) for line in told[1:-1])
    assert told[-1] == "  2   1 accepted │ word0 word1"


def test_a_legend_wraps_with_its_indent() -> None:
    told = lines(legend(rejected=True))
    assert [line.split()[0] for line in told if not line.startswith(" ")] == [
        "agreed", "«rescued»", "{correction}", "(bonus)", "✗struck",
    ]  # fmt: skip
    assert max(map(len, told)) <= 80
    assert all(line.startswith(" " * len("{correction}  ")) for line in told if line.startswith(" "))


def test_a_threshold_has_the_digits_that_decide_and_no_more() -> None:
    assert (
        short_numbers(f"{LONG} 12.5% [1.20, 3.4567]") == "judge(threshold=0.8466737) | top_k(k=4) 12.5% [1.20, 3.4567]"
    )
    told = [fewest_digits(value) for value in (0.95, 1.0, 0.0, 2 / 3, 0.9999999, 1e-7, 1e300, -0.5)]
    assert told == ["0.95", "1", "0", "0.6666667", "0.9999999", "1e-07", "1e+300", "-0.5"]


@given(st.floats(0, 1))
def test_a_printed_threshold_decides_as_the_one_that_was_calibrated(value: float) -> None:
    assert torch.tensor(float(fewest_digits(value))) == torch.tensor(value)


@pytest.mark.parametrize(
    ("title", "columns", "figures"),
    [
        ("answering", 120, "exact: 100% right, mean acceptance length 18.2"),
        ("answering", 80, "100% right, mean acceptance length 18.2"),
        ("choosing draft lengths", 80, "100% right"),
    ],
)
def test_a_progress_bar_has_whole_numbers(
    monkeypatch: pytest.MonkeyPatch, title: str, columns: int, figures: str
) -> None:
    """As many figures as there is room for."""
    made: list[Progress] = []

    def kept(*columns: ProgressColumn) -> Progress:
        made.append(progress(*columns))
        return made[0]

    monkeypatch.setattr(showing, "progress", kept)
    monkeypatch.setenv("COLUMNS", str(columns))
    with showing.running(title, 1850, 25) as take:
        take("exact", ItemResult("a", correct=True, rounds=11, tokens=200, accepted=189))
        (line,) = lines(made[0].get_renderable(), width=columns)
    assert line.startswith(f"{title} ")
    assert f"26/1850 {figures} -:--:--" in line


def test_the_table_of_the_demo() -> None:
    """As wide as it comes: no title is cut, and no line is longer than the terminal."""
    names = {"target": "target alone", "draft": "draft alone", "exact": "standard", "judge": "judge decoding"}
    rows = [
        ResultRow(
            name=name, rule=rule, accuracy=1.0, accuracy_low=0.963, accuracy_high=1.0, accepted_per_round=14.46,
            mcnemar_p=1.2e-130, tokens_per_forward=15.25, tokens_per_second=1234.5, speedup=13.25, num_draft_tokens=16,
        )
        for rule, name in names.items()
    ]  # fmt: skip
    told = lines(plain_table(*cells(rows, COMPARISON)))
    assert max(map(len, told)) <= 80
    assert not any("…" in line for line in told)
    assert told[-1].split() == [
        "judge", "decoding", "100.0%", "[96.3,", "100.0]", "14.46", "15.25", "1234", "13.25x", "<", "0.001",
    ]  # fmt: skip


def test_where_there_is_room_a_name_is_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def first() -> list[str]:
        return [str(cell) for cell in results_tables(results(full(LONG)))[0].columns[0].cells]

    assert max(map(len, first()[0].split("\n"))) < len(short_numbers(LONG))
    monkeypatch.setenv("COLUMNS", "160")
    assert first() == [short_numbers(LONG)]
