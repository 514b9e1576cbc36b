"""``judge-decoding score`` as a user meets it."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from browser import browsing, needs_chromium
from commands import Run, ends_in_one_sentence, is_one_sentence
from judge_decoding import Case, Exact, JudgeDecoder, write_cases
from judge_decoding.pages import file_page
from judge_decoding.report.score import bins


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    rows = [("one two", " three four five"), ("red", " blue up down left right"), ("good", " bad")]
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    return path


def figures(run: Run, *args: object) -> dict[str, Any]:
    code, out, err = run("score", *args, "--json")
    assert code == 0, err
    return json.loads(out)


def test_the_table_and_the_histograms(run: Run, answers: Path, folders: dict[str, Path]) -> None:
    code, out, err = run("score", answers, "--target", folders["target"], "--judge", folders["judge"], "--no-chat")
    assert code == 0
    assert err == ""
    for phrase in (
        "3 answers as the draft",
        "12 tokens",
        "are not regenerated",
        "draft length 16",
    ):
        assert phrase in out
    rows = [line for line in out.splitlines() if re.match(r"(exact|top_k\(k=4\)|typical\(.*|judge\(.*) +16 ", line)]
    assert len(rows) == 4
    assert all(re.search(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", row) for row in rows)


def test_the_figures(run: Run, answers: Path, folders: dict[str, Path]) -> None:
    told = figures(
        run, answers, "--target", folders["target"], "--rule", "top_k(k=40)", "--rule", "exact",
        "--num-draft-tokens", 2, "--num-draft-tokens", 100,
    )  # fmt: skip
    assert (told["answers"], told["tokens"], told["left_out"]) == (3, 12, 0)
    assert [(each["rule"], each["num_draft_tokens"]) for each in told["rules"]] == [
        ("top_k(k=40)", 2), ("top_k(k=40)", 100), ("exact", 2), ("exact", 100),
    ]  # fmt: skip
    # 4, 6 and 2 tokens, the end token counted: three at a time, or all at once.
    assert told["rules"][0]["accepted_lengths"] == {"1": 1, "2": 4}
    assert told["rules"][1]["accepted_lengths"] == {"2": 1, "4": 1, "6": 1}
    assert told["rules"][1]["rejected_share"] == 0
    exact = told["rules"][3]
    assert exact["rejected_share"] == exact["correction"] / (exact["correction"] + exact["agreed"]) > 0
    assert all(1 <= each["rejected"] <= each["decided"] and each["instead"] for each in exact["most_rejected"])


def test_the_targets_own_answers_are_accepted_whole(run: Run, tmp_path: Path) -> None:
    from judge_decoding.reference.pair import load_pair, prompt_of
    from judge_decoding.reference.problems import draw_many

    pair: JudgeDecoder = load_pair()[0]
    path = tmp_path / "own.jsonl"
    prompts = [prompt_of(problem) for problem in draw_many(1, "calibration", 3)]
    own = pair.generate_batch(prompts, 140, rule=Exact())
    write_cases(path, [Case(question=q, answer=a.text) for q, a in zip(prompts, own, strict=True)])
    told = figures(run, path, "--target", "reference", "--rule", "exact", "--num-draft-tokens", 200)
    assert told["tokens"] == sum(len(answer.token_ids) for answer in own)
    assert told["rules"][0]["agreed"] == told["tokens"]
    assert told["rules"][0]["rounds"] == 3


def test_the_head_says_how_long_a_draft_is_best(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    write_cases(path, [Case(question="Q: How many?\nA:", answer=" The answer is 3.")])
    told = figures(run, path, "--target", "reference", "--judge", "reference", "--rule", "judge")
    assert told["rules"][0]["num_draft_tokens"] == 24


def test_bad_lines_and_unfit_answers_are_named_and_left_out(run: Run, answers: Path, folders: dict[str, Path]) -> None:
    with answers.open("ab") as file:
        file.write(
            b'{"question": "one"}\n{"question": "one", "answer": "nonsense"}\n{"question": "one", "answer": ""}\n'
        )
        file.write(b'{"question": "one", "answer": "' + b"two " * 299 + b'two"}\n{"half')
    code, out, err = run("score", answers, "--target", folders["target"], "--json", "--no-chat")
    assert code == 0
    assert (json.loads(out)["answers"], json.loads(out)["left_out"]) == (3, 5)
    for phrase in (
        "line 4 has no field 'answer'", "line 5: The answer does not round-trip through the tokenizer",
        "line 6: The answer is empty", "line 7: The answer has 302 tokens", "line 8 is not JSON",
    ):  # fmt: skip
        assert phrase in err


def test_fields_template_and_limit(run: Run, tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "others.jsonl"
    path.write_text('{"problem": "one", "solution": "two three"}\n' * 2 + "{}\n")
    told = figures(
        run, path, "--target", folders["target"], "--prompt-field", "problem", "--answer-field", "solution",
        "--template", "good {question}\\nup {answer}", "--limit", 2,
    )  # fmt: skip
    assert (told["answers"], told["tokens"], told["left_out"]) == (2, 6, 0)
    assert told["prompt"] == r"'good {question}\nup {answer}'"
    told = figures(run, path, "--target", folders["target"], "--prompt-field", "problem", "--answer-field", "solution",
                   "--chat")  # fmt: skip
    assert (told["answers"], told["left_out"], told["prompt"]) == (2, 1, "chat")


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("{empty}", "--target", "{target}"), "has no answers"),
        (("{file}", "--target", "{target}", "--rule", "judge"), "The rule judge needs a judge head"),
        (("{file}", "--target", "{target}", "--rule", "kl_judge"), "a text has none"),
        (("{file}", "--target", "{target}", "--template", "Q:"), "has no {question}"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value[3:]) or value[0],
)
def test_mistakes_are_one_sentence(
    run: Run, answers: Path, folders: dict[str, Path], tmp_path: Path, args: tuple[str, ...], phrase: str
) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    known = {"empty": tmp_path / "empty.jsonl", "file": answers}
    is_one_sentence(run("score", *(each.format(**known, **folders) for each in args)), phrase)


def test_no_answer_fits(run: Run, tmp_path: Path, folders: dict[str, Path]) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"question": "one", "answer": "nonsense"}\n' * 9)
    result = run("score", path, "--target", folders["target"])
    ends_in_one_sentence(result, "No answer of")
    assert "4 more lines" in result[2]


# The page


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def page(run: Run, tmp_path: Path) -> Path:
    path, page = tmp_path / f"{'&lt;b&gt;'}.jsonl", tmp_path / "page.html"
    cases = [Case(question=f"Q: {HOSTILE}\nA:", answer=" The answer is 3."), Case(question="Q: x\nA:", answer=" 3 + 4")]
    write_cases(path, cases)
    code, out, err = run(
        "score", path, "--target", "reference", "--judge", "reference", "--rule", "exact", "--rule", "judge",
        "--num-draft-tokens", 3, "--html", page,
    )  # fmt: skip
    assert code == 0, err
    assert "Web page" in out
    return page


def test_the_page_is_whole_and_escaped(page: Path) -> None:
    html = page.read_text()
    assert HOSTILE not in html
    assert HOSTILE in unescape(html)
    assert html.count("<script>") == html.count("<svg") - 3 == 1
    assert not re.search(r"https?://|<img|<link|@import", html)
    shown = re.findall(r'<p class="tokens">(.*?)</p>', html, re.DOTALL)
    assert len(shown) == 4  # two texts, two rules
    spans = re.findall(r'<span class="(\w+)"(?: title="[^"]*")?>(.*?)</span>', shown[0])
    assert "".join(unescape(text) for kind, text in spans if kind != "correction") == " The answer is 3.<eos>"
    assert {kind for kind, _ in spans} <= {"agreed", "rescued", "rejected", "correction", "bonus"}


@needs_chromium
def test_the_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    with browsing(tmp_path) as browser:
        browser.look(390, 800, dark=True)
        browser.open(page.as_uri())
        browser.until("document.readyState === 'complete' && document.querySelector('#which')")
        visible = (
            "[...document.querySelectorAll('[data-rule]')].filter((e) => e.offsetHeight).map((e) => e.dataset.rule)"
        )
        assert set(browser.js(visible)) == {"0"}
        browser.js(
            "(() => { const which = document.querySelector('#which'); which.value = '1';"
            " which.dispatchEvent(new Event('change')); })()"
        )
        assert set(browser.js(visible)) == {"1"}
        assert browser.js("document.documentElement.scrollWidth") == 390
        assert browser.complaints == []
        assert [url for url in browser.requested if not url.startswith("file:")] == []
        assert ("image", "Accepted draft tokens per round, exact, draft length 3") in browser.names()


def test_pictures() -> None:
    each = SimpleNamespace(name="exact", histogram=[0.75, 0.25], by_position=[1.0, 0.5])
    html = file_page(
        "judge_decoding.report", "score", title="t", facts={}, columns=[], rows=[], acceptances=[each], rejected=[[]],
        legend=(), answers=[],
    )  # fmt: skip
    number = r"([\d.]+)"
    bars = rf'<rect x="{number}" y="{number}" width="{number}" height="{number}"><title>(.*?)</title>'
    assert re.findall(bars, html) == [  # in a plot of 300 x 120
        ("0.0", "0.0", "129.0", "120.0", "0 accepted: 75.0% of the rounds"),
        ("150.0", "80.0", "129.0", "40.0", "1 accepted: 25.0% of the rounds"),
    ]
    points = rf'<circle cx="{number}" cy="{number}" r="3"><title>(.*?)</title>'
    assert re.findall(points, html) == [
        ("64.5", "0.0", "position 1: 100.0% accepted"),
        ("214.5", "60.0", "position 2: 50.0% accepted"),
    ]
    (line,) = re.findall(r'<polyline points="(.*?)"', html)
    assert line.split() == ["64.5,0.0", "214.5,60.0"]
    axis = rf'<text x="{number}" y="136" text-anchor="middle">(.*?)</text>'  # below the first and the last
    assert re.findall(axis, html) == [("64.5", "0"), ("214.5", "1"), ("64.5", "1"), ("214.5", "2")]


def test_bins_of_a_histogram() -> None:
    assert bins([0.5, 0.25, 0.25]) == [("0", 0.5), ("1", 0.25), ("2", 0.25)]
    many = bins([1 / 25] * 25)
    assert [label for label, _ in many] == ["0", "1", "2", "3", "4", "5-8", "9-16", "17-24"]
    assert [round(25 * share) for _, share in many] == [1, 1, 1, 1, 1, 4, 8, 8]
