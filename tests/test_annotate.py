"""Labelling by hand without the page: pieces of an answer, the decisions file, order and repeats, agreement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_decoding import Case, JudgeDecodingError, read_cases
from judge_decoding.data.agreement import cohens_kappa
from judge_decoding.judge.head import JudgeHead
from judge_decoding.labelling.annotate import agreement, reading
from judge_decoding.labelling.annotate.pieces import case_id, cover, pieces_of, span_of, word_pieces
from judge_decoding.labelling.annotate.queue import Queue
from judge_decoding.labelling.annotate.reading import ReadingModels, read_answers
from judge_decoding.labelling.annotate.session import Decision, Session, StaleError
from judge_decoding.labelling.annotate.storage import DecisionLog, Event, read_events, readings_path, standing

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
ANSWERS = [Case(question=f"q{i}", answer=f"one two {i}", writer="a secret model") for i in range(10)]


def label(case: str, *errors: tuple[int, int], repeat: bool = False, who: str = "ann") -> Event:
    return Event(action="label", case=case, errors=errors, repeat=repeat, annotator=who)


# Pieces


@given(text=TEXT)
def test_words_are_the_whole_text(text: str) -> None:
    spans = word_pieces(text)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(start < end for start, end in spans)


def test_words_are_cut_where_a_person_would() -> None:
    text = 'So it\'s 1,200.5 (not "3")!\n\nनमस्ते 你好'
    cut = [text[start:end].strip() for start, end in word_pieces(text)]
    assert cut == ["So", "it's", "1,200.5", "(", "not", '"', "3", '"', ")", "!", "नमस्ते", "你", "好"]


@given(text=TEXT, data=st.data())
def test_a_span_is_found_again(text: str, data: st.DataObject) -> None:
    pieces = word_pieces(text)
    last = data.draw(st.integers(0, len(pieces)))
    first = data.draw(st.integers(0, last))
    span = span_of(text, pieces, first, last)
    assert 0 <= span[0] <= span[1] <= len(text)
    assert pieces_of(pieces, span) == (first, first if first == len(pieces) else min(last, len(pieces) - 1))


def test_a_span_leaves_out_the_space_before_it() -> None:
    assert span_of("a  bc d", [(0, 1), (1, 5), (5, 7)], 1, 2) == (3, 7)
    assert span_of("a  ", [(0, 1), (1, 3)], 1, 1) == (1, 3)


@given(length=st.integers(0, 12), offsets=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=8))
def test_tokens_cover_an_answer_without_holes(length: int, offsets: list[tuple[int, int]]) -> None:
    spans = [span for _, span in cover(length, offsets)]
    assert [place for span in spans for place in range(*span)] == list(range(length))


def test_the_bytes_of_a_character_are_one_piece() -> None:
    assert cover(4, [(0, 1), (1, 2), (1, 2), (1, 2), (3, 4)]) == [(0, (0, 1)), (1, (1, 2)), (4, (2, 4))]


# The decisions file


def test_decisions_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "decisions-ann.jsonl"
    events = [label("a", (1, 2)), Event(action="undo", annotator="ann"), label("\u2028")]
    with DecisionLog(path) as log:
        for event in events:
            log.append(event)
        assert read_events(path) == events
    with DecisionLog(path) as log:
        assert log.events == events
        assert not log.repaired


def test_a_half_written_last_line_is_repaired_wherever_it_breaks(tmp_path: Path) -> None:
    path = tmp_path / "decisions-ann.jsonl"
    with DecisionLog(path) as log:
        log.append(label("a"))
        log.append(label("é", (0, 3)))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert len(read_events(path)) == 1 + (cut >= len(whole) - 1)
        assert path.read_bytes() == whole[:cut], "reading must not repair what somebody else is writing"
        with DecisionLog(path) as log:
            assert log.repaired == (first < cut < len(whole) - 1)
            log.append(label("b"))
        assert [event.case for event in read_events(path)] == ["a", *["é"] * (cut >= len(whole) - 1), "b"]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "decisions-ann.jsonl"
    path.write_text('{"action": "label", "annotator": "ann"}\nnonsense\n')
    with pytest.raises(JudgeDecodingError, match="line 2 is not a decision"):
        DecisionLog(path)
    assert path.read_text().count("\n") == 2


def test_a_file_in_use_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="files are locked with fcntl, which this system lacks")
    path = tmp_path / "decisions-ann.jsonl"
    with DecisionLog(path), pytest.raises(JudgeDecodingError, match="in use"):
        DecisionLog(path)
    with DecisionLog(path):
        pass


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = tmp_path / "decisions-ann.jsonl"
    with DecisionLog(path) as log:
        log.append(label("a"))
        real = os.write

        def full(file: int, line: bytes) -> int:
            if len(line) > 9:
                return real(file, line[:9])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", lambda file, line: full(file, line) if len(line) != 9 else full(file, b""))
        with pytest.raises(JudgeDecodingError, match="No space left"):
            log.append(label("b" * 13 + "c" * 9))
        monkeypatch.undo()
        assert [event.case for event in log.events] == ["a"]
        log.append(label("d"))
    assert [event.case for event in read_events(path)] == ["a", "d"]


def test_undo_takes_back_one_event_each() -> None:
    undo = Event(action="undo", annotator="ann")
    a, b = label("a"), label("b")
    assert standing([a, b, undo]) == ([a], b)
    assert standing([a, b, undo, undo]) == ([], a)
    assert standing([undo, a]) == ([a], None)


# Order and repeats


def run_through(queue: Queue, skip: frozenset[str] = frozenset()) -> list[tuple[str, bool]]:
    events: list[Event] = []
    seen = []
    while turn := queue.next(events):
        seen.append((turn.case, turn.repeat))
        action: Literal["skip", "label"] = "skip" if turn.case in skip else "label"
        events.append(Event(action=action, case=turn.case, repeat=turn.repeat, annotator="ann"))
        progress = queue.progress(events)
        assert progress.done == len(events)
    assert progress.done == progress.total
    assert not queue.open_cases(events) - skip
    return seen


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_each_case_comes_once_and_some_twice(count: int) -> None:
    names = [f"case {i}" for i in range(count)]
    queue = Queue(names, "ann", repeats=0.1)
    seen = run_through(queue)
    assert sorted(case for case, repeat in seen if not repeat) == sorted(names)
    again = [case for case, repeat in seen if repeat]
    assert len(again) == len(set(again)) == -(-count // 10)
    first = [case for case, repeat in seen if not repeat]
    if count == 100:
        places = {case: seen.index((case, False)) for case in first}
        gaps = [seen.index((case, True)) - places[case] for case in again]
        # One drawn near the end has to come sooner.
        assert all(gap > 20 for case, gap in zip(again, gaps, strict=True) if places[case] < 60)
        assert len(set(gaps)) > 3


def test_the_order_is_one_for_all_annotators_and_the_repeats_are_not() -> None:
    names = [f"case {i}" for i in range(50)]
    ann, bob = (Queue(names, name) for name in ("ann", "bob"))
    assert ann.order == bob.order != names
    assert ann.order == Queue(names[::-1], "ann").order != Queue(names, "ann", seed=1).order
    assert ann.repeated != bob.repeated


def test_what_the_head_doubts_comes_first() -> None:
    queue = Queue(["a", "b", "c", "d"], "ann", uncertainty={"a": 0.1, "b": 0.9, "c": 0.5}, repeats=0)
    assert queue.order == ["b", "c", "a", "d"]


def test_skipped_cases_come_back_when_asked_for() -> None:
    queue = Queue(["a", "b", "c"], "ann", repeats=1)
    seen = run_through(queue, skip=frozenset("b"))
    assert [case for case, _ in seen].count("b") == 1
    events = [Event(action="skip", case="b", annotator="ann"), label("a"), label("c")]
    events += [label("a", repeat=True), label("c", repeat=True)]
    assert queue.next(events) is None
    assert queue.progress(events).skipped == 1
    events.append(Event(action="reopen", annotator="ann"))
    turn = queue.next(events)
    assert turn is not None
    assert turn.case == "b"


@pytest.mark.parametrize("repeats", [-0.1, 1.1, float("nan")])
def test_repeats_are_a_share(repeats: float) -> None:
    with pytest.raises(JudgeDecodingError, match="between 0 and 1"):
        Queue(["a"], "ann", repeats=repeats)


# Agreement


def test_kappa_of_worked_examples() -> None:
    """The usual example of two who read 50 proposals, and the limits."""
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert cohens_kappa(first, second) == pytest.approx(0.4)
    assert cohens_kappa("abab", "abab") == 1
    assert cohens_kappa("abab", "baba") == -1
    assert cohens_kappa("aabb", "abab") == 0
    assert cohens_kappa("aaaa", "aaaa") is None
    assert cohens_kappa([], []) is None
    with pytest.raises(ValueError, match="shorter"):
        cohens_kappa("aa", "a")


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_kappa_is_symmetric_and_at_most_one(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    kappa = cohens_kappa(first, second)
    assert kappa == cohens_kappa(second, first)
    assert kappa is None or -1 <= kappa <= 1 + 1e-12
    if first == second and len(set(first)) > 1:
        assert kappa == 1


def test_two_annotators_compared() -> None:
    pieces = {name: [(0, 2), (2, 4)] for name in "abcde"}
    ann = {"a": (), "b": ((0, 2),), "c": ((2, 4),), "d": ()}
    bob = {"a": (), "b": ((0, 1),), "c": ((4, 4),), "d": ((0, 4),), "e": ()}
    found = agreement.compare(ann, bob, pieces, ("ann", "bob"))
    assert (found.cases, found.same_verdict, found.both_wrong, found.same_place) == (4, 3, 2, 1)
    assert found.verdict_kappa == pytest.approx(0.5)
    # Of 4 x 3 pieces ann has 3+0+1+3 right, bob 3+0+2+0, both together 3+0+1+0 right and 0+3+1+0 wrong.
    share = (7 * 5 + 5 * 7) / 144
    assert found.token_kappa == pytest.approx((8 / 12 - share) / (1 - share))
    assert agreement.differing({"ann": ann, "bob": bob}, pieces) == ["d", "c"]
    assert agreement.pairs({"ann": ann, "bob": bob, "eve": {}}, pieces)[1].verdict_kappa is None


def test_agreement_with_oneself() -> None:
    pieces = {name: [(0, 2)] for name in "ab"}
    events = [label("a"), label("b"), label("a", (0, 2), repeat=True)]
    found = agreement.self_agreement("ann", events, pieces)
    assert (found.cases, found.same_verdict) == (1, 0)


# The session


def decide(session: Session, action: str, **more: object) -> None:
    turn = session.state()["turn"]
    session.decide(Decision(action=action, turn=turn, key=f"key number {turn}", **more))  # type: ignore[arg-type]


def test_ten_cases_through_a_kill(tmp_path: Path) -> None:
    session = Session(ANSWERS, tmp_path, "ann", repeats=0)
    assert not session.cases_path.exists()
    for number in range(5):
        assert session.state()["done"] == number
        decide(session, "mark" if number % 2 else "correct", first=1, last=2, seconds=1.5)
    session.log.close()  # as the end of a process does
    with (tmp_path / "decisions-ann.jsonl").open("ab") as file:
        file.write(b'{"action":"lab')
    session = Session(ANSWERS, tmp_path, "ann", repeats=0)
    assert session.log.repaired
    for _ in range(5):
        decide(session, "correct")
    assert session.state()["case"] is None
    cases = read_cases(session.cases_path)
    assert sorted(case.question for case in cases) == sorted(case.question for case in ANSWERS)
    assert [bool(case.errors) for case in cases[:5]] == [False, True, False, True, False]
    assert cases[1].errors == ((4, 9),)
    assert {(case.annotator, case.source, case.writer) for case in cases} == {("ann", "human", "a secret model")}
    assert cases[0].seconds == 1.5
    session.log.close()


def test_nothing_tells_who_wrote_it_or_what_the_label_was(tmp_path: Path) -> None:
    labelled = Case(question="q", answer="abc", errors=((0, 3),), writer="secret", source="secret", annotator="secret")
    session = Session([labelled], tmp_path, "ann", repeats=1)
    decide(session, "correct")
    shown = session.state()
    assert "secret" not in json.dumps(shown)
    assert set(shown["case"]) == {"question", "reference", "pieces", "ended", "choices", "selected"}
    assert not any("repeat" in key for key in (*shown, *shown["case"]))


def test_undo_shows_the_case_again_with_what_was_marked(tmp_path: Path) -> None:
    session = Session(ANSWERS, tmp_path, "ann")
    before = session.state()["case"]
    decide(session, "mark", first=1, last=2)
    decide(session, "undo")
    assert session.state()["case"] == {**before, "selected": (1, 2)}
    decide(session, "correct")
    assert session.labelled()[0].errors == ()
    decide(session, "undo")
    with pytest.raises(JudgeDecodingError, match="nothing to undo"):
        decide(session, "undo")
    assert session.cases_path.read_text() == ""


def test_a_decision_sent_twice_is_saved_once_and_a_stale_one_not_at_all(tmp_path: Path) -> None:
    session = Session(ANSWERS, tmp_path, "ann")
    decision = Decision(action="correct", turn=0, key="the same key")
    session.decide(decision)
    session.decide(decision)
    assert len(session.log.events) == 1
    session.log.close()
    session = Session(ANSWERS, tmp_path, "ann")
    session.decide(decision)  # the page did not hear that it was saved, and the server was started again
    assert len(session.log.events) == 1
    with pytest.raises(StaleError, match="another window"):
        session.decide(Decision(action="correct", turn=0, key="another key"))


def test_the_end_of_an_answer_can_be_wrong_if_it_has_one(tmp_path: Path) -> None:
    cases = [Case(question="q", answer="one two"), Case(question="q", answer="one two", ended=False)]
    session = Session(cases, tmp_path, "ann", repeats=0)
    for _ in cases:
        if session.state()["case"]["ended"]:
            decide(session, "mark", first=2, last=2)
        else:
            with pytest.raises(JudgeDecodingError, match="not in this answer"):
                decide(session, "mark", first=2, last=2)
            decide(session, "mark", first=0, last=0)
    assert {case.ended: case.errors for case in session.labelled()} == {True: ((7, 7),), False: ((0, 3),)}


def test_an_empty_answer_and_equal_answers(tmp_path: Path) -> None:
    session = Session([Case(question="q", answer=""), Case(question="q", answer="")], tmp_path, "ann", repeats=0)
    assert session.state()["total"] == 1
    decide(session, "mark", first=0, last=0)
    assert session.labelled()[0].errors == ((0, 0),)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 65, "a\n"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JudgeDecodingError, match="annotator's name"):
        Session(ANSWERS, tmp_path, name)


def test_differences_are_not_shown_before_the_own_verdict(tmp_path: Path) -> None:
    cases = ANSWERS[:2]
    for name, action in (("ann", "correct"), ("bob", "mark"), ("eve", "skip")):
        session = Session(cases, tmp_path, name, repeats=0)
        for _ in cases:
            decide(session, action)
        session.log.close()
    found = Session(cases, tmp_path, "bob", repeats=0).agreement()
    assert [case["right"] for case in found["differing"]] == [["ann"]] * 2
    assert found["differing"][0]["pieces"][0] == ("", "one", ["bob"])
    assert found["annotators"] == [("ann", 2), ("bob", 2), ("eve", 0)]
    blind = Session(cases, tmp_path, "new", repeats=0).agreement()
    assert (blind["differing"], blind["hidden"]) == ([], 2)


# What the target makes of the answers


def test_the_target_reads_each_answer_once(folders: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    cases = [Case(question="one two", answer=" good cat"), Case(question="up", answer=" down", ended=False)]
    cases += [Case(question="up", answer=""), Case(question="up", answer=" one" * 300)]
    head = JudgeHead.from_pretrained(folders["judge"])
    reader = ReadingModels(str(folders["target"]), head)
    found = read_answers(cases, reader, tmp_path)
    assert found.keys() == {case_id(case) for case in cases[:2]}
    first = found[case_id(cases[0])]
    assert first.spans == ((0, 5), (5, 9))
    assert len(first.choices) == 3
    assert all(0.01 <= probability <= 1 for choice in first.choices for _, probability in choice)
    assert 0 <= (first.uncertainty or 0) <= 1
    kept = readings_path(tmp_path).read_bytes()
    readings_path(tmp_path).write_bytes(kept[:-9])  # killed while writing
    assert read_answers(cases, reader, tmp_path) == found
    monkeypatch.setattr(reading, "load_model", None)
    assert read_answers(cases[:2], reader, tmp_path) == found
    with pytest.raises(TypeError):
        read_answers(cases[:2], ReadingModels(str(folders["target"])), tmp_path)


def test_what_the_target_would_have_said_is_its_own_distribution(folders, target, tokenizer, tmp_path: Path) -> None:
    import torch

    case = Case(question="one two", answer=" good cat")
    found = read_answers([case], ReadingModels(str(folders["target"])), tmp_path)[case_id(case)]
    logits = target(torch.tensor([tokenizer("one two good cat")["input_ids"]])).logits[0]
    for place, choices in zip((-3, -2, -1), found.choices, strict=True):
        likeliest = logits[place].softmax(-1).max(-1)
        text = tokenizer.decode([int(likeliest.indices)])
        assert choices[0][0] == (None if text == "</s>" else text)
        assert choices[0][1] == pytest.approx(float(likeliest.values), abs=1e-4)
    assert found.uncertainty is None
