"""The annotation page in a real browser, by keyboard, mouse, and as a screen reader meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from browser import Browser, browsing, needs_chromium
from judge_decoding import Case, JudgeHead, read_cases
from judge_decoding.labelling.annotate.reading import AnswerReading, ReadingModels, read_answers
from judge_decoding.labelling.annotate.server import kept_token, make_app
from judge_decoding.labelling.annotate.session import Session
from judge_decoding.labelling.annotate.storage import readings_path
from local_pages import LocalPage, served
from test_annotate_server import HOSTILE

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        browser.look(1000, 800)
        yield browser


@pytest.fixture(autouse=True)
def no_complaints(request: pytest.FixtureRequest, browser: Browser) -> Iterator[None]:
    """No page of ours throws, breaks its content policy, or asks anybody but its own server."""
    browser.complaints.clear()
    browser.requested.clear()
    yield
    browser.js("0")
    if "killed" not in request.node.name:
        assert browser.complaints == []
    assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in browser.requested)


@contextmanager
def annotating(
    cases: Sequence[Case],
    folder: Path,
    annotator: str = "ann",
    *,
    port: int = 0,
    readings: Mapping[str, AnswerReading] | None = None,
) -> Iterator[LocalPage]:
    """The page of one annotator, no case shown twice. That the command serves it is tested with its server."""
    session = Session(cases, folder, annotator, readings=readings, repeats=0)
    token = kept_token(folder)
    with session.log, served(make_app(session, token), token, port) as page:
        yield page


def open_page(browser: Browser, page: LocalPage) -> None:
    browser.open(page.address)
    browser.until(f"location.href === {json.dumps(page.address)} && document.readyState === 'complete'")
    browser.until("!document.querySelector('#case').hidden || !document.querySelector('#end').hidden")


def title(browser: Browser) -> str:
    return str(browser.js("document.querySelector('#title').textContent"))


def press(browser: Browser, key: str, until: str) -> None:
    """Press a key and wait until the title begins with ``until``."""
    browser.press(key)
    browser.until(f"document.querySelector('#title').textContent.startsWith({json.dumps(until)})")


def go_to(browser: Browser, text: str) -> bool:
    """Go to a piece by the right arrow alone; False if there is none."""
    texts = browser.js("[...document.querySelectorAll('.piece .ink')].map((piece) => piece.textContent)")
    if text not in texts:
        return False
    for _ in range(texts.index(text) + 1):
        browser.press("ArrowRight")
    assert browser.js("document.querySelector('.piece.cursor .ink').textContent") == text
    return True


def test_ten_cases_by_keyboard_with_the_server_killed(browser: Browser, tmp_path: Path) -> None:
    """Of the command killed by the system, the server's own tests tell: here it is what the page makes of it."""
    asked = [Case(question=f"12 + 8? ({i})", answer=f" 12 + 8 = {20 + i % 2}.", reference="20") for i in range(10)]
    folder = tmp_path / "out"

    def some(numbers: range) -> None:
        for number in numbers:
            assert title(browser) == f"Case {number} of 10"
            key = "Enter" if go_to(browser, "21") else "n"
            press(browser, key, f"Case {number + 1} of" if number < 10 else "10 of 10 done")

    with annotating(asked, folder) as page:
        open_page(browser, page)
        assert browser.js("document.activeElement.id") == "answer"
        some(range(1, 6))
        # Killed, and one more decision is made before anybody notices.
        page.close()
        wrong = go_to(browser, "21")
        browser.press("Enter" if wrong else "n")
        browser.until("document.querySelector('#problem').textContent.includes('not saved yet')")
        assert len((folder / "decisions-ann.jsonl").read_text().splitlines()) == 5
    with annotating(asked, folder, port=page.port):
        # The page is still open and goes on by itself.
        browser.until("document.querySelector('#title').textContent === 'Case 7 of 10'")
        assert browser.js("document.querySelector('#problem').hidden")
        some(range(7, 11))
        browser.press("Enter")  # one too many does nothing
    lines = [json.loads(line) for line in (folder / "decisions-ann.jsonl").read_text().splitlines()]
    assert len(lines) == len({line["case"] for line in lines}) == 10
    cases = read_cases(folder / "cases-ann.jsonl")
    assert len({case.question for case in cases}) == 10
    for case in cases:
        assert [case.answer[start:end] for start, end in case.errors] == (["21"] if "21" in case.answer else [])
        assert (case.seconds or 0) > 0


