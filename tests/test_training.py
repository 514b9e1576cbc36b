"""From labelled answers to a head: what comes out, what is compared, what is doubted, and what is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from judge_decoding import Case, Cause, JudgeDecoder, JudgeDecodingError, TrainingConfig, train_head
from judge_decoding.models.teacher_forcing import hidden_states
from judge_decoding.training.comparison import LabelledTokens, doubts
from judge_decoding.training.labels import Labels, data_hash
from tiny import SPECIALS, WORDS, Scripted, bigram, llama, word_tokenizer

BAD = len(SPECIALS) + WORDS.index("bad")
GOOD = len(SPECIALS) + WORDS.index("good")


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
    told: list[tuple[str, int, int]] = []
    config = TrainingConfig(norm=norm, after_error="correct")  # type: ignore[arg-type]
    head = train_head(
        one_hot, word_tokenizer(), word_cases(), config, progress=lambda *now: told.append(now)  # type: ignore[arg-type]
    )  # fmt: skip
    assert max(done for what, done, _ in told if what == "reading the answers") == 40
    assert {what for what, _, _ in told} == {
        "reading the answers",
        "reading the questions",
        "fitting",
        "learning curve",
    }
    assert all(0 <= done <= total for _, done, total in told)
    figures = head.config.calibration
    assert (figures["auc"], figures["kept_correct"], figures["caught_wrong"]) == (1.0, 1.0, 1.0)
    assert (head.config.norm, head.config.layer, head.config.threshold) == (norm, -1, figures["threshold"])
    assert head.config.labels == "span, after the error: correct"
    assert head.config.data["cases"] == 40
    assert head.config.data["questions"] == head.config.data["with_errors"] == head.config.data["wrong_tokens"] == 20
    assert head.config.data["tokens"] == 40 * 4
    assert head.config.data["sha256"] == data_hash(word_cases())
    assert "out_of_fold" in figures
    assert figures["folds"] == 5
    assert sum(row["tokens"] for row in figures["reliability"]) == 160
    assert figures["comparison"] == []
    assert [row["questions"] for row in figures["learning_curve"]][-1] == 20
    states = hidden_states(one_hot, [[BAD], *([i] for i in range(4, 24) if i not in (BAD, GOOD))], norm)  # type: ignore[arg-type]
    bad, *others = (float(head.probability(state[0])) for state in states)
    assert bad <= head.config.threshold < min(others)


def test_a_trained_head_decodes(one_hot: torch.nn.Module) -> None:
    """The target would say "one" everywhere: the judge rescues what it never saw called wrong, and "bad" it rejects."""
    tokenizer = word_tokenizer()
    head = train_head(one_hot, tokenizer, word_cases(), TrainingConfig(after_error="correct"))  # type: ignore[arg-type]
    drafter = Scripted(lambda _ids, count: [5, 22, BAD, 6][:count])
    decoder = JudgeDecoder(one_hot, tokenizer, drafter, head, num_draft_tokens=4)  # type: ignore[arg-type]
    first = decoder.generate("cat", 5).rounds[0]
    assert first.token_ids == (5, 22, 4)
    assert first.causes == (Cause.RESCUED, Cause.RESCUED, Cause.CORRECTION)


@pytest.mark.parametrize(
    ("labels", "tokens", "wrong"), [("error", 119, 20), ("span", 119, 20), ("from_error", 160, 61)]
)
def test_the_reading_of_the_labels_is_trained_on(labels: Labels, tokens: int, wrong: int) -> None:
    """20 right answers of 4 tokens, and 20 with an error behind 0, 1 or 2 others, 19 in all."""
    assert sum(i % 3 for i in range(1, 40, 2)) == 19
    head = train_head(llama(0), word_tokenizer(), word_cases(), TrainingConfig(labels=labels))
    assert (head.config.data["tokens"], head.config.data["wrong_tokens"]) == (tokens, wrong)
    assert head.config.labels == (labels if labels == "from_error" else f"{labels}, after the error: ignore")


@pytest.fixture
def forgetful() -> LlamaForCausalLM:
    """A model of three layers whose last one forgets everything: only lower layers tell the words apart."""
    torch.manual_seed(0)
    size = len(SPECIALS) + len(WORDS)
    model = llama(0, hidden_size=size, layers=3)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    model.model.embed_tokens.weight.zero_()
    model.model.embed_tokens.weight[:size] = torch.eye(size)
    model.model.layers[-1].register_forward_hook(lambda _module, _inputs, output: torch.ones_like(output))
    return model


def test_the_layer_that_knows_wins(forgetful: LlamaForCausalLM) -> None:
    tokenizer = word_tokenizer()
    config = TrainingConfig(norm="both", layers=(-1, -2), after_error="correct")
    head = train_head(forgetful, tokenizer, word_cases(), config)
    assert (head.config.layer, head.config.norm) == (-2, "before")
    rows = {row["detector"]: row for row in head.config.calibration["comparison"]}
    assert list(rows) == [
        "last layer, before the norm", "last layer, after the norm", "layer -2", "log-probability", "rank",
    ]  # fmt: skip
    assert [name for name, row in rows.items() if row["shipped"]] == ["layer -2"]
    assert rows["layer -2"]["auc"] == 1.0
    assert rows["last layer, after the norm"]["auc"] == pytest.approx(0.5)
    assert head.config.calibration["auc"] == 1.0
    alone = train_head(
        forgetful, tokenizer, word_cases(), TrainingConfig(norm="before", layers=(-2,), after_error="correct")
    )
    assert torch.equal(alone.linear.weight, head.linear.weight)
    # And it decodes: "bad" is stopped, other words that the target would not have said pass.
    drafter = Scripted(lambda _ids, count: [5, 22, BAD, 6][:count])
    first = JudgeDecoder(forgetful, tokenizer, drafter, head, num_draft_tokens=4).generate("cat", 5).rounds[0]
    assert first.token_ids[:2] == (5, 22)
    assert first.causes == (Cause.RESCUED, Cause.RESCUED, Cause.CORRECTION)


def test_the_baseline_alone_can_be_asked_for() -> None:
    head = train_head(llama(0), word_tokenizer(), word_cases(), TrainingConfig(baseline=True))
    assert [row["detector"] for row in head.config.calibration["comparison"]] == [
        "last layer, after the norm", "log-probability", "rank",
    ]  # fmt: skip


def test_each_aim_is_met_out_of_fold() -> None:
    def figures(aim: str) -> dict[str, float]:
        return train_head(llama(0), word_tokenizer(), word_cases(), TrainingConfig(aim=aim)).config.calibration

    keep, catch = figures("keep=0.95"), figures("catch=0.9")
    assert keep["kept_correct"] >= 0.95
    assert catch["caught_wrong"] >= 0.9
    assert keep["threshold"] < catch["threshold"]


def test_questions_that_differ_in_case_and_space_are_one() -> None:
    cases = [case.model_copy(update={"question": case.question.upper() + " "}) for case in word_cases()[::2]]
    head = train_head(llama(0), word_tokenizer(), [*word_cases()[1::2], *cases])
    assert head.config.data["questions"] == 20


def tokens(wrong: int, wrong_questions: int) -> LabelledTokens:
    labels = torch.tensor([0] * wrong + [1] * 1000)
    none = torch.zeros(len(labels))
    return LabelledTokens(labels, none.bool(), none.long(), none, 100, wrong_questions)


def curve(half: float, whole: float) -> list[dict[str, float]]:
    return [{"share": 0.25, "auc": 0.6}, {"share": 0.5, "auc": half}, {"share": 1.0, "auc": whole}]


def test_too_little_data_is_told() -> None:
    assert doubts(tokens(50, 10), curve(0.950, 0.959)) == []
    for few in (tokens(49, 10), tokens(50, 9)):
        (sentence,) = doubts(few, curve(0.95, 0.95))
        assert sentence.startswith("There are only")
        assert sentence.endswith("in 10 questions.")
    (sentence,) = doubts(tokens(50, 10), curve(0.930, 0.945))
    assert "AUC 0.930 with half of the questions, 0.945 with all" in sentence
    assert len(doubts(tokens(1, 1), curve(0.5, 0.9))) == 2
    assert doubts(tokens(50, 10), curve(0.95, 0.95)[2:]) == []


def test_a_head_carries_what_is_doubtful(one_hot: torch.nn.Module, tmp_path: object) -> None:
    """20 wrong tokens are few; 60 in 30 questions are not."""
    few = train_head(one_hot, word_tokenizer(), word_cases())  # type: ignore[arg-type]
    assert [w.startswith("There are only 20 wrong tokens, in 20") for w in few.config.calibration["warnings"]] == [True]
    enough = train_head(one_hot, word_tokenizer(), word_cases(120))  # type: ignore[arg-type]
    assert enough.config.calibration["warnings"] == []


def test_training_twice_gives_the_same_head() -> None:
    target, tokenizer = llama(0), word_tokenizer()
    first, second = (train_head(target, tokenizer, word_cases()) for _ in range(2))
    assert first.config == second.config
    assert torch.equal(first.linear.weight, second.linear.weight)


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
    with pytest.raises(JudgeDecodingError, match="the target's ids are 0 to 9"):
        train_head(llama(0, vocab_size=10), word_tokenizer(), word_cases())


def test_a_tokenizer_without_offsets_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(JudgeDecodingError, match="Slow has no character offsets"):
        train_head(llama(0), Slow(), word_cases())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("l2", ()), ("l2", (-1.0,)), ("norm", "between"), ("after_error", "wrong"), ("labels", "suffix"),
        ("class_weights", "even"), ("wrong_weight", 0.0), ("wrong_weight", float("nan")), ("folds", 1), ("layers", ()),
        ("layers", (0,)), ("layers", (-1, 3)), ("aim", "accuracy=1"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(JudgeDecodingError, match=f"^{field} is"):
        TrainingConfig(**{field: value})  # type: ignore[arg-type]


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(JudgeDecodingError, match="layer is -3, and LlamaForCausalLM has 2 layers; it must be from -2"):
        train_head(llama(0), word_tokenizer(), word_cases(), TrainingConfig(layers=(-1, -3)))


def test_a_case_without_tokens_is_skipped() -> None:
    assert [len(s) for s in hidden_states(llama(0), [[], [5, 6], []], "before", batch_tokens=1)] == [0, 2, 0]


def test_a_case_may_be_as_long_as_scaled_positions_reach() -> None:
    model = llama(0, context=4)
    with pytest.raises(JudgeDecodingError, match="the target's context is 4"):
        train_head(model, word_tokenizer(), word_cases())
    model.config.rope_parameters = {"rope_type": "linear", "rope_theta": 1e4, "factor": 8.0}
    assert train_head(model, word_tokenizer(), word_cases()).config.data["cases"] == 40
