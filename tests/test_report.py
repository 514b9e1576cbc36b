"""The file of answers, what is recorded in it, and the page without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from commands import Run, is_one_sentence
from judge_decoding import Budget, Exact, Judge, JudgeDecoder, JudgeDecodingError, JudgeHead, TopK
from judge_decoding.core.rounds import Cause, Round, Stats
from judge_decoding.core.samples import Sample, read_samples, write_samples
from judge_decoding.evaluation.recording import record, recorded_threshold, spellings
from judge_decoding.models.text import pieces
from judge_decoding.report.answers import answers_page, summary
from samples import HOSTILE, hostile, known
from tiny import EOS, byte_fallback_tokenizer, byte_level_tokenizer


@pytest.fixture
def decoder(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, draft: PreTrainedModel, head: JudgeHead
) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, draft, head, num_draft_tokens=5)


def changed(**fields: Any) -> str:
    """A line of a file with some fields of its first round changed."""
    sample = json.loads(known().model_dump_json())
    sample["rounds"][0] |= fields
    return json.dumps(sample)


# ---- the file


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    samples = [known(), hostile(), known(correct=False, target_text="é\u2028\n")]
    write_samples(tmp_path / "a.jsonl", samples)
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 3
    assert read_samples(tmp_path / "a.jsonl") == samples


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("{", "line 2 is not an answer with its rounds"),
        ("[]", "line 2 is not an answer with its rounds"),
        ('{"question": "q"}', "text: Field required"),
        (changed(pieces=["a"]), "pieces has 1 entries where there must be 4"),
        (changed(scores=[0.5]), "scores has 1 entries where there must be 5"),
        (changed(draft_pieces=[]), "draft_pieces has 0 entries"),
        (changed(target_ids=[1]), "target_ids has 1 entries where there must be 6"),
        (changed(causes=["agreed", "rescued", "agreed", "guessed"]), "causes.3"),
        (changed(causes=["agreed", "rescued", "correction", "agreed"]), "not the first of the draft"),
        (changed(token_ids=[10, 99, 12, 23]), "not the first of the draft"),
        (changed(causes=["agreed", "rescued", "bonus", "bonus"]), "more than one token follows"),
        (changed(scores=[0.5, 0.5, 0.5, 0.5, float("nan")]), "finite"),
        (changed(token_ids=[10, 11, 12, -1]), "greater than or equal to 0"),
        (changed(surprise=1), "Extra inputs"),
        ('{"question": "\\ud800", "text": "", "rounds": []}', "Invalid JSON"),
    ],
)
def test_a_bad_line_is_one_sentence_with_its_number(run: Run, tmp_path: Path, line: str, phrase: str) -> None:
    path, page = tmp_path / "a.jsonl", tmp_path / "page.html"
    path.write_text(known(question="the good one").model_dump_json() + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(JudgeDecodingError, match=r"line 2 .*correct or remove") as caught:
        read_samples(path)
    assert phrase in str(caught.value)
    code, out, err = run("report", path, "-o", page)
    assert (code, out) == (0, f"1 answer shown in {page}.\n")
    assert err.startswith(f"Left out: {path}, line 2 is not")
    assert err.count("\n") == 1
    assert "the good one" in page.read_text(encoding="utf-8")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda inner:
       st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["question", "text", "rounds", "pieces", "causes",
       "token_ids", "vocabulary", "threshold"]), inner, max_size=4), max_leaves=10))  # fmt: skip
def test_any_json_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_text(json.dumps(value) + "\n")
    told: list[str] = []
    try:
        assert answers_page("t", read_samples(path, on_bad=told.append))
    except JudgeDecodingError:
        assert "line 1 is not an answer" in told[0]


@pytest.mark.parametrize(
    ("content", "phrase"),
    [(b"", "has no answers"), (b"\xff\xfe1", "UTF-16"), (b"\n\xff\n", "has no answers"), (None, "Cannot read")],
)
def test_files_that_cannot_be_shown(run: Run, tmp_path: Path, content: bytes | None, phrase: str) -> None:
    if content is not None:
        (tmp_path / "a.jsonl").write_bytes(content)
    code, _, err = run("report", tmp_path / "a.jsonl", "-o", tmp_path / "page.html")
    assert code == 2
    assert phrase in err.splitlines()[-1]
    assert not (tmp_path / "page.html").exists()


# ---- what is recorded


def test_what_was_decoded_is_recorded(decoder: JudgeDecoder) -> None:
    answer = decoder.generate("red blue", 60, threshold=0.5, details=True)
    sample = record("red blue", answer.rounds, answer.pieces, decoder, threshold=0.5)
    assert sample.text == answer.text == "".join(piece for event in sample.rounds for piece in event.pieces)
    assert sample.stats == Stats.of(answer.rounds).to_dict()
    assert any("rescued" in event.causes for event in sample.rounds)
    for event, own in zip(answer.rounds, sample.rounds, strict=True):
        assert (own.token_ids, own.causes, own.draft_ids) == (event.token_ids, event.causes, event.draft_ids)
        assert (own.scores, own.target_ids) == (event.scores, event.target_ids)
        assert own.details is not None
        assert own.details.ranks == tuple(details.rank for details in event.details or ())
        for token, piece in zip(own.draft_ids[own.accepted :], own.draft_pieces[own.accepted :], strict=True):
            assert piece.strip() == ("" if token < 4 else decoder.tokenizer.decode([token]))
        assert set(own.target_ids) <= set(sample.vocabulary)
    assert Sample.model_validate_json(sample.model_dump_json()) == sample


def test_special_tokens_are_named(decoder: JudgeDecoder) -> None:
    event = Round((4, EOS), (4, EOS), (Cause.AGREED, Cause.AGREED), (4, EOS, 5), stopped=True)
    sample = record("q", [event], pieces(decoder.tokenizer, [4, EOS]), decoder)
    assert sample.special_ids == sample.end_ids == (EOS,)
    assert sample.vocabulary[EOS] == "</s>"
    assert sample.rounds[0].pieces == ("one", "")


def test_the_rest_of_a_draft_is_read_where_it_stands(target: LlamaForCausalLM) -> None:
    """The rejected token begins inside a character, and the next one goes on with it."""
    tokenizer = byte_level_tokenizer()
    ids = tokenizer("x €", add_special_tokens=False)["input_ids"]
    draft, own = tuple(ids), tokenizer("y")["input_ids"][0]
    event = Round(
        draft, (*draft[:2], own), (Cause.AGREED, Cause.AGREED, Cause.CORRECTION), (*draft[:2], own, *draft[:3])
    )
    sample = record("q", [event], pieces(tokenizer, event.token_ids), JudgeDecoder(target, tokenizer))
    assert sample.rounds[0].draft_pieces == ("x", " ", "", "", "€")
    assert sample.rounds[0].pieces == ("x", " ", "y")


def test_spellings_keep_the_space_and_name_parts_of_characters() -> None:
    tokenizer = byte_fallback_tokenizer()
    ids = tokenizer("a €", add_special_tokens=False)["input_ids"]
    told = spellings(tokenizer, {*ids, 2})
    assert told[tokenizer.vocab["▁"]] == " "
    assert told[tokenizer.vocab["<0xE2>"]] == "<0xE2>"
    assert told[2] == "</s>"
    assert spellings(tokenizer, {10**6})[10**6] == "<1000000>"


def test_the_threshold_is_told_where_the_judge_alone_decides(head: JudgeHead) -> None:
    assert recorded_threshold(Judge(head, 0.25)) == 0.25
    assert recorded_threshold(Judge(head, 0.25) | TopK(2)) is None
    assert recorded_threshold(Judge(head, 0.25), [Budget(3)]) is None
    assert recorded_threshold(Exact()) is None


# ---- the page


class Reader(HTMLParser):
    """The elements of a page, and what its scripts hold."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def parsed(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_hostile_text_makes_no_element() -> None:
    page, plain = answers_page(HOSTILE, [hostile()]), answers_page("t", [hostile("text")])
    assert parsed(page).tags == parsed(plain).tags
    assert not {name for name in parsed(page).attributes if name.startswith("on")}
    data = json.loads(parsed(page).scripts[0])
    assert data["samples"][0]["rounds"][0]["pieces"] == [HOSTILE, HOSTILE]
    assert page.count("<script") == 2
    assert "\u2028" not in parsed(page).scripts[0]


