"""Answers to several tasks on one page: the table, worked out by hand, and in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, Browser, browsing, wait
from commands import Run
from judge_decoding.core.samples import Sample, read_samples, write_samples
from judge_decoding.report.answers import answers_page
from judge_decoding.report.by_task import by_task
from samples import HOSTILE, known


def answer(task: str, correct: bool | None, alone: bool | None, distance: float | None = None, **more: Any) -> Sample:
    return known(task=task, correct=correct, target_correct=alone, distance=distance, **more)


HOME = [answer("home", True, True, 0.5)] * 7 + [
    answer("home", True, False, 0.9), answer("home", False, True, 1.0), answer("home", False, False, 1.01),
]  # fmt: skip
AWAY = [answer("away", True, True, 2.0)] * 2 + [answer("away", False, True, 3.0)] * 7 + [answer("away", True, True)]


def test_every_figure_of_the_table() -> None:
    home, away = by_task([*HOME, *AWAY])
    assert home.cells == {
        "task": "home",
        "answers": "10",
        "right": "80.0% [49.0, 94.3]",
        "right, the target alone": "80.0% [49.0, 94.3]",
        "difference in points": "+0.0 [-33.3, +33.3]",
        "McNemar p": "1",
        "accepted draft tokens per round": "2.50",  # 3 and 2
        "mean acceptance length": "3.50",  # 4 and 3
        "prompts warned of": "1 of 10",  # at 1 it is not unlike the others
        "made wrong (warned of)": "1 (0)",
    }
    assert away.cells["right"] == "30.0% [10.8, 60.3]"
    assert away.cells["right, the target alone"] == "100.0% [72.2, 100.0]"
    assert away.cells["difference in points"] == "-70.0 [-89.2, -28.9]"
    assert away.cells["McNemar p"] == "0.016"  # 2 / 2^7
    assert away.cells["prompts warned of"] == "9 of 9"
    assert away.cells["made wrong (warned of)"] == "7 (7)"
    assert not home.part
    assert not away.part


def test_what_is_known_of_one_only_is_not_compared() -> None:
    one, _ = by_task(
        [answer("a", True, None), answer("a", False, True), answer("a", None, False), answer("b", None, True)]
    )
    assert one.cells["right"].startswith("50.0% ")
    assert one.cells["right, the target alone"].startswith("50.0% ")
    assert one.cells["difference in points"].startswith("-100.0 ")
    assert "prompts warned of" not in one.cells
    assert "made wrong (warned of)" not in one.cells


def test_categories_are_parts_of_their_task() -> None:
    lines = by_task([
        answer("a", True, True, category="x"), answer("a", True, True, category="y"), answer("a", True, True),
        answer("b", True, True, category="z"),
    ])  # fmt: skip
    assert [(line.cells["task"], line.cells["answers"], line.part) for line in lines] == [
        ("a", "3", False), ("x", "1", True), ("y", "1", True), ("no category", "1", True), ("b", "1", False),
    ]  # fmt: skip
    # Of one task alone the head of the page has the sum.
    lines = by_task([known(category="x"), known(category="y")])
    assert [(line.cells["task"], line.part) for line in lines] == [("x", False), ("y", False)]


def test_rules_are_not_thrown_together() -> None:
    lines = by_task([known(task=task, rule=rule) for rule in ("exact", "judge") for task in ("a", "b")])
    assert [(line.cells["task"], line.cells["rule"], line.cells["answers"]) for line in lines] == [
        ("a", "exact", "1"), ("a", "judge", "1"), ("b", "exact", "1"), ("b", "judge", "1"),
    ]  # fmt: skip
    assert "rule" not in by_task(HOME + AWAY)[0].cells


def test_one_kind_of_question_has_no_table() -> None:
    assert by_task([]) == []
    assert by_task(HOME) == []
    assert 'id="tasks"' not in answers_page("t", HOME)
    assert "Task by task" not in answers_page("t", [known(), known()])


def test_answers_without_rounds_or_verdicts_are_counted() -> None:
    empty = Sample(question="", text="", rounds=(), rule=known().rule)
    first, second = by_task([empty, known(task="a")])
    assert list(first.cells.values()) == ["no task", "1", "-", "-"]
    assert second.cells["mean acceptance length"] == "3.50"


def test_the_fields_of_a_task_are_kept_in_the_file(tmp_path: Path) -> None:
    samples = [known(task="gsm8k", item="row 3", turn=2, category="x"), known()]
    write_samples(tmp_path / "a.jsonl", samples)
    assert read_samples(tmp_path / "a.jsonl") == samples
    assert (samples[1].task, samples[1].item, samples[1].turn, samples[1].category) == ("", "", 1, "")
    with pytest.raises(ValueError, match="turn"):
        known(turn=0)


def test_from_files_to_the_page(run: Run, tmp_path: Path) -> None:
    write_samples(tmp_path / "home.jsonl", HOME)
    write_samples(tmp_path / "away.jsonl", AWAY)
    page = tmp_path / "page.html"
    out = run("report", tmp_path / "home.jsonl", tmp_path / "away.jsonl", "-o", page, "--show", 3)
    assert out == (0, f"20 answers read, the first 3 of them shown in {page}.\n", "")
    text = page.read_text(encoding="utf-8")
    assert "-70.0 [-89.2, -28.9]" in text  # the table is of all, not only of those that are shown
    assert "detects new kinds of prompts, not errors" in text
    assert "detects new kinds" not in answers_page("t", [known(task="a"), known(task="b")])


# ---- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def show(browser: Browser, folder: Path, *samples: Sample) -> None:
    (folder / "page.html").write_text(answers_page("Answers", samples), encoding="utf-8")
    browser.open("about:blank")
    browser.until("location.href === 'about:blank'")
    browser.open((folder / "page.html").as_uri())
    browser.until("document.readyState === 'complete' && document.querySelector('.token')")


CELLS = "[...document.querySelectorAll('#tasks tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"


@pytest.mark.browser
def test_the_table_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    browser.look(1280, 800)
    show(browser, tmp_path, *HOME, *AWAY)
    lines = by_task([*HOME, *AWAY])
    assert browser.js(CELLS) == [list(lines[0].cells), *(list(line.cells.values()) for line in lines)]
    names = browser.names()
    assert ("region", "Task by task") in names
    assert ("rowheader", "away") in names
    assert ("columnheader", "prompts warned of") in names
    assert browser.js("document.querySelector('.scroll').scrollWidth <= document.querySelector('.scroll').clientWidth")
    assert browser.complaints == []


@pytest.mark.browser
def test_a_narrow_window_scrolls_the_table_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    browser.look(390, 800)
    long = "arithmetic(family=comparison, split=test, count=200, seed=0)" + "x" * 80
    show(browser, tmp_path, *(known(task=long, category=name, correct=True, target_correct=True) for name in "ab"),
         *AWAY)  # fmt: skip
    assert browser.js("document.documentElement.scrollWidth <= innerWidth")
    assert browser.js("document.querySelector('.scroll').tabIndex") == 0  # not every browser can do without
    browser.press("Tab")
    assert browser.js("document.activeElement.className") == "scroll"

    def scrolled() -> bool:
        browser.press("ArrowRight")  # again and again: a page that is still being painted may drop a key
        return bool(browser.js("document.activeElement.scrollLeft > 0"))

    wait(scrolled, "the table to scroll")
    assert browser.complaints == []


@pytest.mark.parametrize("text", [HOSTILE, "\u202e|<b>\n\n'\"", "{{ 7 * 7 }}(<img src=x onerror=alert(1)>"])
@pytest.mark.browser
def test_hostile_names_are_text(browser: Browser, tmp_path: Path, text: str) -> None:
    show(browser, tmp_path, known(task=text, category=text, rule=text), known(task=text, category="b"), known(task="c"))
    assert browser.js("typeof window.taken") == "undefined"
    assert browser.js("document.title") == "Answers"
    assert browser.js("document.scripts.length") == 2
    assert browser.js("document.querySelectorAll('img, b').length") == 0
    shown = browser.js(CELLS)
    # A browser drops the NUL, and each name is isolated from the text direction of the rest.
    assert shown[1][0] == text.replace("\u0000", "") or shown[1][0] == text.replace("\u0000", "\ufffd")
    assert browser.js("document.querySelectorAll('#tasks tbody th > bdi').length") == len(shown) - 1
    assert browser.complaints == []
