"""Labels of swapped tokens: by likelihood against the formula, by equivalence against the plain algorithm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from commands import Run, ends_in_one_sentence
from endpoint import Response, Serve, completed
from judge_decoding import Case, JudgeDecoder, JudgeDecodingError, read_cases, write_cases
from judge_decoding.cli.run.swaps import duration
from judge_decoding.data.tokens import check_tokens
from judge_decoding.labelling.labels.equivalence import label_by_equivalence
from judge_decoding.labelling.labels.likelihood import LikelihoodConfig, label_by_likelihood
from judge_decoding.labelling.labels.progress import LabellingProgress
from judge_decoding.models.text import pieces
from judge_decoding.tasks.results import result_function
from judge_decoding.training.labels import encode
from tiny import EOS, bigram, greedy, perturbed, word_tokenizer

# A verdict needs a text: the model has more tokens than the tokenizer, and special ones have none but the end.
SHOWN = {EOS, *range(4, 24)}

QUESTIONS = ["one two", "red blue up", "cat dog", "nine ten good bad", "left"]


@pytest.fixture(scope="module")
def decoder(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> JudgeDecoder:
    return JudgeDecoder(target, tokenizer, perturbed(target, 0.1))


@pytest.mark.parametrize("suffix", [1, 3, 20])
def test_likelihood_is_the_papers_score(suffix: int) -> None:
    torch.manual_seed(0)
    logits, other = torch.randn(2, 24, 24) * 2  # every token has a text
    p, q = logits.log_softmax(-1), other.argmax(-1)
    tokenizer = word_tokenizer()
    pair = JudgeDecoder(bigram(logits), tokenizer, bigram(other))
    prompt, answer = tokenizer("one two")["input_ids"], torch.randint(4, 24, (12,)).tolist()
    cases, forwards = label_by_likelihood(pair, "one two", answer, LikelihoodConfig(-4.0, suffix))
    line = [prompt[-1], *answer]
    places = [i for i in range(12) if q[line[i]] != answer[i]]
    expected = {}
    for i in places:
        z, y = int(q[line[i]]), answer[i]
        score = float(p[line[i], z] - p[line[i], y])
        if i < 11:  # only the next token depends on the swapped one
            score += float(p[z, answer[i + 1]] - p[y, answer[i + 1]])
        expected[tuple(prompt + answer[:i] + [z])] = score
    assert forwards == 1 + len(places)
    # Special tokens have no text, and a verdict needs one.
    shown = {
        ids: score for ids, score in expected.items() if ids[-1] not in tokenizer.all_special_ids or ids[-1] == EOS
    }
    assert {case.token_ids: case.score for case in cases} == pytest.approx(shown, abs=1e-4)
    for case in cases:
        assert case.score is not None
        assert bool(case.errors) == (case.score <= -4.0)
        labels = encode(case, tokenizer, "from_error").labels
        assert labels[-1] == (case.score > -4.0)
        assert set(labels[:-1]) == {-1}


def naive(
    target: PreTrainedModel, draft: PreTrainedModel, prompt: list[int], result: object, count: int
) -> tuple[list[int], list[int], list[tuple[int, ...]]]:
    """AutoJudge's algorithm 1 by transformers' own ``generate``, one forward at a time."""

    def finish(start: list[int]) -> list[int]:
        if (start and start[-1] == EOS) or len(start) == count:
            return start
        return start + greedy(target, prompt + start, count - len(start), stop=True)

    answer = finish([])
    wanted, left = result(answer), 0  # type: ignore[operator]
    kept: list[Any] = []
    wrong: list[Any] = []
    while True:
        choices = draft(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].argmax(-1).tolist()
        place = next((i for i in range(left, len(answer)) if choices[i] != answer[i]), None)
        if place is None:
            return answer, kept, wrong
        tried = [*answer[:place], choices[place]]
        whole = finish(tried)
        if result(whole) == wanted:  # type: ignore[operator]
            answer = whole
            kept.append(place)
        else:
            wrong.append(tuple(tried))
        left = place + 1


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
def test_equivalence_is_the_semi_greedy_search(decoder: JudgeDecoder, batch_size: int) -> None:
    tokenizer = decoder.tokenizer

    def result(text: str) -> str:
        return str(len(text) % 3)

    told: dict[str, int] = {}
    cases = label_by_equivalence(
        decoder, QUESTIONS, result, max_new_tokens=24, batch_size=batch_size,
        done=lambda question, found, forwards: told.update({question: forwards}),
    )  # fmt: skip
    assert set(told) == set(QUESTIONS)
    assert min(told.values()) > 0
    labels = 0
    for question in QUESTIONS:
        prompt = list(tokenizer(question)["input_ids"])
        answer, kept, wrong = naive(
            decoder.target, decoder.draft, prompt, lambda ids: result("".join(pieces(tokenizer, ids))), 24  # type: ignore[arg-type]
        )  # fmt: skip
        own = [case for case in cases if case.question == question]
        assert {case.token_ids for case in own if case.errors} == {(*prompt, *row) for row in wrong if row[-1] in SHOWN}
        right = [case for case in own if not case.errors]
        kept = [place for place in kept if answer[place] in SHOWN]
        assert [case.token_ids for case in right] == ([(*prompt, *answer)] if kept else [])
        for case in right:
            used = [i for i, mark in enumerate(encode(case, tokenizer, "from_error").labels) if mark != -1]
            assert used == [len(prompt) + place for place in kept]
        labels += len(own)
        for case in own:
            check_tokens(case, tokenizer)
    assert labels > 10


def test_labelling_needs_a_draft_model(decoder: JudgeDecoder) -> None:
    alone = JudgeDecoder(decoder.target, decoder.tokenizer)
    with pytest.raises(JudgeDecodingError, match="needs a draft model"):
        label_by_equivalence(alone, QUESTIONS, str)
    with pytest.raises(JudgeDecodingError, match="suffix is 0"):
        LikelihoodConfig(0.0, suffix=0)


@pytest.mark.parametrize(
    ("spelling", "answer", "result"),
    [
        ("number", "3 eggs and 1,234.50 then", "1234.5"),
        ("number", "it is 10.", "10"),
        ("number", "so 12-3", "3"),
        ("number", "so 12 - -3", "-3"),
        ("number", "none", None),
        ("choice", "So I say (B).", "B"),
        ("choice", "the end", None),
        ("text", " a  b\n", "a b"),
        ("regex:A: (\\w+)", "A: x A: y", "y"),
        ("regex:z", "abc", None),
        ("builtins:str", "x", "x"),
    ],
)
def test_results(spelling: str, answer: str, result: str | None) -> None:
    assert result_function(spelling)(answer) == result


@pytest.mark.parametrize("spelling", ["nonsense", "regex:(", "no_module:x", "builtins:nothing", "math:pi", ":x"])
def test_results_that_are_not_there(spelling: str) -> None:
    with pytest.raises(JudgeDecodingError):
        result_function(spelling)


def test_progress_goes_on_where_it_was(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out.jsonl"
    progress = LabellingProgress(output, {"target": "t"})
    one = Case(question="q", answer="a", judged=((0, 1),))
    progress.add("q", [one])
    with progress.part.open("a") as file:
        file.write('{"key": "half')
    again = LabellingProgress(output, {"target": "t"})
    assert again.done == {"q": [one]}
    again.add("r", [])
    third = LabellingProgress(output, {"target": "t"})
    assert third.done == {"q": [one], "r": []}
    with pytest.raises(JudgeDecodingError, match="started with target t, not u"):
        LabellingProgress(output, {"target": "u"})
    third.add("s", [one])
    assert third.finish(["q", "r"]) == [one]  # another run's question is left out
    assert read_cases(output) == [one]
    assert not third.part.exists()
    with pytest.raises(JudgeDecodingError, match="nothing to label"):
        LabellingProgress(output, {}).finish(["q"])
    # Begun and nothing done: nothing is left behind, and a part with nothing but settings gives way to others.
    LabellingProgress(output, {"target": "w"})
    assert not third.part.exists()
    third.part.write_text('{"settings": {"target": "w"}}\n')
    assert LabellingProgress(output, {"target": "x"}).done == {}
    assert not third.part.exists()
    third.part.write_text("something else")
    with pytest.raises(JudgeDecodingError, match="not unfinished work"):
        LabellingProgress(output, {})


def test_an_endpoint_finishes_the_answers(
    court: Run, serve: Serve, folders: dict[str, Path], questions: Path, tmp_path: Path
) -> None:
    target = LlamaForCausalLM.from_pretrained(folders["target"])
    args: tuple[object, ...] = (
        "label",
        "equivalence",
        questions,
        "--checker",
        "exact",
        "--max-new-tokens",
        12,
        "--yes",
    )
    args = (*args, "--target", folders["target"], "--draft", folders["draft"])

    def answer(body: dict[str, Any], _: int) -> Response:
        assert body["return_token_ids"]
        ids = greedy(target, body["prompt"], body["max_tokens"], stop=True)
        choice = {"index": 0, "finish_reason": "stop" if ids[-1] == EOS else "length", "text": "", "token_ids": ids}
        return Response(body={"object": "text_completion", "choices": [choice]})

    server = serve(answer)
    near, far = tmp_path / "near.jsonl", tmp_path / "far.jsonl"
    assert court(*args, "-o", near)[0] == 0
    assert not server.bodies
    code, _, err = court(*args, "-o", far, "--endpoint", "far-away")
    assert code == 0, err
    assert server.bodies
    assert {body["model"] for body in server.bodies} == {"far-away"}
    by_text = sorted(case.model_dump_json() for case in read_cases(far))
    assert by_text == sorted(case.model_dump_json() for case in read_cases(near))


def test_an_endpoint_without_token_ids_is_refused(
    court: Run, serve: Serve, folders: dict[str, Path], questions: Path, tmp_path: Path
) -> None:
    serve(lambda *_: completed("some words"))
    out = tmp_path / "out.jsonl"
    args: tuple[object, ...] = (
        "label",
        "equivalence",
        questions,
        "-o",
        out,
        "--target",
        folders["target"],
        "--draft",
        folders["draft"],
    )
    ends_in_one_sentence(court(*args, "--endpoint", "m", "--yes"), "returns no token ids")
    assert not out.exists()


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    write_cases(tmp_path / "questions.jsonl", [Case(question=q, answer=" good bad cat dog") for q in QUESTIONS])
    return tmp_path / "questions.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("way", [("equivalence", "--checker", "exact"), ("likelihood", "--label-threshold", "-3"),
                                 ("likelihood", "--label-threshold", "-3", "--given")])  # fmt: skip
def test_labels_train_a_judge(
    court: Run, folders: dict[str, Path], questions: Path, tmp_path: Path, way: tuple[str, ...]
) -> None:  # fmt: skip
    out = tmp_path / "labels.jsonl"
    args: tuple[object, ...] = (
        "label",
        way[0],
        questions,
        "-o",
        out,
        "--target",
        folders["target"],
        "--draft",
        folders["draft"],
    )
    given = "--given" in way
    budget = ("--suffix", 7) if given else ("--max-new-tokens", 16)
    args += (*(() if given else ("--batch-size", 2)), *budget, *way[1:])
    # Nobody agrees to the cost: what was measured is kept, and nothing else is written.
    ends_in_one_sentence(court(*args), "add --yes")
    assert not out.exists()
    kept = out.with_name("labels.jsonl.part").read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in kept[1:]) == sorted(QUESTIONS[:3])
    name = "suffix" if given else "max_new_tokens"
    other = court(*args, budget[0], budget[1] + 1)
    ends_in_one_sentence(other, f"was started with {name} {budget[1]}")
    code, told, err = court(*args, "--yes")
    assert code == 0, err
    assert "3 of 5 questions are already done" in err
    assert "target forwards" in told
    assert "labels" in told
    found = read_cases(out)
    assert {case.source for case in found} == {way[0]}
    assert {case.question for case in found} <= set(QUESTIONS)
    # Stopped or not, the labels are the same.
    assert court(*args, "--yes", "-o", tmp_path / "at-once.jsonl")[0] == 0
    assert read_cases(tmp_path / "at-once.jsonl") == found


def test_what_can_be_wrong_with_labelling(
    court: Run, folders: dict[str, Path], questions: Path, tmp_path: Path
) -> None:  # fmt: skip
    args: tuple[object, ...] = (
        "label",
        "equivalence",
        questions,
        "-o",
        tmp_path / "out",
        "--target",
        folders["target"],
    )
    ends_in_one_sentence(court(*args), "give one with --draft")
    told = [duration(seconds) for seconds in (0.2, 42.4, 89.9, 90.1, 5400, 10_000)]
    assert told == ["1 s", "42 s", "90 s", "1.5 minutes", "90.0 minutes", "2.8 hours"]
