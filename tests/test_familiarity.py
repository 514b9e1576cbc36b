"""A judge tells how unlike its training questions a prompt is: the statistics, their files, decoding with them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from judge_decoding import (
    Case,
    Exact,
    Judge,
    JudgeDecoder,
    JudgeDecodingError,
    JudgeHead,
    PromptLookup,
    Stats,
    TopK,
    custom_generate,
    train_head,
)
from judge_decoding.cli import main as cli
from judge_decoding.decoding.drafting import DraftModel
from judge_decoding.decoding.loop import decode
from judge_decoding.judge.familiarity import LEAST, Familiarity, question_states
from judge_decoding.judge.features import hidden_states
from judge_decoding.reference import pair as reference
from judge_decoding.reference.problems import draw_many
from test_training import word_cases
from tiny import VOCAB_SIZE, WORDS, llama, random_head, request, word_tokenizer

PROMPTS = [[5], [1, 5, 6, 7, 8], list(range(4, 30)), [9, 9, 9]]


def gaussian(count: int, size: int = 16, seed: int = 0) -> Tensor:
    """Draws of one Gaussian: other means and scales from 3 down to 0.01 along mixed directions."""
    mixed = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(99)))[0]
    draws = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return draws * torch.logspace(0.5, -2, size) @ mixed + torch.arange(size)


def fitted(states: Tensor) -> Familiarity:
    familiarity = Familiarity.fit(states)
    assert familiarity is not None
    return familiarity


def knowing(target: PreTrainedModel, **config: Any) -> JudgeHead:
    """A head that knows questions of random states."""
    head = random_head(target, **config)
    states = torch.randn(80, target.config.hidden_size, generator=torch.Generator().manual_seed(3))
    head.know(fitted(states))
    return head


def distances(target: PreTrainedModel, head: JudgeHead, prompts: Sequence[Sequence[int]], draft: PreTrainedModel):
    """What a batch tells of each of its rows."""
    stats = [Stats() for _ in prompts]
    requests = [request(target, prompt, Judge(head, 0.5)) for prompt in prompts]
    for row, event in decode(target, DraftModel(draft, VOCAB_SIZE), requests):
        stats[row].add(event)
    return [each.distances for each in stats]


# The statistics


def test_more_of_the_same_is_above_1_one_time_in_twenty() -> None:
    """Over 40 samples of 80 questions: the share is that of the quantile, within four standard errors (0.4% each)."""
    shares = [
        float((fitted(gaussian(80, seed=seed))(gaussian(500, seed=1000 + seed)) > 1).float().mean())
        for seed in range(40)
    ]
    assert sum(shares) / len(shares) == pytest.approx(0.05, abs=0.016)


def test_a_planted_shift_is_caught_and_a_usual_difference_is_not() -> None:
    """A step along the narrowest direction is tiny beside the spread of the questions, and still nothing like them."""
    states = gaussian(400)
    familiarity = fitted(states)
    _, _, directions = torch.linalg.svd(states - states.mean(0))
    others = gaussian(300, seed=1)
    usual = states.mean(0) + 1.5 * directions[0]
    assert float(familiarity(usual)) < 1
    assert bool((familiarity(others + directions[-1]) > 1).all())
    assert bool((familiarity(others + 30 * directions[0]) > 1).all())
    assert float((familiarity(others) > 1).float().mean()) < 0.1


def test_the_distance_is_that_of_the_covariance() -> None:
    familiarity = fitted(gaussian(100))
    along, rest = familiarity.components, familiarity.variances[-1]
    rank = len(along)
    assert rank == 8  # half of the directions
    assert torch.allclose(along @ along.T, torch.eye(rank), atol=1e-5)
    covariance = along.T @ torch.diag(familiarity.variances[:-1] - rest) @ along + rest * torch.eye(16)
    apart = (gaussian(7, seed=4) - familiarity.mean).double()
    squares = torch.einsum("ni,ij,nj->n", apart, torch.linalg.inv(covariance.double()), apart)
    expected = (squares / 16).sqrt() / familiarity.config.limit
    assert familiarity(gaussian(7, seed=4)).tolist() == pytest.approx(expected.tolist(), rel=1e-3)


def test_the_limit_is_not_that_of_the_questions_it_was_fitted_on() -> None:
    """They lie nearer than others: the limit must let fewer than 5% of them above it."""
    states = gaussian(64)
    assert float((fitted(states)(states) > 1).float().mean()) < 0.03


def test_few_questions_tell_nothing() -> None:
    assert Familiarity.fit(gaussian(LEAST - 1)) is None
    assert fitted(gaussian(LEAST)).config.questions == LEAST
    assert Familiarity.fit(torch.empty(0, 1)) is None


def test_at_most_two_thousand_questions_are_looked_at() -> None:
    assert fitted(gaussian(2100)).config.questions == 2000


@pytest.mark.parametrize("states", [torch.ones(50, 8), torch.zeros(50, 8), 1e4 * torch.ones(50, 1).expand(50, 8)])
def test_questions_without_any_difference_give_finite_distances(states: Tensor) -> None:
    familiarity = fitted(states)
    assert float(familiarity(states[0])) <= 1
    assert 1 < float(familiarity(states[0] + 100)) < float("inf")


def test_states_may_be_of_16_bits() -> None:
    familiarity = fitted(gaussian(100))
    states = gaussian(5, seed=2)
    assert familiarity(states.bfloat16()).dtype == torch.float32
    assert familiarity(states[None]).shape == (1, 5)


# The questions


def test_each_question_counts_once_at_its_last_token() -> None:
    target, tokenizer = llama(0), word_tokenizer()
    cases = [
        Case(question="one two ", answer="three"),
        Case(question="one two ", answer="four five"),
        Case(question="red", answer=" three"),
        Case(question="<s> cat", answer=" three"),
    ]
    sequences = [tokenizer(case.question + case.answer)["input_ids"] for case in cases]
    states = hidden_states(target, sequences, "before")
    found = question_states(cases, sequences, states, tokenizer)
    alone = hidden_states(target, [tokenizer(q)["input_ids"] for q in ("one two", "red", "<s> cat")], "before")
    torch.testing.assert_close(found, torch.stack([state[-1] for state in alone]))


def test_a_question_that_runs_into_the_answer_is_left_out() -> None:
    """``on`` and ``e`` are one token together, and the prompt ``on`` ends in another."""
    tokenizer = word_tokenizer()
    cases = [Case(question="two on", answer="e three"), Case(question=" ", answer="three")]
    sequences = [tokenizer(case.question + case.answer)["input_ids"] for case in cases]
    states = [torch.ones(len(ids), 4) for ids in sequences]
    assert len(question_states(cases, sequences, states, tokenizer)) == 0


def many_cases() -> list[Case]:
    """Two answers to each of 60 questions."""
    words = [word for word in WORDS if word not in ("good", "bad")]
    questions = [f"{words[i % 18]} {words[(i // 18 + 5 * i) % 18]} " for i in range(60)]
    return [
        case
        for question in questions
        for case in (
            Case(question=question, answer="good cat"),
            Case(question=question, answer="bad", errors=((0, 3),)),
        )
    ]


def test_training_learns_what_its_questions_look_like() -> None:
    target, tokenizer = llama(0), word_tokenizer()
    cases = many_cases()
    head = train_head(target, tokenizer, cases)
    assert head.familiarity is not None
    assert head.config.familiarity is head.familiarity.config
    distinct = list(dict.fromkeys(case.question for case in cases))
    assert head.familiarity.config.questions == len(distinct) == 60
    states = hidden_states(target, [tokenizer(question)["input_ids"] for question in distinct], "before")
    expected = torch.stack([state[-1] for state in states]).mean(0)
    torch.testing.assert_close(head.familiarity.mean, expected, atol=1e-4, rtol=1e-4)
    assert train_head(target, tokenizer, word_cases()).familiarity is None  # too few questions


def test_a_head_on_both_models_knows_the_targets_states() -> None:
    head = train_head(llama(0), word_tokenizer(), many_cases(), draft=llama(7, hidden_size=16))
    assert head.familiarity is not None
    assert head.familiarity.mean.shape == (32,)


# Files


def test_it_comes_back_with_its_head(target: LlamaForCausalLM, tmp_path: Path) -> None:
    head = knowing(target)
    head.save_pretrained(tmp_path)
    back = JudgeHead.from_pretrained(tmp_path, target)
    assert back.config == head.config
    assert back.state_dict().keys() == head.state_dict().keys()
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in back.state_dict().items())
    assert "below 1 for 95% of 80 questions" in (tmp_path / "README.md").read_text()


def test_a_head_of_before_loads_and_tells_no_distance(
    head: JudgeHead, target: LlamaForCausalLM, draft: PreTrainedModel, tmp_path: Path
) -> None:
    head.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("familiarity") is None
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = JudgeHead.from_pretrained(tmp_path, target)
    assert back.familiarity is None
    assert distances(target, back, PROMPTS, draft) == [[]] * len(PROMPTS)
    assert "training questions: not known" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"familiarity.mean": torch.zeros(31)},
        {"familiarity.mean": None},
        {"familiarity.components": torch.zeros(3, 32)},
        {"familiarity.variances": torch.zeros(1)},
        {"familiarity.more": torch.zeros(1)},
    ],
    ids=str,
)
def test_statistics_of_something_else_are_refused(
    target: LlamaForCausalLM, tmp_path: Path, change: dict[str, Tensor | None]
) -> None:
    knowing(target).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, value in change.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(JudgeDecodingError, match=r"^[^\n]*32 weights and a bias, and the statistics[^\n]*again\.$"):
        JudgeHead.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "phrase"),
    [
        ("mean", torch.nan, "not finite"),
        ("variances", 0.0, "variances that are not above 0"),
        ("variances", -1.0, "not above"),
    ],
)
def test_statistics_that_cannot_be_are_refused(
    target: LlamaForCausalLM, tmp_path: Path, name: str, value: float, phrase: str
) -> None:
    knowing(target).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[f"familiarity.{name}"][2] = value
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(JudgeDecodingError, match=phrase):
        JudgeHead.from_pretrained(tmp_path)


def test_truncated_statistics_are_refused(target: LlamaForCausalLM, tmp_path: Path) -> None:
    knowing(target).save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 9, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(JudgeDecodingError, match="is damaged"):
            JudgeHead.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 0}, {"rank": 10**9}, {"rank": 3}, {"questions": 0}, {"limit": 0}, {"limit": float("inf")},
        {"limit": float("nan")}, {"limit": None}, {"quantile": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_figures_out_of_range_are_refused(target: LlamaForCausalLM, tmp_path: Path, change: dict[str, object]) -> None:
    knowing(target).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["familiarity"] |= change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeDecodingError, match=r"does not describe a judge head: familiarity|is damaged"):
        JudgeHead.from_pretrained(tmp_path)


def test_tensors_without_their_figures_are_refused(target: LlamaForCausalLM, tmp_path: Path) -> None:
    knowing(target).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["familiarity"] = None
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeDecodingError, match="32 weights and a bias; save or fetch"):
        JudgeHead.from_pretrained(tmp_path)


# Decoding


@pytest.mark.parametrize("norm", ["before", "after"])
def test_the_distance_is_that_of_the_prompts_last_state(
    target: LlamaForCausalLM, draft: PreTrainedModel, norm: str
) -> None:
    head = knowing(target, norm=norm)
    assert head.familiarity is not None
    for prompt in PROMPTS:
        state = hidden_states(target, [prompt], norm)[0][-1]  # type: ignore[arg-type]
        (told,) = distances(target, head, [prompt], draft)
        assert told == [pytest.approx(float(head.familiarity(state)), rel=1e-3)]


def test_it_is_told_once_with_the_first_round(target: LlamaForCausalLM, draft: PreTrainedModel) -> None:
    rounds = [
        e for _, e in decode(target, DraftModel(draft, VOCAB_SIZE), [request(target, [5, 6], Judge(knowing(target)))])
    ]
    assert len(rounds) > 1
    assert [event.distance is None for event in rounds] == [False] + [True] * (len(rounds) - 1)


def test_rows_of_a_batch_get_the_distances_they_get_alone(target: LlamaForCausalLM, draft: PreTrainedModel) -> None:
    head = knowing(target)
    together = distances(target, head, PROMPTS, draft)
    alone = [distances(target, head, [prompt], draft)[0] for prompt in PROMPTS]
    assert [len(each) for each in together] == [1] * len(PROMPTS)
    assert [each[0] for each in together] == pytest.approx([each[0] for each in alone], rel=1e-3)
    assert len({round(each[0], 2) for each in alone}) == len(PROMPTS)


def test_rules_beside_the_judge(target: LlamaForCausalLM, draft: PreTrainedModel, tokenizer: Any) -> None:
    head = knowing(target)
    decoder = JudgeDecoder(target, tokenizer, draft, head)
    ids = torch.tensor(PROMPTS[1])
    own = decoder.generate(ids, 8).distance
    assert own is not None
    assert decoder.generate(ids, 1).distance == pytest.approx(own, rel=1e-3)  # no room for a draft
    assert decoder.generate(ids, 8, rule=TopK(2) | Judge(head)).distance == pytest.approx(own, rel=1e-3)
    assert decoder.generate(ids, 8, threshold=1).distance == pytest.approx(own, rel=1e-3)
    assert decoder.generate(ids, 8, rule=Exact()).distance is None
    assert JudgeDecoder(target, tokenizer, None, head).generate(ids, 8).distance is None
    assert JudgeDecoder(target, tokenizer, PromptLookup(), head).generate(ids, 8).distance == pytest.approx(
        own, rel=1e-3
    )
    assert next(chunk.round.distance for chunk in decoder.stream(ids, 8)) == pytest.approx(own, rel=1e-3)
    batch = decoder.generate_batch([torch.tensor(p) for p in PROMPTS], 8)
    assert batch[1].distance == pytest.approx(own, rel=1e-3)


def test_transformers_generate_tells_it_by_row(target: LlamaForCausalLM, draft: PreTrainedModel) -> None:
    head = knowing(target)
    judged = custom_generate(draft, head)
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    target.generate(ids, attention_mask=(ids > 0).long(), custom_generate=judged, max_new_tokens=6, pad_token_id=0)
    expected = [distances(target, head, [row], draft)[0][0] for row in ([5, 6], [7, 8, 9, 10])]
    assert sorted(judged.stats.distances) == pytest.approx(sorted(expected), rel=1e-3)
    assert [rounds[0].distance for rounds in judged.rounds] == pytest.approx(expected, rel=1e-3)


def test_statistics_of_many_requests() -> None:
    one, other = Stats(distances=[0.5, 1.2]), Stats(distances=[3.0, 1.0])
    one.merge(other)
    assert one.distances == [0.5, 1.2, 3.0, 1.0]
    assert one.unlike_training == 2
    figures = one.to_dict()
    assert (figures["prompts_measured"], figures["prompts_unlike_training"]) == (4, 2)


def test_it_costs_no_forward_and_waits_for_nothing(draft: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number read from a tensor waits for the device: the distance is read behind all that a round reads anyhow."""
    reads: list[str] = []
    for name in ("__bool__", "__int__", "__float__", "item", "tolist"):
        method = getattr(Tensor, name)

        def spy(self: Tensor, *, name: str = name, method: Any = method) -> Any:
            reads.append(name)
            return method(self)

        monkeypatch.setattr(Tensor, name, spy)
    seen = []
    for head in (knowing(llama(0)), random_head(llama(0))):
        target, forwards = llama(0), []
        target.register_forward_hook(lambda *_, forwards=forwards: forwards.append(1))
        requests = [request(target, prompt, Judge(head, 0.5)) for prompt in PROMPTS]
        reads.clear()
        rounds = len(list(decode(target, DraftModel(draft, VOCAB_SIZE), requests)))
        seen.append((len(forwards), rounds, list(reads)))
    (with_forwards, with_rounds, with_reads), (forwards, rounds, others) = seen
    assert (with_forwards, with_rounds) == (forwards, rounds)
    places = [i for i, name in enumerate(with_reads) if name == "__float__"]
    assert "__float__" not in others
    assert len(places) == len(PROMPTS)
    assert [name for name in with_reads if name != "__float__"] == others
    # Each follows the last thing that `verify` reads, the scores.
    assert {with_reads[i - 1] for i in places} == {"tolist"}