def test_undo_skip_spans_and_help(browser: Browser, tmp_path: Path) -> None:
    asked = [Case(question=f"{i}", answer="one two three\nfour") for i in range(3)]
    with annotating(asked, tmp_path / "out") as page:
        open_page(browser, page)
        browser.press("?")
        assert browser.js("document.querySelector('#keys').open")
        browser.press("n")  # the keys do nothing behind the help
        browser.press("Escape")
        browser.until("!document.querySelector('#keys').open")
        assert title(browser) == "Case 1 of 3"
        chosen = "[...document.querySelectorAll('[aria-selected=true]')].map((piece) => piece.textContent.trim())"
        browser.press("Enter")  # nothing is selected yet, so a stray Enter marks nothing
        assert (browser.js(chosen), title(browser)) == ([], "Case 1 of 3")
        browser.press("ArrowDown")
        assert browser.js(chosen) == ["one"]
        browser.press("ArrowDown")
        assert browser.js(chosen) == ["four"]
        browser.press("ArrowUp")
        browser.press("Home")
        browser.press("ArrowRight")
        browser.press("ArrowRight", shift=True)
        assert browser.js(chosen) == ["two", "three"]
        press(browser, "Enter", "Case 2")
        press(browser, "u", "Case 1")
        assert browser.js(chosen) == ["two", "three"]
        press(browser, "Enter", "Case 2")
        press(browser, "s", "Case 3")
        # A span by the button, as a finger has no Shift.
        browser.click("#piece-0")
        browser.click("#extend")
        browser.click("#piece-1")
        assert browser.js(chosen) == ["one", "two"]
        browser.press("Escape")
        assert browser.js(chosen) == ["two"]
        # A span by dragging.
        browser.mouse("mousePressed", browser.middle("#piece-0 .ink"))
        browser.mouse("mouseMoved", browser.middle("#piece-2 .ink"))
        browser.mouse("mouseReleased", browser.middle("#piece-2 .ink"))
        assert browser.js(chosen) == ["one", "two", "three"]
        browser.click("#mark")
        browser.until("document.querySelector('#title').textContent === '3 of 3 done'")
        browser.click("#reopen")
        browser.until("document.querySelector('#title').textContent === 'Case 3 of 3'")
        browser.press("End")
        press(browser, "Enter", "3 of 3 done")
    errors = [case.errors for case in read_cases(tmp_path / "out" / "cases-ann.jsonl")]
    assert errors == [((4, 13),), ((0, 13),), ((18, 18),)]


def test_hostile_text_is_text(browser: Browser, tmp_path: Path) -> None:
    asked = [
        Case(question=HOSTILE, answer=HOSTILE, reference=HOSTILE),
        Case(question="ما هو ٢ + ٣؟", answer="الجواب هو ٦."),
    ]
    out = tmp_path / "out"
    with annotating(asked, out, "bob") as page:
        open_page(browser, page)
        for turn in range(2):
            browser.press("Home")
            press(browser, "Enter", "Case 2" if turn == 0 else "2 of 2")
    with annotating(asked, out) as page:
        open_page(browser, page)
        for turn in range(2):
            right_to_left = browser.js("getComputedStyle(document.querySelector('#answer')).direction") == "rtl"
            shown = browser.js("document.querySelector('#answer').textContent")
            assert ("الجواب" in shown) == right_to_left
            browser.press("Home")
            if right_to_left:
                browser.press("ArrowLeft")
                browser.press("ArrowLeft")
                browser.press("ArrowRight")
                assert browser.js("document.querySelector('.cursor .ink').textContent") == "هو"
            else:
                assert HOSTILE.split("\u202e")[0] + "⟨U+202E⟩" in shown
                assert "\u202e" not in shown
                assert HOSTILE[:30] in browser.js("document.querySelector('#reference').textContent")
            press(browser, "n", "Case 2" if turn == 0 else "2 of 2")
        browser.click("nav a")
        browser.until("document.querySelectorAll('article').length === 2")
        assert HOSTILE[:30] in browser.js("document.body.textContent")
    assert browser.js("document.querySelectorAll('article img, article script').length") == 0
    assert "taken" not in browser.js("document.title")