def test_the_page_runs_its_own_script_alone_and_asks_nobody() -> None:
    page = answers_page("t", [known()])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    script = parsed(page).scripts[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "http"):
        assert word not in script
    assert "http" not in page.replace("http-equiv", "")


def test_the_header_adds_up() -> None:
    facts = summary([known(correct=True, seconds=2.0, target_seconds=4.0, target_tokens=6), known(correct=False)])
    assert facts["answers"] == "2"
    assert facts["right"] == "1 of 2"
    assert facts["mean acceptance length"] == "3.50"  # 7 tokens in 2 rounds
    assert facts["accepted draft tokens per round"] == "2.50"
    assert facts["draft tokens accepted"] == "71.4% of 14"
    assert facts["rescued tokens"] == "4 of 14 (28.6%)"
    assert facts["tokens per second"] == "4, 2.33 times the target alone"  # 7 / 2 s against 6 / 4 s
    assert facts["rule"] == "judge(threshold=0.5)"
    assert "target" not in facts
    assert "right, the target alone" not in facts
    assert summary([Sample(question="", text="", rounds=())])["mean acceptance length"] == "0.00"


def test_no_more_than_asked_for_is_shown(run: Run, tmp_path: Path) -> None:
    write_samples(tmp_path / "a.jsonl", [known(question=f"question {i}") for i in range(3)])
    args = ("report", tmp_path / "a.jsonl", tmp_path / "a.jsonl", "-o", tmp_path / "page.html", "--show", 2)
    assert run(*args) == (0, f"6 answers read, the first 2 of them shown in {tmp_path / 'page.html'}.\n", "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<details class="answer"') == 2
    assert "the first 2 answers" in page
    assert "question 2" not in page


def test_from_generate_to_the_page(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    record, page = tmp_path / "a.jsonl", tmp_path / "page.html"
    pair = ("generate", folders["target"], "red blue", "--no-chat", "--max-new-tokens", 40, "--draft", folders["draft"])
    code, out, _ = run(
        *pair, "--judge", folders["judge"], "--threshold", 0.4, "--out", record, "--with-target", "--plain"
    )
    assert code == 0
    (sample,) = read_samples(record)
    assert out == sample.text + "\n"
    assert (sample.question, sample.threshold, sample.rule) == ("red blue", 0.4, "judge(threshold=0.4)")
    assert (sample.target, sample.judge) == (str(folders["target"]), str(folders["judge"]))
    assert all(event.details is not None for event in sample.rounds)
    alone = run(*pair, "--plain")[1]
    assert sample.target_text is not None
    assert alone == sample.target_text + "\n"
    assert run("report", record, "-o", page)[0] == 0
    assert page.read_text(encoding="utf-8").count('<details class="answer"') == 1


def test_the_targets_answer_needs_a_place(run: Run, folders: dict[str, Path]) -> None:
    is_one_sentence(run("generate", folders["target"], "one", "--no-chat", "--with-target"), "--out and --json")


# ---- in a notebook


def test_a_notebook_shows_each_token_by_its_cause(decoder: JudgeDecoder) -> None:
    answer = decoder.generate("red blue", 60, threshold=0.5)
    html = answer._repr_html_()
    assert {"span", "div"} == set(parsed(html).tags)
    causes = Stats.of(answer.rounds).causes
    assert causes[Cause.RESCUED] > 1
    rescued = [s for e in answer.rounds for s, c in zip(e.scores or (), e.causes, strict=False) if c is Cause.RESCUED]
    for score in rescued:
        assert f'title="rescued, score {score:.3f}"' in html
    assert html.count('title="rescued') == len(rescued)
    assert f"{len(answer.token_ids)} tokens" in html


def test_a_notebook_takes_nothing_for_html() -> None:
    from judge_decoding.report.fragment import answer_fragment

    event = Round((1,), (1, 2), (Cause.RESCUED, Cause.BONUS), (3, 2), scores=(0.75,))
    assert (
        parsed(answer_fragment([HOSTILE, HOSTILE], [event])).tags == parsed(answer_fragment(["a", "b"], [event])).tags
    )
