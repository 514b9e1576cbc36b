"""The page of answers in a real browser: by keyboard, pointer and finger, and as a screen reader meets it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from browser import Browser, browsing, needs_chromium
from judge_decoding import JudgeDecoder, JudgeHead
from judge_decoding.core.rounds import Cause
from judge_decoding.core.samples import Sample, SampleRound
from judge_decoding.evaluation.recording import record
from judge_decoding.report.answers import answers_page
from samples import HOSTILE, hostile, known

pytestmark = [pytest.mark.browser, needs_chromium]

TIP = "document.querySelector('#tip')"
FOCUSED = "document.activeElement.textContent.trim()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        browser.look(1100, 800)
        yield browser


@pytest.fixture(autouse=True)
def no_complaints(browser: Browser) -> Iterator[None]:
    """No page throws, breaks its content policy, or asks for anything but itself."""
    browser.complaints.clear()
    browser.requested.clear()
    yield
    browser.js("0")
    assert browser.complaints == []
    assert all(url.startswith(("file://", "about:", "data:")) for url in browser.requested)


def show(browser: Browser, folder: Path, *samples: Sample, title: str = "Answers") -> None:
    page = folder / "page.html"
    page.write_text(answers_page(title, samples), encoding="utf-8")
    browser.open("about:blank")
    browser.until("location.href === 'about:blank'")
    browser.open(page.as_uri())
    browser.until("document.readyState === 'complete' && document.querySelector('.token')")


def statuses(browser: Browser, answer: int = 0) -> dict[str, str]:
    """What each token that can be seen is shown as."""
    return browser.js(
        f"Object.fromEntries([...document.querySelectorAll('#answer-{answer} .token')]"
        ".filter((token) => token.getClientRects().length)"
        ".map((token) => [token.unit.text.trim(), token.lastChild.classList[0]]))"
    )


def move(browser: Browser, value: float | str) -> None:
    """Move the threshold as by hand, and wait until it shows."""
    browser.js(
        f"(() => {{ const field = document.querySelector('#number'); field.value = '{value}';"
        " field.dispatchEvent(new Event('change')); })()"
    )
    browser.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


DECODED = {"a": "agreed", "b": "rescued", "c": "agreed", "X": "correction", "f": "agreed", "g": "rescued", "Y": "bonus"}


def test_tokens_by_their_cause_and_rounds_as_chips(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known())
    assert statuses(browser) == DECODED
    chips = "[...document.querySelectorAll('#answer-0 .chip')].map((chip) => chip.textContent)"
    assert browser.js(chips) == ["3 of 5 accepted", "2 of 2 accepted"]
    assert browser.js("document.querySelector('.tokens').innerText").replace("\n", "") == "3 of 5a b c X2 of 2f g Y"
    browser.press("l")
    assert browser.js("getComputedStyle(document.querySelector('.word')).display") != "none"
    assert browser.js("document.querySelector('#lines').getAttribute('aria-pressed')") == "true"


def test_the_rejected_rest_is_hidden_until_asked_for(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known())
    browser.press("r")
    assert statuses(browser) == {**DECODED, "d": "rejected", "e": "rejected"}
    look = "getComputedStyle(document.querySelector('.rejected:not(dt *)')).textDecorationLine"
    assert browser.js(look) == "line-through"
    browser.click("#rejected")
    assert statuses(browser) == DECODED


@pytest.mark.parametrize(
    ("value", "expected", "summary", "changes", "chips"),
    [
        ("0.5", {}, "At 0.5: 5 draft tokens kept (decoded: 5), 2 rescued (2); 0 of 1 answers change.", "", [3, 2]),
        ("0.6", {"g": "refused", "Y": "dropped"},
         "At 0.6: 4 draft tokens kept (decoded: 5), 1 rescued (2); 1 of 1 answers change.", "round 2", [3, "2 → 1"]),
        ("0.8", {"b": "refused", "c": "dropped", "X": "dropped", "g": "refused", "Y": "dropped"},
         "At 0.8: 2 draft tokens kept (decoded: 5), 0 rescued (2); 1 of 1 answers change.", "round 1",
         ["3 → 1", "2 → 1"]),
        ("0.25", {"X": "dropped", "d": "rescued"},
         "At 0.25: 6 draft tokens kept (decoded: 5), 3 rescued (2); 1 of 1 answers change.", "round 1", ["3 → 4", 2]),
        ("0", {"X": "dropped", "d": "rescued", "e": "rescued"},
         "At 0: 7 draft tokens kept (decoded: 5), 4 rescued (2); 1 of 1 answers change.", "round 1", ["3 → 5", 2]),
        ("1", {"b": "refused", "c": "dropped", "X": "dropped", "g": "refused", "Y": "dropped"},
         "At 1: 2 draft tokens kept (decoded: 5), 0 rescued (2); 1 of 1 answers change.", "round 1",
         ["3 → 1", "2 → 1"]),
    ],
)  # fmt: skip
def test_the_threshold_recolours_from_stored_scores(
    browser: Browser,
    tmp_path: Path,
    value: str,
    expected: dict[str, str],
    summary: str,
    changes: str,
    chips: list[object],
) -> None:
    show(browser, tmp_path, known())
    note = "getComputedStyle(document.querySelector('#note')).display"
    assert browser.js(note) == "none"
    move(browser, value)
    assert statuses(browser) == {**DECODED, **expected}
    assert browser.js("document.querySelector('#told').textContent") == summary
    assert changes in browser.js("document.querySelector('.changes').textContent")
    told = browser.js("[...document.querySelectorAll('#answer-0 .chip')].map((chip) => chip.firstChild.data)")
    assert told == [f"{chip} of {count}" for chip, count in zip(chips, (5, 2), strict=True)]
    assert browser.js(note) == "block"
    assert "not generated again" in browser.js("document.querySelector('#note').textContent")
    # Only what follows the first changed verdict is marked as written after another text.
    stale = "[...document.querySelectorAll('.round')].map((round) => round.classList.contains('stale'))"
    assert browser.js(stale) == [False, changes == "round 1"]
    browser.click("#reset")
    browser.until(f"{note} === 'none'")
    browser.until("document.querySelector('#told').textContent.startsWith('As decoded')")
    assert statuses(browser) == DECODED


def test_the_slider_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known())
    browser.press("t")
    assert browser.js("document.activeElement.id") == "threshold"
    for _ in range(10):
        browser.press("ArrowRight")
    browser.until("document.querySelector('#told').textContent.startsWith('At 0.6:')")
    assert statuses(browser)["g"] == "refused"
    assert browser.js("document.querySelector('#number').value") == "0.6"
    browser.press("End")
    browser.until("document.querySelector('#told').textContent.startsWith('At 1:')")
    assert statuses(browser)["b"] == "refused"


def test_an_answer_that_ended_inside_a_draft(browser: Browser, tmp_path: Path) -> None:
    event = SampleRound(
        token_ids=(10, 2), pieces=("a", ""), causes=("agreed", "rescued"), draft_ids=(10, 2, 11),  # type: ignore[arg-type]
        draft_pieces=("a", "", " b"), target_ids=(10, 20, 11, 9), scores=(0.9, 0.9, 0.9), stopped=True,
    )  # fmt: skip
    show(browser, tmp_path, known(rounds=(event,), special_ids=(2,), vocabulary={2: "</s>", 20: " bee"}))
    browser.press("r")
    assert statuses(browser) == {"a": "agreed", "</s>": "rescued", "b": "unused"}
    move(browser, 0)
    assert statuses(browser)["b"] == "unused"
    move(browser, 0.95)
    assert statuses(browser) == {"a": "agreed", "</s>": "refused", "b": "rejected"}
    # A rejected end token that another threshold would keep ends the answer, too.
    other = event.model_copy(
        update={"token_ids": (10, 20), "causes": (Cause.AGREED, Cause.CORRECTION), "pieces": ("a", "?")}
    )
    show(browser, tmp_path, known(rounds=(other,), special_ids=(2,), end_ids=(2,), vocabulary={2: "</s>"}))
    browser.press("r")
    move(browser, 0.5)
    assert statuses(browser) == {"a": "agreed", "?": "dropped", "</s>": "rescued", "b": "unused"}


def test_no_threshold_where_the_scores_do_not_tell_enough(browser: Browser, tmp_path: Path) -> None:
    bare = [event.model_copy(update={"details": None}) for event in known().rounds]
    hidden = "document.querySelector('#slider').hidden"
    for samples, expected in (
        ([known(threshold=None)], True),  # joined with other rules
        ([known(rounds=tuple(bare), temperature=0.7)], True),  # nobody knows which draft tokens were agreed
        ([known(rounds=tuple(bare))], False),  # at temperature 0 the target's choice tells
        ([known(threshold=None), known()], False),
    ):
        show(browser, tmp_path, *samples)
        assert browser.js(hidden) is expected
    move(browser, 1)
    browser.js("document.querySelector('#answer-1').open = true")
    browser.until("document.querySelector('#answer-1 .token')")
    assert statuses(browser) == DECODED  # the first has no threshold to move
    assert statuses(browser, 1)["b"] == "refused"


def test_keys_go_from_one_rescued_token_to_the_next(browser: Browser, tmp_path: Path) -> None:
    plain = known(rounds=(known().rounds[1].model_copy(update={"causes": (Cause.AGREED, Cause.AGREED, Cause.BONUS)}),))
    show(browser, tmp_path, known(), plain, known())
    reached = []
    for key in "jjjjjkkk":
        browser.press(key)
        number = browser.js("document.activeElement.closest('.answer').id")
        reached.append(f"{number[-1]}{browser.js(FOCUSED)}")
    assert reached == ["0b", "0g", "2b", "2g", "0b", "2g", "2b", "0g"]
    assert browser.js("document.querySelector('#spoken').textContent") == "Answer 1, round 2."
    assert browser.js("document.querySelector('#answer-1').open") is False
    # At another threshold others are rescued.
    move(browser, 0.25)
    browser.press("k")
    browser.press("k")
    assert browser.js(FOCUSED) == "b"
    browser.press("j")
    assert browser.js(FOCUSED) == "d"


def test_arrows_go_from_token_to_token(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known())
    # One stop of the Tab key for all tokens.
    assert browser.js("document.querySelectorAll('#answer-0 .token[tabindex=\"0\"]').length") == 1
    browser.js("document.querySelector('#answer-0 summary').focus()")
    browser.press("Tab")
    reached = [browser.js(FOCUSED)]
    for key in (
        "ArrowRight",
        "ArrowRight",
        "ArrowRight",
        "ArrowRight",
        "ArrowLeft",
        "ArrowDown",
        "End",
        "ArrowUp",
        "Home",
    ):
        browser.press(key)
        reached.append(browser.js(FOCUSED))
    assert reached == ["a", "b", "c", "X", "f", "X", "f", "Y", "a", "a"]
    browser.press("Tab")
    assert browser.js("document.activeElement.id") == "threshold"


def tip(browser: Browser) -> list[str]:
    return browser.js(f"[...{TIP}.querySelectorAll('.head, dl > div, li')].map((part) => part.innerText)")


def words(lines: Sequence[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def test_a_token_tells_about_itself(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known())
    browser.press("j")
    assert browser.js(f"{TIP}.hidden") is False
    assert browser.js("document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert words(tip(browser)) == [
        "“·b” rescued", "judge 0.800 above 0.5", "rescued by judge", "target's own “·bee”", "target 12.5%",
        "draft 75.0%", "rank 2", "entropy 1.50 nats", "position round 1, token 2 of 5 drafted", "“·bee” 62.5%",
        "“·b” 12.5%",
    ]  # fmt: skip
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    told = words(tip(browser))
    assert told[:2] == ["“·X” correction", "in place of “·d”, judge 0.300"]
    assert not any(line.startswith(("target ", "rank")) for line in told)
    browser.press("Escape")
    assert browser.js(f"{TIP}.hidden") is True
    assert browser.js("document.activeElement.hasAttribute('aria-describedby')") is False
    move(browser, 0.9)
    assert browser.js(f"{TIP}.hidden") is True
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert words(tip(browser))[:2] == ["“·b” rescued → rejected at 0.9", "judge 0.800 not above 0.9"]
    # It follows what becomes of its token.
    move(browser, 0.7)
    assert words(tip(browser))[:2] == ["“·b” rescued", "judge 0.800 above 0.7"]
    browser.press("r")
    browser.js("document.querySelector('.rest').focus()")
    assert words(tip(browser))[:2] == ["“·d” rejected", "judge 0.300 not above 0.7"]
    browser.press("r")
    assert browser.js(f"{TIP}.hidden") is True


def test_the_pointer_shows_it_and_may_go_onto_it(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known())
    browser.mouse("mouseMoved", browser.middle("#answer-0 .token .rescued"))
    browser.until(f"!{TIP}.hidden")
    assert words(tip(browser))[0] == "“·b” rescued"
    browser.mouse("mouseMoved", browser.middle("#tip"))
    browser.js("new Promise((done) => setTimeout(done, 400))")
    assert browser.js(f"{TIP}.hidden") is False
    browser.mouse("mouseMoved", browser.middle("h1"))
    browser.until(f"{TIP}.hidden")


def test_the_filter(browser: Browser, tmp_path: Path) -> None:
    plain = known(rounds=(), correct=False, text="")
    show(browser, tmp_path, known(correct=True, target_text="a b c X\nf g Y"), plain, known(target_text="a b, no"))

    def shown(choice: str) -> list[int]:
        browser.js(
            f"(() => {{ const field = document.querySelector('#filter'); field.value = '{choice}';"
            " field.dispatchEvent(new Event('change')); })()"
        )
        return browser.js(
            "[...document.querySelectorAll('.answer')].flatMap((box, i) => box.getClientRects().length ? [i] : [])"
        )

    assert shown("wrong") == [1]
    assert browser.js("document.querySelector('#count').textContent") == "1 of 3 shown"
    browser.press("j")
    assert "no rescued token" in browser.js("document.querySelector('#spoken').textContent")
    assert shown("rescued") == [0, 2]
    assert shown("differs") == [2]
    assert shown("all") == [0, 1, 2]
    show(browser, tmp_path, known())
    options = "[...document.querySelectorAll('option')].map((option) => option.disabled)"
    assert browser.js(options) == [False, False, True, True]


def test_the_targets_own_answer_stands_beside_it(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known(target_text="a b c Z", target_correct=True), known(target_text="a b c X\nf g Y"))
    assert browser.js("document.querySelector('.own').textContent") == "a b c Z"
    assert browser.js("document.querySelector('.differs').textContent") == "Z"
    sides = "[...document.querySelectorAll('#answer-0 section')].map((side) => side.getBoundingClientRect().top)"
    assert len(set(browser.js(sides))) == 1
    browser.js("document.querySelector('#answer-1').open = true")
    browser.until("document.querySelector('#answer-1 .own').textContent")
    assert browser.js("document.querySelectorAll('#answer-1 .differs').length") == 0
    assert "The same text." in browser.js("document.querySelector('#answer-1').textContent")


def test_white_space_and_parts_of_characters(browser: Browser, tmp_path: Path) -> None:
    event = SampleRound(
        token_ids=(1, 2, 3, 4, 5, 6), pieces=("x", "", "", "😀", "\n", " "), draft_ids=(1, 2, 3, 4, 5, 7),
        causes=("agreed", "agreed", "rescued", "agreed", "rescued", "correction"),  # type: ignore[arg-type]
        draft_pieces=("x", "", "", "😀", "\n", ""), target_ids=(1, 2, 9, 4, 9, 6, 9), scores=(0.9,) * 5 + (0.1,),
    )  # fmt: skip
    names = {2: "<0xF0>", 3: "<0x9F>", 4: "<0x80>", 7: "<0xE2>"}
    show(browser, tmp_path, known(rounds=(event,), text="x😀\n ", vocabulary=names))
    shown = "[...document.querySelectorAll('#answer-0 .token:not(.rest)')].map((token) => token.textContent)"
    # The three tokens of one character are one piece, as strong as its strongest; lone white space is visible.
    assert browser.js(shown) == ["x", "😀", "⏎\n", "·"]
    assert list(statuses(browser).values())[:2] == ["agreed", "rescued"]
    browser.press("r")
    assert browser.js("document.querySelector('.token.rest').textContent") == "<0xE2>"
    show(browser, tmp_path, known())
    browser.press("w")
    assert "".join(browser.js(shown)).replace("\u200b", "") == "a·b·c·X⏎\nf·g·Y"
    browser.press("w")
    assert "".join(browser.js(shown)) == "a b c X\nf g Y"


@pytest.mark.parametrize("text", [HOSTILE, "\u202e\u0000'\"<b>", "ما هو ٢ + ٣؟", "👩\u200d👩\u200d👧 e\u0301", "", " "])
def test_hostile_text_is_text(browser: Browser, tmp_path: Path, text: str) -> None:
    show(browser, tmp_path, hostile(text), title=text or "none")
    for key in "rwlj":
        browser.press(key)
    move(browser, 0.05)
    browser.press("j")
    for selector in ("#answer-0 .token:nth-child(2)", "#answer-0 .rest"):
        browser.js(f"document.querySelector('{selector}').focus()")
        assert browser.js(f"{TIP}.hidden") is False
    browser.press("w")
    assert browser.js("typeof window.taken") == "undefined"
    assert browser.js("document.title") != "taken"
    assert browser.js("document.scripts.length") == 2
    assert browser.js("document.querySelectorAll('img, b').length") == 0
    shown = browser.js("document.querySelector('#answer-0 .token').textContent")
    assert "\u202e" not in shown
    assert "\u0000" not in shown
    assert shown.replace("⟨U+0000⟩", "\u0000").replace("⟨U+202E⟩", "\u202e").replace("⟨U+2066⟩", "\u2066").strip() in (
        text.strip(), "·", "�"
    )  # fmt: skip


def test_what_is_shown_is_what_decoding_at_that_threshold_does(
    browser: Browser,
    tmp_path: Path,
    target: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    draft: PreTrainedModel,
    head: JudgeHead,
) -> None:
    """Up to the first changed verdict the models have read the same, so that the page must foretell them."""
    decoder = JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=5)
    prompts, values = ("red blue", "one two three", "cat dog cat"), (0.0, 0.2, 0.5, 0.8, 0.97, 1.0)
    checked = 0
    for temperature in (0.0, 1.0):
        for prompt in prompts:
            rounds = {
                value: decoder.generate(
                    prompt, 40, threshold=value, details=True, temperature=temperature, seed=7
                ).rounds
                for value in values
            }
            for one in values:
                texts = tuple("x" for event in rounds[one] for _ in event.token_ids)
                sample = record("q", rounds[one], texts, decoder, threshold=one, temperature=temperature)
                show(browser, tmp_path, sample)
                for other in values:
                    told = browser.js(
                        f"answers[0].sample.rounds.map((round) => verdictsOf(answers[0].sample, round, {other}).reach)"
                    )
                    for event, real, reach in zip(rounds[one], rounds[other], told, strict=False):
                        assert (reach, event.draft_ids) == (real.accepted, real.draft_ids)
                        checked += 1
                        if event.token_ids != real.token_ids:
                            break
    assert checked > 150


def test_a_long_answer_stays_quick(browser: Browser, tmp_path: Path) -> None:
    """Ten thousand tokens in twenty answers: only what is opened is drawn."""
    long = [known(rounds=known().rounds * 70) for _ in range(20)]
    show(browser, tmp_path, *long)
    assert browser.js("document.querySelectorAll('.token').length") == 70 * 9
    assert browser.js("document.querySelectorAll('.token').length < 700")
    move(browser, 0.9)
    assert browser.js("document.querySelector('#told').textContent").startswith("At 0.9: 2800 draft tokens kept")
    browser.js("document.querySelector('#answer-3').open = true")
    browser.until("document.querySelectorAll('#answer-3 .token').length === 630")
    assert browser.js("document.querySelectorAll('#answer-3 .refused').length") == 140


def test_a_screen_reader_gets_names_and_states(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known())
    names = browser.names()
    assert ("listbox", "Answer, token by token") in names
    options = [name for role, name in names if role == "option" and "," in name]
    assert options == ["a, agreed", "b, rescued", "c, agreed", "X, correction", "f, agreed", "g, rescued", "Y, bonus"]
    assert ("group", "Round 1, 3 of 5 accepted") in names
    assert ("slider", "Threshold T") in names
    assert ("spinbutton", "Threshold, as a number") in names
    browser.press("?")
    assert browser.js("document.querySelector('#help').open")
    browser.press("j")  # the keys do nothing behind the help
    browser.press("Escape")
    browser.until("!document.querySelector('#help').open")
    assert browser.js("document.querySelector('.token:focus')") is None


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_can_be_read(browser: Browser, tmp_path: Path, dark: bool) -> None:
    text = "a long word " * 30 + "x" * 200
    try:
        browser.look(390, 800, dark=dark)
        show(browser, tmp_path, known(question=text, reference=text, target_text=text, correct=False), hostile(text))
        browser.js("document.querySelector('#answer-1').open = true")
        for keys in ("l", "rj"):
            for key in keys:
                browser.press(key)
            assert browser.js("document.documentElement.scrollWidth <= innerWidth")
        # A rule breaks after its bracket, not inside its number.
        assert browser.js("[...document.querySelectorAll('#facts dd')].some((dd) => dd.innerHTML.includes('(<wbr>'))")
        # Beside the token stands what it tells, and hides neither it nor the buttons.
        edges = browser.js(
            f"[document.activeElement.getBoundingClientRect().bottom, {TIP}.getBoundingClientRect().top,"
            f" {TIP}.getBoundingClientRect().bottom, document.querySelector('#dock').getBoundingClientRect().top]"
        )
        assert edges == sorted(edges)
        move(browser, 0.9)
        assert browser.js(CONTRAST) >= 4.5
        assert (browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") != dark
    finally:
        browser.look(1100, 800)


def test_on_paper_there_are_answers_and_no_buttons(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, known(), known())
    browser.press("j")
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        seen = (
            "['#options', '#dock', '#tip', '#answer-1', '#answer-0 .token']"
            ".map((selector) => document.querySelector(selector).getClientRects().length > 0)"
        )
        assert browser.js(seen) == [False, False, False, False, True]
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


# The least contrast of any text with the first background behind it that is not transparent.
CONTRAST = """(() => {
  const level = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return element.parentElement && /rgba\\(.*, 0\\)/.test(color) ? behind(element.parentElement) : color;
  };
  return [...document.querySelectorAll("h1, h3, p, dt, dd, summary, .mark, .chip, .token > span, .differs, #tip code")]
    .filter((element) => element.getClientRects().length)
    .map((element) => [level(getComputedStyle(element).color), level(behind(element))])
    .map(([text, back]) => (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05))
    .reduce((a, b) => Math.min(a, b));
})()"""