def test_a_screen_reader_gets_names_states_and_what_happened(browser: Browser, tmp_path: Path) -> None:
    asked = [Case(question=f"Why ({i})?", answer="So <b>\n\n") for i in range(2)]
    with annotating(asked, tmp_path / "out") as page:
        open_page(browser, page)
        names = browser.names()
        assert ("listbox", "Where does this answer first go wrong?") in names
        assert [name for role, name in names if role == "option"] == [
            "So",
            "<",
            "b",
            ">",
            "line break",
            "end of answer",
        ]
        assert {"Wrong here Enter", "All correct N", "Skip S", "Undo U", "Help ?"} <= {
            name for role, name in names if role == "button"
        }
        assert ("progressbar", "Cases done") in names
        browser.press("Home")
        browser.press("ArrowRight")
        assert browser.js("document.querySelector('#answer').getAttribute('aria-activedescendant')") == "piece-1"
        assert browser.js("document.querySelector('#piece-1').getAttribute('aria-selected')") == "true"
        press(browser, "Enter", "Case 2 of 2")
        said = browser.js("document.querySelector('[role=status]').textContent")
        assert said.startswith("Saved: wrong at “<”. Case 2 of 2. Question: Why (")
        # Each control can be reached by Tab, in the order of the page.
        reached = []
        for _ in range(6):
            browser.press("Tab")
            reached.append(browser.js("document.activeElement.id"))
        assert reached == ["mark", "correct", "extend", "skip", "undo", "help"]


def test_what_the_target_would_have_said(browser: Browser, folders: dict[str, Path], tmp_path: Path) -> None:
    asked = [Case(question="one two", answer=" good cat")]
    reader = ReadingModels(str(folders["target"]), JudgeHead.from_pretrained(folders["judge"]))
    readings = read_answers(asked, reader, tmp_path / "out")
    with annotating(asked, tmp_path / "out", readings=readings) as page:
        open_page(browser, page)
        assert browser.js("document.querySelectorAll('.piece').length") == 3
        browser.press("Home")
        shown = browser.js("document.querySelector('#choices').textContent")
        assert shown.startswith("The target here: ")
        assert "%" in shown
        browser.press("ArrowRight")
        assert browser.js("document.querySelector('#choices').textContent") != shown
        assert browser.js("document.querySelectorAll('.piece.other').length") >= 1
    assert readings_path(tmp_path / "out").read_text().count("\n") == 1


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_can_be_read(browser: Browser, tmp_path: Path, dark: bool) -> None:
    text = "a long answer " * 60 + "x" * 300
    asked = [Case(question=text, answer=text, reference=text)]
    try:
        with annotating(asked, tmp_path / "out") as page:
            browser.look(390, 800, dark=dark)
            open_page(browser, page)
            for _ in range(2):
                assert browser.js("document.documentElement.scrollWidth <= innerWidth")
                contrast = """(() => {
                  const level = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
                    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
                  const back = level(getComputedStyle(document.body).backgroundColor);
                  return [...document.querySelectorAll("p, h1, h2, a, .ink")].map((element) => {
                    const text = level(getComputedStyle(element).color);
                    return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
                  }).reduce((a, b) => Math.min(a, b));
                })()"""
                assert browser.js(contrast) >= 4.5
                assert (browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
                sizes = "[...document.querySelectorAll('#tools button')].map((button) => button.offsetHeight)"
                assert min(browser.js(sizes), default=44) >= 44
                browser.js("document.querySelector('nav a')?.click()")
                browser.until("document.readyState === 'complete' && document.title.startsWith('Agreement')")
    finally:
        browser.look(1000, 800)


def test_what_is_not_among_the_cases_yet_is_told(browser: Browser, tmp_path: Path) -> None:
    asked = [Case(question=f"q{i}", answer="a b") for i in range(3)]
    path = tmp_path / "out" / "cases-ann.jsonl"
    problem = "document.querySelector('#problem')"
    with annotating(asked, tmp_path / "out") as page:
        open_page(browser, page)
        path.mkdir()  # no file can take its place
        press(browser, "n", "Case 2 of 3")
        assert browser.js(f"{problem}.hidden") is False
        assert "Your decisions are saved, but not yet in cases-ann.jsonl" in browser.js(f"{problem}.textContent")
        path.rmdir()
        press(browser, "n", "Case 3 of 3")
        assert browser.js(f"{problem}.hidden") is True
    assert len(read_cases(path)) == 2
