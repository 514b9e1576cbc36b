"""From labelled answers to a head: labels by character offsets, the fit, the holdout, and what comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from judge_decoding import Case, Cause, JudgeDecoder, JudgeDecodingError, TrainingConfig, train_head
from judge_decoding.judge import training
from judge_decoding.judge.features import hidden_states
from judge_decoding.judge.fitting import fit_linear
from judge_decoding.judge.labels import IGNORED, AfterError, data_hash, encode
from tiny import EOS, SPECIALS, WORDS, Scripted, bigram, llama, word_tokenizer

BAD = len(SPECIALS) + WORDS.index("bad")
GOOD = len(SPECIALS) + WORDS.index("good")


def labels(answer: str, *errors: tuple[int, int], after: AfterError = "wrong", ended: bool = True) -> list[int]:
    """Labels of the answer's tokens and its end; the question's two tokens must be unused."""
    case = Case(question="one two ", answer=answer, errors=errors, ended=ended)
    example = encode(case, word_tokenizer(), after)
    assert len(example.ids) == len(example.labels)
    assert example.labels[:2] == (IGNORED, IGNORED)
    return list(example.labels[2:])


def test_a_right_answer_is_correct_to_its_end() -> None:
    assert labels("three four five") == [1, 1, 1, 1]
    assert labels("three four five", ended=False) == [1, 1, 1]


def test_an_ended_answer_has_the_end_token() -> None:
    tokenizer = word_tokenizer()
    case = Case(question="one ", answer="two")
    assert encode(case, tokenizer, "wrong").ids == (4, 5, EOS)
    assert encode(case.model_copy(update={"ended": False}), tokenizer, "wrong").ids == (4, 5)


@pytest.mark.parametrize(("after", "rest"), [("correct", 1), ("ignore", IGNORED), ("wrong", 0)])
def test_tokens_after_the_error_under_each_reading(after: AfterError, rest: int) -> None:
    assert labels("three bad four five", (6, 9), after=after) == [1, 0, rest, rest, rest]


@pytest.mark.parametrize("span", [(6, 9), (6, 6), (7, 8), (8, 9), (5, 7)])
def test_a_token_that_touches_the_span_is_wrong(span: tuple[int, int]) -> None:
    """``three bad four``: also a part of a word, and the space before it."""
    assert labels("three bad four", span, after="correct") == [1, 0, 1, 1]


def test_a_span_over_two_tokens_makes_both_wrong() -> None:
    assert labels("three bad four", (4, 7), after="correct") == [0, 0, 1, 1]


def test_neighbours_of_a_span_are_not_wrong() -> None:
    assert labels("three bad four", (5, 6), after="correct") == [1, 1, 1, 1]


def test_later_errors_are_wrong_under_each_reading() -> None:
    for after, rest in (("correct", 1), ("ignore", IGNORED), ("wrong", 0)):
        assert labels("bad one bad two", (8, 11), (0, 3), after=after) == [0, rest, 0, rest, rest]


@pytest.mark.parametrize("after", ["correct", "ignore", "wrong"])
def test_an_answer_that_ends_too_early_has_a_wrong_end(after: AfterError) -> None:
    assert labels("three four", (10, 10), after=after) == [1, 1, 0]


def test_an_error_in_the_last_word_leaves_the_end_to_the_reading() -> None:
    assert labels("three bad", (6, 9), after="correct") == [1, 0, 1]
    assert labels("three bad", (6, 9), after="wrong") == [1, 0, 0]


def test_a_token_over_the_end_of_the_question_belongs_to_the_answer() -> None:
    tokenizer = word_tokenizer()
    case = Case(question="two on", answer="e three", ended=False)
    assert encode(case, tokenizer, "wrong").labels == (IGNORED, 1, 1)
    wrong = case.model_copy(update={"errors": ((0, 1),)})
    assert encode(wrong, tokenizer, "correct").labels == (IGNORED, 0, 1)


def test_the_begin_token_is_there_once_and_unused() -> None:
    """Chat templates write it themselves; read as in decoding, it must not be there twice."""
    tokenizer = word_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    plain = encode(Case(question="one ", answer="two", ended=False), tokenizer, "wrong")
    assert (plain.ids, plain.labels) == ((1, 4, 5), (IGNORED, IGNORED, 1))
    chat = encode(Case(question="<s> one ", answer="two", ended=False), tokenizer, "wrong")
    assert (chat.ids, chat.labels) == ((1, 4, 5), (IGNORED, IGNORED, 1))


def objective(parameters: np.ndarray, x: np.ndarray, y: np.ndarray, l2: float) -> float:
    """Mean weighted cross-entropy on standardised features, both classes of equal weight in sum, plus l2 |w|²/2."""
    weight, bias = parameters[:-1], parameters[-1]
    logits = (x - x.mean(0)) / x.std(0, ddof=1) @ weight + bias
    losses = np.where(y == 1, np.logaddexp(0, -logits), np.logaddexp(0, logits))
    return float((losses[y == 1].mean() + losses[y == 0].mean()) / 2 + l2 * weight @ weight / 2)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_the_fit_minimises_its_objective(l2: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator) * torch.tensor([1.0, 10.0, 0.1, 3.0]) + torch.tensor([0.0, 5, -1, 2])
    y = (x[:, 0] + x[:, 1] / 10 + torch.randn(300, generator=generator) > 1.5).long()
    assert 0.1 < y.float().mean() < 0.4
    weight, bias = fit_linear(x, y, l2)
    best = minimize(objective, np.zeros(5), args=(x.double().numpy(), y.numpy(), l2), tol=1e-10)
    scale, mean = x.std(0).double().numpy(), x.mean(0).double().numpy()
    folded = best.x[:-1] / scale
    assert weight.tolist() == pytest.approx(folded.tolist(), rel=5e-3, abs=1e-4)
    assert bias == pytest.approx(best.x[-1] - folded @ mean, rel=5e-3, abs=1e-3)


def test_the_fit_bears_a_feature_that_never_changes() -> None:
    x = torch.cat((torch.randn(50, 1, generator=torch.Generator().manual_seed(0)), torch.full((50, 1), 7.0)), dim=1)
    weight, bias = fit_linear(x, (x[:, 0] > 0).long(), 1e-2)
    assert math.isfinite(bias)
    assert weight[0] > 0
    assert abs(float(weight[1])) < 1e-3


def word_cases(count: int = 40) -> list[Case]:
    """Answers of three words, every second one with a "bad" in it; two answers a question."""
    innocent = [w for w in WORDS if w not in ("good", "bad")]
    made = []
    for i in range(count):
        words = [innocent[(7 * i + 3 * k) % len(innocent)] for k in range(3)]
        errors = []
        if i % 2:
            words[i % 3] = "bad"
            begin = len(" ".join(words[: i % 3])) + (i % 3 > 0)
            errors = [(begin, begin + 3)]
        question = f"{innocent[i // 2 % 18]} {innocent[(i // 36 + i // 2) % 18]} "
        made.append(Case(question=question, answer=" ".join(words), errors=tuple(errors), source="test"))
    return made


@pytest.fixture(scope="module")
def one_hot() -> torch.nn.Module:
    """A target whose hidden state at a token is the token itself, so that "bad" can be told apart exactly."""
    table = torch.zeros(len(SPECIALS) + len(WORDS), len(SPECIALS) + len(WORDS))
    table[:, 4] = 3.0
    return bigram(table)


@pytest.mark.parametrize("norm", ["before", "after"])
def test_separable_tokens_give_a_perfect_head(one_hot: torch.nn.Module, norm: str) -> None:
    told: list[int] = []
    config = TrainingConfig(norm=norm, after_error="correct", holdout=0.3)  # type: ignore[arg-type]
    head = train_head(one_hot, word_tokenizer(), word_cases(), config, progress=told.append)  # type: ignore[arg-type]
    assert sum(told) == 40
    figures = head.config.calibration
    assert (figures["auc"], figures["kept_correct"]) == (1.0, 1.0)
    assert 0 < figures["held_out_wrong_tokens"] < figures["held_out_tokens"] < 160
    assert (head.config.norm, head.config.threshold) == (norm, figures["threshold"])
    assert head.config.labels == "after the error: correct"
    assert head.config.data["cases"] == 40
    assert head.config.data["with_errors"] == head.config.data["wrong_tokens"] == 20
    assert head.config.data["tokens"] == 40 * 4
    assert head.config.data["sha256"] == data_hash(word_cases())
    states = hidden_states(one_hot, [[BAD], *([i] for i in range(4, 24) if i not in (BAD, GOOD))], norm)  # type: ignore[arg-type]
    bad, *others = (float(head.probability(state[0])) for state in states)
    assert bad <= head.config.threshold < min(others)


def test_a_trained_head_decodes(one_hot: torch.nn.Module) -> None:
    """The target would say "one" everywhere: the judge rescues what it never saw called wrong, and "bad" it rejects."""
    config = TrainingConfig(after_error="correct", holdout=0.3)
    tokenizer = word_tokenizer()
    head = train_head(one_hot, tokenizer, word_cases(), config)  # type: ignore[arg-type]
    drafter = Scripted(lambda _ids, count: [5, 22, BAD, 6][:count])
    decoder = JudgeDecoder(one_hot, tokenizer, drafter, head, num_draft_tokens=4)  # type: ignore[arg-type]
    first = decoder.generate("cat", 5).rounds[0]
    assert first.token_ids == (5, 22, 4)
    assert first.causes == (Cause.RESCUED, Cause.RESCUED, Cause.CORRECTION)


def test_training_twice_gives_the_same_head() -> None:
    target, tokenizer = llama(0), word_tokenizer()
    first, second = (train_head(target, tokenizer, word_cases()) for _ in range(2))
    assert first.config == second.config
    assert torch.equal(first.linear.weight, second.linear.weight)


def held_out(cases: list[Case], config: TrainingConfig) -> dict[str, set[bool]]:
    """On which side the tokens of each question are."""
    examples = [encode(case, word_tokenizer(), "wrong") for case in cases]
    states = [torch.zeros(len(example.ids), 2) for example in examples]
    held: Tensor = training._tokens(cases, examples, states, config)[2]
    sides: dict[str, set[bool]] = {}
    for case, example in zip(cases, examples, strict=True):
        used = sum(label != IGNORED for label in example.labels)
        sides.setdefault(case.question, set()).update(held[:used].tolist())
        held = held[used:]
    return sides


def test_the_holdout_splits_by_question() -> None:
    cases = [Case(question=f"one {i} ", answer=answer) for i in range(200) for answer in ("two", "three four")]
    sides = held_out(cases, TrainingConfig(holdout=0.25))
    assert all(len(side) == 1 for side in sides.values())
    assert 30 < sum(side == {True} for side in sides.values()) < 70
    assert held_out(cases[::-1], TrainingConfig(holdout=0.25)) == sides
    assert held_out(cases, TrainingConfig(holdout=0.25, seed=1)) != sides


def test_the_data_hash_is_of_what_is_learnt() -> None:
    case = Case(question="q", answer="abc", errors=((0, 1),))
    same = case.model_copy(update={"annotator": "me", "seconds": 2.0})
    assert data_hash([case]) == data_hash([same])
    for change in ({"question": "r"}, {"answer": "abd"}, {"errors": ()}, {"ended": False}):
        assert data_hash([case.model_copy(update=change)]) != data_hash([case])
    assert data_hash([case, case]) != data_hash([case])


@pytest.mark.parametrize(
    ("cases", "phrase"),
    [
        ([], "has no cases"),
        ([c for c in word_cases() if not c.errors], "both correct and wrong"),
        ([Case(question=f"one {i}", answer=" bad", errors=((0, 4),)) for i in range(40)], "both correct and wrong"),
        (word_cases()[:2], "both correct and wrong"),
        ([*word_cases(), Case(question="one ", answer="two " * 300)], "Case 41 has 302 tokens"),
    ],
    ids=["none", "all right", "all wrong", "one question", "too long"],
)
def test_data_that_cannot_be_learnt_from_is_refused(cases: list[Case], phrase: str) -> None:
    with pytest.raises(JudgeDecodingError, match=phrase):
        train_head(llama(0), word_tokenizer(), cases)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    with pytest.raises(JudgeDecodingError, match="the target knows 0 to 9"):
        train_head(llama(0, vocab_size=10), word_tokenizer(), word_cases())


def test_a_tokenizer_without_offsets_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(JudgeDecodingError, match="Slow gives no character offsets"):
        train_head(llama(0), Slow(), word_cases())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("holdout", 0.0), ("holdout", 1.0), ("recall", 0.0), ("recall", 1.1), ("l2", ()), ("l2", (-1.0,)),
        ("norm", "between"), ("after_error", "right"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(JudgeDecodingError, match=f"^{field} is"):
        TrainingConfig(**{field: value})  # type: ignore[arg-type]


def test_a_case_without_tokens_is_skipped() -> None:
    assert [len(s) for s in hidden_states(llama(0), [[], [5, 6], []], "before", batch_size=1)] == [0, 2, 0]
