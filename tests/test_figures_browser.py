"""Tables of figures on a phone: every row is a card with its titles, and nothing is cut off; for screen readers too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser import Browser, browsing, needs_chromium
from judge_decoding.intervals import short_numbers
from judge_decoding.report.page import comparison_page, results_page
from test_width import LONG, full, results

pytestmark = [pytest.mark.browser, needs_chromium]
NAMES = ("target alone", LONG, "typical(epsilon=0.09, delta=0.3)")
SHOWN = """[...document.querySelectorAll('.figures tbody :is(th, td)')].every((cell) => {
  const box = cell.getBoundingClientRect(), title = getComputedStyle(cell, '::before').content;
  return box.left >= 0 && box.right <= innerWidth && cell.scrollWidth <= cell.clientWidth + 1 && title.length > 2;
})"""


def sweep() -> str:
    pytest.importorskip("matplotlib")
    return results_page(results(*map(full, NAMES)).model_copy(update={"task": "arithmetic(count=14, seed=0)"}))


def comparison() -> str:
    names = [*map(short_numbers, NAMES)]
    methods = [full(name).model_copy(update={"mcnemar_p": 1e-9}) for name in names]
    return comparison_page(methods, {}, "question", [])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.mark.parametrize("page", [sweep, comparison])
def test_no_figure_is_cut_off_on_a_phone(browser: Browser, tmp_path: Path, page: Callable[[], str]) -> None:
    (tmp_path / "page.html").write_text(page(), encoding="utf-8")
    browser.look(360, 800)
    browser.open((tmp_path / "page.html").as_uri())
    browser.until("document.querySelector('.figures')")
    assert browser.js("document.documentElement.scrollWidth") == 360
    assert "<" not in browser.js("document.querySelector('h1').innerText")
    cells = "[...document.querySelectorAll('.figures tbody :is(th, td)')].map((cell) => cell.innerText)"
    narrow = browser.js(cells)
    assert {*NAMES[::2], short_numbers(LONG)} <= set(narrow)
    assert browser.js(SHOWN.replace("title.length > 2", "(cell.tagName === 'TH' || title.length > 2)"))
    assert "wbr" not in browser.js("document.body.innerText")
    roles = [role for role, _ in browser.names()]
    assert {"table", "rowheader", "cell", "columnheader"} <= set(roles)
    # Where there is room, it is a table, with the same figures.
    browser.look(1280, 800)
    assert browser.js("getComputedStyle(document.querySelector('.figures tr')).display") == "table-row"
    assert browser.js(cells) == narrow
    assert browser.complaints == []
