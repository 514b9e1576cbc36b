"""Numbers have bounds, the same on the command line and in Python: nothing hangs, overflows or fills the memory."""

from __future__ import annotations

import inspect
import json
import math
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from commands import Run, commands, is_one_sentence
from judge_decoding import (
    Case,
    FitConfig,
    Fixed,
    JudgeDecoder,
    JudgeDecodingError,
    PromptLookup,
    SamplingParams,
    TrainingConfig,
    write_cases,
)
from judge_decoding.bounds import BOUNDS, check_bound
from judge_decoding.data.sets import rethreshold
from judge_decoding.evaluation.score import ScoreConfig
from judge_decoding.io.endpoint import Endpoint
from judge_decoding.labelling.collect import Answering
from judge_decoding.labelling.labels.likelihood import LikelihoodConfig
from judge_decoding.tasks import parse_task

HUGE = 10**26


@dataclass(frozen=True)
class Number:
    """An option that is a number: the words of its command, what else that wants, and the option with its kind."""

    words: tuple[str, ...]
    needed: tuple[str, ...]
    option: str
    kind: str


def numbers() -> Iterator[Number]:
    """The numbers of all commands."""
    for words, function in commands():
        hints = typing.get_type_hints(function, include_extras=True)
        kinds = {name: str(typing.get_args(hint)[0]) for name, hint in hints.items() if typing.get_args(hint)}
        needed: list[str] = []
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.default is parameter.empty and name in kinds:
                value = "1" if "float" in kinds[name] else "x"
                argument = "ArgumentInfo" in str(hints[name])
                needed += [value] if argument else [spelled(hints[name], name), value]
        for name, kind in kinds.items():
            if re.search(r"\b(int|float)\b", kind) and "OptionInfo" in str(hints[name]):
                yield Number(words, tuple(needed), spelled(hints[name], name), "float" if "float" in kind else "int")


def spelled(hint: Any, name: str) -> str:
    """An option as on the command line."""
    options = [one for one in typing.get_args(hint)[1:] if type(one).__name__ == "OptionInfo"]
    given = [
        one for option in options for one in (option.default, *(option.param_decls or ())) if one not in (None, ...)
    ]
    return str(given[0]) if given else "--" + name.replace("_", "-")


NUMBERS = list(numbers())


