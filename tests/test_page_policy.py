"""Pages that are files run their own script, and nothing that somebody gets into them, in a real browser."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from browser import Browser, browsing, needs_chromium
from judge_decoding import Case
from judge_decoding.core.results import ResultRow, Results
from judge_decoding.core.rounds import Cause
from judge_decoding.pages import file_page
from judge_decoding.report.answers import answers_page
from judge_decoding.report.cases import cases_page
from judge_decoding.report.page import comparison_page, results_page
from judge_decoding.report.score import COLUMNS
from judge_decoding.report.verdicts import ShownRound, ShownToken
from samples import known

INJECTED = (
    "<script>window.taken = 1</script><script src='data:text/javascript,window.taken=1'></script>"
    "<img src=x onerror='window.taken = 1'><svg onload='window.taken = 1'></svg>"
    "<a href='javascript:window.taken=1'>x</a>"
    "<link rel=stylesheet href='http://127.0.0.1:{port}/x.css'><base href='http://127.0.0.1:{port}/'>"
)


def _cases() -> str:
    return cases_page("t", [Case(question="q", answer="a"), Case(question="p", answer="b", errors=((0, 1),))], {})


def _comparison() -> str:
    rounds = [ShownRound((ShownToken("a", Cause.AGREED),), "b", 1)]
    row = ResultRow(
        name="judge", rule="judge", num_draft_tokens=1, accuracy=0.5, accuracy_low=0.5, accuracy_high=0.5,
        accepted_per_round=0.5, tokens_per_forward=0.5, tokens_per_second=0.5, speedup=0.5, mcnemar_p=0.5,
    )  # fmt: skip
    return comparison_page([row], {}, "q", rounds)


def _score() -> str:
    rules = [SimpleNamespace(name=name, histogram=[0.5, 0.5], by_position=[1.0]) for name in ("one", "two")]
    return file_page(
        "judge_decoding.report", "score", title="t", facts={}, columns=COLUMNS, rows=[], acceptances=rules,
        rejected=[[], []], legend=(), answers=[("q", [[], []])],
    )  # fmt: skip


def _answers() -> str:
    return answers_page("t", [known()])


def _results() -> str:
    row = ResultRow(rule="target", name="target", num_draft_tokens=0, tokens_per_forward=1.0, answers=1)
    return results_page(Results(task="t", target="t", rows=(row,)))


PAGES: dict[str, tuple[Callable[[], str], str, str]] = {
    "cases": (
        _cases,
        "((s) => { s.value = 'wrong'; s.dispatchEvent(new Event('change')); })(document.querySelector('#show'))",
        "document.querySelectorAll('article:not([hidden])').length === 1",
    ),
    "comparison": (
        _comparison,
        "document.querySelector('#toggle').click()",
        "document.body.classList.contains('show-rejected')",
    ),
    "score": (
        _score,
        "((s) => { s.value = '1'; s.dispatchEvent(new Event('change')); })(document.querySelector('#which'))",
        "document.querySelector('[data-rule=\"0\"]').hidden && !document.querySelector('[data-rule=\"1\"]').hidden",
    ),
    "answers": (_answers, "1", "document.querySelector('.token')"),
    "results": (_results, "1", "document.querySelector('table')"),
}
"""The page, something to do on it, and what is true then if its own script runs."""


@pytest.mark.parametrize("name", PAGES)
def test_the_policy_names_the_one_script(name: str) -> None:
    page = PAGES[name][0]()
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; ")
    assert "script-src 'none'" in policy if name == "results" else re.search(r"script-src 'sha256-[\w+/]+=*'$", policy)
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert page.index("Content-Security-Policy") < page.index("<style")
    assert not re.search(r"<[^>]*\son\w+\s*=|javascript:", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))
    assert page.count("<script>") == (name != "results")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        browser.look(1100, 800)
        yield browser


def opened(browser: Browser, page: str, folder: Path) -> None:
    browser.complaints.clear()
    (folder / "page.html").write_text(page, encoding="utf-8")
    browser.open((folder / "page.html").as_uri())
    browser.until(f"location.href.includes({folder.name!r}) && document.readyState === 'complete'")


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("name", PAGES)
def test_the_own_script_runs_and_an_injected_one_does_not(browser: Browser, name: str, tmp_path: Path) -> None:
    make, act, done = PAGES[name]
    page = make()
    opened(browser, page, tmp_path)
    browser.js(act)
    browser.until(done)
    assert browser.complaints == []
    (tmp_path / "hostile").mkdir()
    assert page.count("<body>") == 1
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        injected = INJECTED.replace("{port}", str(elsewhere.getsockname()[1]))
        opened(browser, page.replace("<body>", f"<body>{injected}"), tmp_path / "hostile")
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
    browser.js("document.querySelector('a[href^=javascript]').click()")
    browser.js(act)
    browser.until(done)
    assert browser.js("typeof window.taken") == "undefined"
    assert browser.js("document.baseURI").startswith("file://")
    assert any("Content Security Policy" in one for one in browser.complaints)
