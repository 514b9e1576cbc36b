"""The playground in a real browser: by keyboard, on a phone, in the dark, and with models that write scripts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from browser import Browser, browsing, needs_chromium
from judge_decoding import JudgeDecoder, PromptLookup, read_cases
from judge_decoding.core.samples import read_samples
from judge_decoding.names import REFERENCE
from judge_decoding.playground.marks import CaseFile
from judge_decoding.playground.pairs import ModelPair
from judge_decoding.playground.server import Playground
from local_pages import served
from samples import HOSTILE
from test_annotate_server import TOKEN
from test_report_browser import CONTRAST
from tiny import EOS, WORDS, llama, word_tokenizer

pytestmark = [pytest.mark.browser, needs_chromium]
QUESTION = "Ann has 6 shells. Tom gives Ann 2 shells. Ann buys 11 shells. How many shells does Ann have now?"
DONE = "columns.judge.sample && running === null"


@dataclass(frozen=True)
class Server:
    """The page with the embedded pair and one that writes scripts, for ever; and the file of marked answers."""

    address: str
    cases: Path


def scribbler() -> JudgeDecoder:
    """What it says is hostile, and has no end."""
    model = llama(0, context=8192)
    assert model.generation_config is not None
    model.generation_config.suppress_tokens = [EOS]
    return JudgeDecoder(model, word_tokenizer([f"{HOSTILE}{i}" for i in range(len(WORDS))]), PromptLookup())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cases = tmp_path_factory.mktemp("play") / "cases.jsonl"
    names = {"target": REFERENCE, "draft": REFERENCE, "judge": REFERENCE}
    pairs = {
        "reference": ModelPair("reference", JudgeDecoder.from_pretrained(*names.values()), **names),
        "other": ModelPair("other", scribbler(), target="hostile", draft="prompt-lookup"),
    }
    playground = Playground(pairs, CaseFile(cases), "ann")
    with served(playground.app(TOKEN), TOKEN) as page:
        yield Server(page.address, cases)
        playground.jobs.close()
    playground.jobs.join()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(running: Browser, server: Server) -> Iterator[Browser]:
    """The page, just opened; it never throws, breaks its content policy, or asks anybody but its own server."""
    running.complaints.clear()
    running.requested.clear()
    running.look(1280, 900)
    running.open("about:blank")
    running.open(server.address)
    running.until(f"location.href === {json.dumps(server.address)} && document.readyState === 'complete'")
    running.until("document.querySelector('#rule option')")
    yield running
    running.js("0")
    assert running.complaints == []
    assert all(url.startswith(("http://127.0.0.1:", "data:", "about:")) for url in running.requested)


def tab_to(browser: Browser, selector: str) -> None:
    """Go there by the tab key alone."""
    for _ in range(60):
        if browser.js(f"Boolean(document.activeElement?.matches({json.dumps(selector)}))"):
            return
        browser.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by the tab key")


def ask(browser: Browser, question: str = QUESTION) -> None:
    browser.js("document.querySelector('#prompt').focus()")
    browser.call("Input.insertText", text=question)
    browser.press("Enter")
    browser.until(DONE)


def text(browser: Browser, selector: str) -> str:
    return str(browser.js(f"document.querySelector({json.dumps(selector)}).innerText"))


def wide(browser: Browser) -> int:
    return int(browser.js("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_a_question_a_what_if_and_a_mark_by_keyboard_alone(browser: Browser, server: Server) -> None:
    assert browser.js("document.activeElement.id") == "prompt"
    browser.call("Input.insertText", text=QUESTION)
    browser.press("Enter")
    browser.until(DONE)
    target, judge = (browser.js(f"columns.{name}.list.innerText.trim()") for name in ("target", "judge"))
    assert "The answer is 19." in target
    assert browser.js("columns.judge.sample.text").strip().endswith("the answer is 19 shells.")
    assert browser.js("columns.judge.sample.target_text.trim()") == target
    assert judge.startswith("Now we go")
    for name in ("target", "judge"):
        figures = text(browser, f"#{name} .figures")
        assert "tokens per second" in figures
        assert "mean acceptance length" in figures
        assert text(browser, f"#{name} .state") == "Ended by itself."
    assert "100%" in text(browser, "#judge .figures")
    assert "19" in text(browser, "#spoken")
    # A key that can do nothing says why, to the eye as well.
    browser.js("document.activeElement.blur()")
    for key, why in (("m", "Select a token first"), ("w", "Select a token first"), ("u", "nothing to undo")):
        browser.press(key)
        assert why in text(browser, "#judge .state")
        assert why in text(browser, "#spoken")
    # To the first rescued token, and what is known about it.
    tab_to(browser, "#judge .token")
    browser.press("j")
    browser.until("!document.querySelector('#inspector').hidden")
    facts = text(browser, "#facts")
    for phrase in ("rescued", "above 0.95", "“·Solution”", "entropy", "round 1, token 1 of 24 drafted"):
        assert phrase in facts
    browser.press("ArrowRight")
    assert browser.js("document.activeElement.getAttribute('aria-label')") == "we, agreed"
    browser.press("w")
    assert "target's own" in text(browser, "#spoken")
    browser.press("ArrowLeft")
    browser.press("w")
    browser.until("columns.whatif.sample && running === null")
    assert text(browser, "#whatif-title") == "What if “Now” had been “Solution”"
    assert browser.js("columns.whatif.sample.text").startswith(" Solution")
    # A wrong token becomes a case, and another one takes its place.
    tab_to(browser, "#judge .token")
    browser.press("Enter")
    browser.press("m")
    browser.until("document.querySelector('#saved').textContent.includes('wrong at')")
    (case,) = read_cases(server.cases)
    assert [case.answer[start:end] for start, end in case.errors] == ["Now"]
    assert (case.question, case.annotator) == (f"Q: {QUESTION}\nA:", "ann")
    browser.press("u")
    browser.until("document.querySelector('#undo').hidden")
    assert server.cases.read_bytes() == b""
    browser.press("Escape")
    assert browser.js("document.querySelector('#inspector').hidden")
    browser.press("n")
    browser.until("document.querySelector('#right').getAttribute('aria-pressed') === 'true'")
    assert [case.errors for case in read_cases(server.cases)] == [()]


def test_what_a_screen_reader_meets(browser: Browser) -> None:
    ask(browser)
    names = browser.names()
    for role, name in (
        ("textbox", "Your question"), ("button", "Ask Enter"), ("radio", "Chat"), ("combobox", "Rule"),
        ("slider", "Threshold T"), ("spinbutton", "Draft length"), ("checkbox", "Also answer with the target alone"),
        ("listbox", "Judge decoding, token by token"), ("option", "Now, rescued"), ("option", "we, agreed"),
        ("region", "Target alone"),
    ):  # fmt: skip
        assert (role, name) in names, (role, name)


def test_the_threshold_recolours_this_answer_and_decides_the_next(browser: Browser) -> None:
    ask(browser)
    rescued = "columns.judge.units.filter(({ status }) => status === 'rescued').length"
    before = browser.js("columns.judge.sample.text")
    assert browser.js(rescued) >= 1
    browser.js("document.activeElement.blur()")
    browser.press("t")
    assert browser.js("document.activeElement.id") == "threshold"
    browser.press("End")
    browser.until("document.querySelector('#threshold-number').value === '1'")
    assert browser.js(rescued) == 0
    assert not browser.js("document.querySelector('#moved').hidden")
    assert browser.js("columns.judge.sample.text") == before
    browser.js("document.activeElement.blur()")
    browser.press("r")
    browser.until(f"{DONE} && columns.judge.sample.threshold === 1")
    assert browser.js("columns.judge.sample.text === columns.judge.sample.target_text")
    assert browser.js("document.querySelector('#moved').hidden")


def test_other_rules_and_guards_have_their_parameters(browser: Browser) -> None:
    change = "dispatchEvent(new Event('change', { bubbles: true }))"
    browser.js(f"by('rule').value = 'top_k'; by('rule').{change}")
    assert browser.js("document.querySelector('#rule-parameters input').value") == "4"
    assert browser.js("document.querySelector('#threshold-field').hidden")
    browser.js("by('guards').open = true; document.querySelector('[data-name=budget] input').click()")
    ask(browser)
    assert browser.js("columns.judge.sample.rule") == "top_k(k=4)"
    assert "top_k(k=4)" in text(browser, "#judge-title")
    browser.js(f"document.querySelector('#rule-parameters input').value = '0'; by('rule-parameters').{change}")
    browser.js("by('prompt').focus()")
    browser.call("Input.insertText", text="Again")
    browser.press("Enter")
    browser.until("!document.querySelector('#problem').hidden")
    assert "top_k" in text(browser, "#problem")
    assert "400" in browser.complaints.pop()  # the console tells of every refused request


def test_a_chat_goes_on_and_begins_anew(browser: Browser) -> None:
    ask(browser)
    ask(browser, "And with 3 more shells?")
    browser.until("turns.length === 2")
    assert "Earlier in this chat (1)" in text(browser, "#earlier")
    browser.js("document.activeElement.blur()")
    browser.press("r")
    browser.until(DONE)
    browser.until("turns.length === 2")
    browser.click("#new-chat")
    assert browser.js("turns.length") == 0
    assert browser.js("document.querySelector('#earlier').hidden")


def test_a_replay_shows_both_answers_from_a_common_start(browser: Browser) -> None:
    ask(browser)
    answers = "['target', 'judge'].map((name) => columns[name].list.innerHTML)"
    lengths = "['target', 'judge'].map((name) => columns[name].list.textContent.length)"
    ends = "['target', 'judge'].map((name) => columns[name].heard.at(-1).figures.seconds)"
    whole, whole_lengths, (target, judge) = browser.js(answers), browser.js(lengths), browser.js(ends)
    browser.js("document.activeElement.blur()")
    browser.press("p")
    assert browser.js("film !== null && by('replay').getAttribute('aria-pressed') === 'true'")
    assert "slowed down" in text(browser, "#target .state")
    # The column that took less time is complete first, while the other one is still growing.
    first, other = ("judge", "target") if judge < target else ("target", "judge")
    browser.until(f"film.both.every(({{ column, left }}) => !left.length === (column.name === '{first}'))")
    assert browser.js(f"columns.{other}.list.textContent.length") < whole_lengths[other == "judge"]
    browser.until("film === null")
    assert browser.js(answers) == whole
    assert text(browser, "#target .state") == "Ended by itself."
    # It ends with Escape, with a token that is selected, and where it began.
    for key, selector in (("Escape", "body"), ("p", "body"), ("j", "#judge .token[aria-selected=true]")):
        browser.press("p")
        browser.until("film !== null")
        browser.press(key)
        assert browser.js(f"film === null && document.querySelector({json.dumps(selector)}) !== null")
        assert browser.js(lengths) == whole_lengths
    # Where the target was not asked, there is nothing to compare with.
    browser.press("Escape")
    browser.js("by('with_target').checked = false")
    browser.press("r")
    browser.until(DONE)
    assert browser.js("by('replay').disabled")
    browser.js("document.activeElement.blur()")
    browser.press("p")
    assert "needs both answers" in text(browser, "#judge .state")


def test_downloads_and_a_copy(browser: Browser, tmp_path: Path) -> None:
    ask(browser)
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.js("document.activeElement.blur()")
    browser.press("c")
    browser.until("by('spoken').textContent === 'Copied.'")
    assert browser.js("navigator.clipboard.readText()") == browser.js("columns.judge.sample.text.trim()")
    for kind, phrase in (("json", '"question":'), ("html", "<!doctype html>")):
        body = browser.js(f"fetch(by('as-{kind}').href).then((reply) => reply.text())")
        assert body.startswith("{" + phrase if kind == "json" else phrase)
        if kind == "json":
            (tmp_path / "a.json").write_text(body)
            assert read_samples(tmp_path / "a.json")[0].question == QUESTION


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(360, 780), (1280, 900)])
def test_widths_and_colours(browser: Browser, tmp_path: Path, width: int, height: int, *, dark: bool) -> None:
    browser.look(width, height, dark=dark)
    assert wide(browser) <= 0
    ask(browser)
    browser.js("document.activeElement.blur()")
    browser.press("j")
    browser.press("w")
    browser.until("columns.whatif.sample && running === null")
    browser.press("j")
    browser.js("by('settings').open = by('guards').open = true")
    browser.js("document.querySelectorAll('.guard .check input').forEach((input) => input.click())")
    assert wide(browser) <= 0
    back = browser.js("getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(22, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert browser.js(CONTRAST.replace("#tip code", "#facts code, label, button:enabled, .button")) >= 4.5
    assert not browser.js(
        "[...document.querySelectorAll('button, select, .button')].some((one) => one.getClientRects().length && "
        "one.getBoundingClientRect().height < 38)"
    )


def test_hostile_output_is_text_and_a_long_answer_stops(browser: Browser) -> None:
    browser.js("by('pair').value = 'other'; by('pair').dispatchEvent(new Event('change'))")
    browser.js("by('max_new_tokens').value = 8000; by('with_target').checked = false; by('as-text').click()")
    browser.js("by('prompt').focus()")
    browser.call("Input.insertText", text=HOSTILE.replace("\u0000", ""))
    browser.press("Enter")
    browser.until("columns.judge.list.textContent.length > 2000")
    browser.press("Escape")
    browser.until(DONE)
    assert text(browser, "#judge .state") == "Stopped."
    count = browser.js("columns.judge.sample.rounds.length")
    assert 0 < count < 8000
    browser.js("document.activeElement.blur()")
    browser.js("go(columns.judge.units[0])")
    assert "window.taken" in text(browser, "#facts")
    assert browser.js("document.title") == "Playground · judge decoding"
    assert browser.js("window.taken === undefined && !document.querySelector('img, main script')")
    assert "\u202e" not in browser.js("document.body.textContent.replace(by('data').textContent, '')")
    assert wide(browser) <= 0


def test_the_command_ends_at_once_while_it_decodes(running: Browser, tmp_path: Path) -> None:
    """Ctrl-C, one line; the page says what it can."""
    endless = scribbler()
    for part in (endless.target, endless.tokenizer):
        part.save_pretrained(tmp_path / "hostile")
    command = ("play", "--no-browser", "--port", "0", "--cases", str(tmp_path / "cases.jsonl"),
               "--pair", f"{tmp_path / 'hostile'},prompt-lookup")  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "judge_decoding.cli.main", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            running.open(process.stdout.readline().split()[-1])
            running.until("document.querySelector('#rule option')")
            running.js("by('max_new_tokens').value = 8000; by('as-text').click(); by('prompt').value = 'x'; submit()")
            running.until("columns.target.list.textContent.length > 100")
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 0
    assert said.strip().splitlines()[-1] == "Stopped."
    running.until("running === null")