@pytest.mark.parametrize("number", NUMBERS, ids=[f"{' '.join(one.words)} {one.option}" for one in NUMBERS])
def test_every_option_has_bounds(run: Run, tmp_path: Path, number: Number, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything else is looked at, and nothing is left."""
    monkeypatch.chdir(tmp_path)
    for value in ("nan", "inf", "-inf", "1e999") if number.kind == "float" else (HUGE, -HUGE):
        code, out, err = run(*number.words, *number.needed, f"{number.option}={value}")
        assert code == 2, out + err
        assert number.option in err
        if "Invalid value" not in err:  # the parser's own bounds say it in their own way
            is_one_sentence((code, out, err), "; it must be ")
    assert list(tmp_path.iterdir()) == []


def test_there_are_numbers() -> None:
    assert len(NUMBERS) > 60
    assert {"--samples", "--threshold", "--temperature", "--seed", "--threads"} <= {one.option for one in NUMBERS}


REFUSED: list[tuple[Callable[..., Any], str, Any]] = [
    (SamplingParams, "temperature", math.inf), (SamplingParams, "temperature", math.nan),
    (SamplingParams, "seed", HUGE), (SamplingParams, "top_k", HUGE), (SamplingParams, "top_p", math.nan),
    (SamplingParams, "repetition_penalty", math.inf), (SamplingParams, "min_p", math.nan),
    (Answering, "samples", 10**20), (Answering, "temperature", math.nan), (Answering, "seed", -HUGE),
    (Answering, "max_new_tokens", 10**20), (Answering, "top_p", math.inf),
    (FitConfig, "points", math.nan), (FitConfig, "batch_size", 10**9), (FitConfig, "seed", HUGE),
    (FitConfig, "thresholds", (0.5, math.nan)), (FitConfig, "exact_lengths", (2, 10**9)),
    (FitConfig, "judge_lengths", (0,)), (FitConfig, "max_new_tokens", 10**20), (FitConfig, "share", math.nan),
    (TrainingConfig, "l2", (1.0, math.inf)), (TrainingConfig, "wrong_weight", math.nan),
    (TrainingConfig, "folds", 10**9), (TrainingConfig, "layers", (-(10**6),)), (TrainingConfig, "seed", HUGE),
    (ScoreConfig, "num_draft_tokens", (10**9,)), (ScoreConfig, "batch_tokens", 10**12),
    (LikelihoodConfig, "threshold", math.nan),
    (lambda suffix: LikelihoodConfig(1.0, suffix), "suffix", 10**9),
    (lambda concurrency: Endpoint("m", concurrency=concurrency), "concurrency", 10**6),
    (lambda retries: Endpoint("m", retries=retries), "retries", 10**6),
    (lambda timeout: Endpoint("m", timeout=timeout), "timeout", math.inf),
    (lambda count: parse_task(f"arithmetic(count={count})"), "count", 999_999_999),
    (lambda threshold: rethreshold([], threshold), "threshold", math.nan),
    (lambda length: Fixed(count=length), "length", 10**9),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name", "value"), REFUSED)
def test_python_functions_have_the_same_bounds(
    call: Callable[..., Any], name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with pytest.raises(JudgeDecodingError, match=r"is .*; it must be .*\.$") as refusal:
        call(**{name: value})
    assert name.rstrip("s") in str(refusal.value)
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_draft_tokens", 10**20), ("temperature", math.inf), ("seed", HUGE), ("threshold", math.nan),
        ("max_new_tokens", 10**20),
    ],
)  # fmt: skip
def test_decoding_has_them(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str, value: float
) -> None:
    decoder = JudgeDecoder(target, tokenizer, PromptLookup())
    options: Any = {name: value}
    for call in (lambda: decoder.generate("one", **options), lambda: decoder.generate_batch(["one"], **options)):
        with pytest.raises(JudgeDecodingError, match=r"must be|needs a judge"):
            call()
    with pytest.raises(JudgeDecodingError, match="batch_size is"):
        decoder.generate_batch(["one"], 4, batch_size=10**9)
    with pytest.raises(JudgeDecodingError, match="num_draft_tokens is"):
        JudgeDecoder(target, tokenizer, PromptLookup(), num_draft_tokens=10**9)


def test_bounds_are_said_in_words() -> None:
    for name, value, told in (
        ("samples", 0, "samples is 0; it must be 1 or more."),
        ("samples", 10**20, "samples is 10000000000000000000...; it must be at most 10,000."),
        ("samples", 10**30, "samples is 10000000000000000000...; it must be at most 10,000."),
        ("timeout", 0, "timeout is 0; it must be above 0."),
        ("top_p", 1.5, "top_p is 1.5; it must be above 0 and at most 1."),
        ("points", -1, "points is -1; it must be 0 to 100."),
        ("anything", math.nan, "anything is nan; it must be a finite number."),
        ("anything", -(10**19), "anything is -1000000000000000000...; it must be -1,000,000,000,000,000,000 or more."),
    ):
        with pytest.raises(JudgeDecodingError) as refusal:
            check_bound(name, value)
        assert str(refusal.value) == told


@pytest.mark.parametrize("name", BOUNDS)
def test_the_ends_of_a_bound_are_in_it(name: str) -> None:
    bound = BOUNDS[name]
    for value in (bound.most, bound.least + 1e-9 if bound.open else bound.least):
        check_bound(name, value)
    assert bound.allowed(bound.least) is None or bound.open
    assert bound.allowed(bound.most * 1.001 + 1)
    assert bound.allowed(bound.least * 1.001 - 1)


@pytest.mark.parametrize("seed", [-(2**63), 2**63 - 1, 2**64 - 1])
def test_every_seed_of_torch_is_one(seed: int) -> None:
    torch.Generator().manual_seed(seed)
    assert SamplingParams(temperature=1.0, seed=seed).seed == seed


def test_what_is_no_number_is_passed_over() -> None:
    for value in (None, True, "x", Path("x"), (), [None, "1"]):
        check_bound("samples", value)


def test_the_fields_that_have_names_of_the_table_are_checked() -> None:
    """Every field with such a name belongs to a class that checks it: it refuses what is far too large."""
    kinds: tuple[Any, ...] = (SamplingParams, Answering, FitConfig, TrainingConfig, ScoreConfig)
    for kind in kinds:
        for name in {field.name for field in fields(kind)} & BOUNDS.keys():
            value: Any = math.inf if BOUNDS[name].most <= 1e9 else HUGE
            given = (value,) if isinstance(getattr(kind(), name), tuple) else value
            with pytest.raises(JudgeDecodingError, match=f"{name} is "):
                kind(**{name: given})


def test_many_answers_of_many_questions(court: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number is small enough, and their product is not."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    questions, cases = tmp_path / "q.jsonl", tmp_path / "c.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{i}?"}) + "\n" for i in range(1001)))
    write_cases(cases, [Case(question=f"{i}?", answer="a", correct=False) for i in range(10_001)])
    before = sorted(tmp_path.iterdir())
    many = court("collect", questions, "-o", tmp_path / "o", "-m", "openai:m", "--samples", 10_000, "--temperature", 1)
    is_one_sentence(many, "The number of answers is 10010000; it must be at most 10,000,000.")
    votes = court("label", "llm", cases, "-o", tmp_path / "o", "-m", "m", "--votes", 1000, "--yes")
    is_one_sentence(votes, "The number of requests is 10001000; it must be at most 10,000,000.")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_large_arithmetic_task_ends() -> None:
    """Many problems are drawn in seconds."""
    from judge_decoding.tasks import read_items

    assert len(read_items(parse_task("arithmetic(count=1000)"))) == 1000