# The command line


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command in this process: its exit code, stdout and stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["judge-decoding", *map(str, args)])
        monkeypatch.setenv("COLUMNS", "160")
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return int(code or 0), out, err

    return call


def test_generate_warns_in_one_sentence(
    run: Callable[..., tuple[int, str, str]], folders: dict[str, Path], target: LlamaForCausalLM, tmp_path: Path
) -> None:
    head = knowing(target)
    assert head.familiarity is not None
    asked = ("generate", folders["target"], "one two", "--draft", folders["draft"], "--judge", tmp_path / "judge",
             "--no-chat", "--max-new-tokens", 6, "--plain", "--json", tmp_path / "record.json")  # fmt: skip
    for limit, warned in ((1e-3, True), (1e3, False)):
        head.familiarity.config.limit = limit
        head.save_pretrained(tmp_path / "judge")
        code, out, err = run(*asked)
        assert code == 0
        assert ("unlike the questions the judge was trained on" in err) is warned
        assert err.count("\n") == (1 if warned else 0)
        assert "unlike" not in out
        record = json.loads((tmp_path / "record.json").read_text())
        assert (record["distance"] > 1) is warned
        assert record["stats"]["prompts_unlike_training"] == int(warned)
    head.familiarity.config.limit = 1e-3
    head.save_pretrained(tmp_path / "judge")
    assert run(*asked, "--threshold", 1)[2] == ""  # nothing is rescued: the answer is the target's own
    head.know(None)
    head.save_pretrained(tmp_path / "judge")
    assert run(*asked)[2] == ""
    assert json.loads((tmp_path / "record.json").read_text())["distance"] is None


def test_info_tells_whether_a_head_knows_its_questions(
    run: Callable[..., tuple[int, str, str]], folders: dict[str, Path]
) -> None:
    assert "from 2000 of them" in run("info", "reference")[1]
    assert "tells no distance" in run("info", folders["judge"])[1]


# The embedded pair


def test_the_embedded_judge_knows_its_family_and_no_other() -> None:
    decoder, _ = reference.load_pair()

    def warned(family: str, count: int) -> int:
        problems = draw_many(0, "calibration", count, family)  # type: ignore[arg-type]
        answers = decoder.generate_batch([reference.prompt_of(p) for p in problems], 1, batch_size=20)
        return sum(answer.distance is not None and answer.distance > 1 for answer in answers)

    assert warned("comparison", 40) == 40
    # More than one in twenty: the training questions hold fewer of the shortest problems (docs/familiarity.md).
    assert warned("collection", 200) <= 40


def test_the_embedded_heads_weights_are_those_of_its_training() -> None:
    head = JudgeHead.from_pretrained(reference.JUDGE)
    assert head.config.threshold == 0.95
    assert head.config.familiarity is not None
    assert head.config.familiarity.questions <= head.config.data["cases"]
