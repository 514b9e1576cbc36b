"""Above temperature 0: exact verification keeps the target's distribution, and a seed repeats an answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor
from transformers import (
    EpsilonLogitsWarper,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from judge_decoding import (
    Cause,
    Evidence,
    Judge,
    PromptLookup,
    Round,
    SamplingParams,
    Stats,
    VerificationRule,
    decode,
)
from judge_decoding.decoding.backends.base import VerifyOutput
from judge_decoding.decoding.drafters.base import Draft, Drafter, DraftRequest, TokenBuffer
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.decoding.request import Request, SequenceState
from judge_decoding.decoding.sampling import OF_LOGITS_ALONE, Sampler, TruncationWarper, along
from judge_decoding.decoding.verification import verify
from judge_decoding.rules import Exact, TopK
from judge_decoding.rules.truncation import Truncation
from tiny import VOCAB_SIZE, Scripted, bigram, llama, perturbed, random_head, request, run, tokens

SIZE, LENGTH = 8, 1000
SETTINGS: dict[str, dict[str, Any]] = {
    "temperature 0.5": {"temperature": 0.5},
    "temperature 1": {"temperature": 1.0},
    "temperature 1.7": {"temperature": 1.7},
    "top_k": {"temperature": 1.2, "top_k": 4},
    "top_p": {"temperature": 1.2, "top_p": 0.8},
    "top_k, top_p and min_p": {"temperature": 1.5, "top_k": 6, "top_p": 0.9, "min_p": 0.1},
}


@pytest.fixture(scope="module")
def tables() -> tuple[Tensor, Tensor]:
    """Logits of the target and of the draft after each of the 8 tokens."""
    generator = torch.Generator().manual_seed(3)
    target = 1.5 * torch.randn(SIZE, SIZE, generator=generator)
    return target, target + torch.randn(SIZE, SIZE, generator=generator)


def distribution(
    logits: list[float], temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    """What the settings mean, in plain Python: temperature, then top k, then top p, then min p."""
    weights = [math.exp(value / temperature) for value in logits]
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    if top_k:
        order = order[:top_k]
    total, mass, kept = sum(weights[i] for i in order), 0.0, []
    for i in order:
        if mass < top_p:
            kept.append(i)
        mass += weights[i] / total
    kept = [i for i in kept if weights[i] >= min_p * weights[kept[0]]]
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


def sampled(
    target: Tensor, drafter: Drafter | None, rule: VerificationRule | None = None, *, seed: int, **options: Any
) -> tuple[list[list[int]], list[Round]]:
    """Answers decoded together, `LENGTH` tokens in all, each behind the token that it goes on from; their rounds."""
    model, rows = bigram(target), 10
    asked = [
        request(model, [0], rule, num_draft_tokens=3, max_new_tokens=LENGTH // rows, seed=seed + row, **options)
        for row in range(rows)
    ]
    chains, rounds = [[0] for _ in asked], list[Round]()
    for row, event in decode(model, drafter, asked):
        chains[row] += event.token_ids
        rounds.append(event)
    return chains, rounds


def p_value(chains: list[list[int]], table: Tensor, setting: dict[str, Any]) -> float:
    """Chi-square of the transitions of ``chains`` against their exact distributions."""
    observed = np.zeros((SIZE, SIZE))
    for chain in chains:
        np.add.at(observed, (chain[:-1], chain[1:]), 1)
    statistic, freedom = 0.0, 0
    for row, logits in zip(observed, table.tolist(), strict=True):
        expected = row.sum() * np.array(distribution(logits, **setting), dtype=np.float64)
        assert not row[expected == 0].any(), "a token of probability 0 was sampled"
        usual = expected >= 3
        rest = [row[~usual].sum(), expected[~usual].sum()]
        seen, due = row[usual], expected[usual]
        if rest[1] >= 1:
            seen, due = np.append(seen, rest[0]), np.append(due, rest[1])
        statistic += ((seen - due) ** 2 / due).sum()
        freedom += max(len(due) - 1, 0)
    return float(chi2.sf(statistic, freedom))


def drafter_named(name: str, draft: Tensor) -> Drafter | None:
    if name == "draft model":
        return DraftModel(bigram(draft), SIZE)
    if name == "certain tokens":
        return Scripted(lambda ids, count: [int(draft[ids[-1]].argmax())] * count)
    return PromptLookup(longest=1) if name == "prompt lookup" else None


@pytest.mark.parametrize(
    ("name", "which"),
    [
        *(("draft model", which) for which in SETTINGS),
        *((name, "temperature 1") for name in ("certain tokens", "prompt lookup", "none")),
        *((name, "top_k, top_p and min_p") for name in ("certain tokens", "prompt lookup", "none")),
    ],
)
def test_sampled_verification_keeps_the_targets_distribution(
    tables: tuple[Tensor, Tensor], name: str, which: str
) -> None:
    target, draft = tables
    setting = SETTINGS[which]
    chains, rounds = sampled(target, drafter_named(name, draft), seed=1, **setting)
    assert p_value(chains, target, setting) > 1e-3
    if name != "none":
        causes = Stats.of(rounds).causes
        assert min(causes[Cause.AGREED], causes[Cause.CORRECTION]) > 100


def test_the_chi_square_would_notice_the_drafts_distribution(tables: tuple[Tensor, Tensor]) -> None:
    target, draft = tables
    chains, _ = sampled(draft, None, seed=1, temperature=1.7)
    assert p_value(chains, draft, {"temperature": 1.7}) > 1e-3
    assert p_value(chains, target, {"temperature": 1.7}) < 1e-6


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_draft_model_reports_the_distributions_it_drew_from(
    tables: tuple[Tensor, Tensor], setting: dict[str, Any]
) -> None:
    """Exactly, with all settings applied: p/q is wrong otherwise."""
    table = tables[1]
    sampler = Sampler(SamplingParams(**setting, seed=0), torch.device("cpu"))
    draft = DraftModel(bigram(table), SIZE).propose([DraftRequest(0, TokenBuffer(torch.tensor([3, 0])), 30, sampler)])[
        0
    ]
    assert draft.probs is not None
    chain = [0, *draft.ids.tolist()]
    for previous, probs in zip(chain, draft.probs, strict=False):
        assert probs.tolist() == pytest.approx(distribution(table[previous].tolist(), **setting), abs=1e-5)


def test_all_positions_at_once_are_each_position_as_transformers_processes_it() -> None:
    """Processors of logits alone are called once; others see the ids before each position."""
    alone: list[Any] = [
        TemperatureLogitsWarper(0.7), TopKLogitsWarper(25), TopPLogitsWarper(0.9), MinPLogitsWarper(0.02),
        TypicalLogitsWarper(0.95), EpsilonLogitsWarper(0.01), TruncationWarper(Truncation((TopK(3),))),
    ]  # fmt: skip
    assert {type(each) for each in alone} == set(OF_LOGITS_ALONE)
    seen: list[int] = []

    class Watched(RepetitionPenaltyLogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            seen.append(input_ids.shape[1])
            return super().__call__(input_ids, scores)

    processors: list[Any] = [Watched(1.7), *alone]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(40, (1, 12), generator=generator)
    logits = 3 * torch.randn(1, 5, 40, generator=generator)
    given = logits.clone()
    for count in range(1, len(processors) + 1):
        found = along(processors[:count])(ids, logits)
        assert seen == [8, 9, 10, 11, 12]
        seen.clear()
        as_in_generate: Any = LogitsProcessorList(processors[:count])
        for i in range(5):
            assert torch.equal(found[:, i], as_in_generate(ids[:, : 8 + i], logits[:, i]))
        seen.clear()
        assert torch.equal(logits, given)
    assert 1 <= int(found.isfinite().sum(-1).max()) <= 3


def test_draws_follow_their_probabilities() -> None:
    sampler = Sampler(SamplingParams(temperature=1.0, seed=0), torch.device("cpu"))
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
    counts = torch.bincount(sampler.draw(probs.expand(20_000, 5)), minlength=5).numpy()
    expected = 20_000 * probs.numpy()
    assert counts[4] == 0
    assert chi2.sf(((counts - expected)[:4] ** 2 / expected[:4]).sum(), 3) > 1e-3


def test_the_first_token_of_a_round_follows_the_target(tables: tuple[Tensor, Tensor]) -> None:
    """One round again and again from one state, so that every seed is a fresh start."""
    target, draft = tables
    counts = np.zeros(SIZE)
    for seed in range(800):
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed), torch.device("cpu"))
        q = draft[:1].softmax(-1)
        token = sampler.draw(q)
        logits = torch.stack((target[0], target[int(token)]))
        row = SequenceState(0, Request(torch.tensor([0]), Exact(), sampler, 5))
        (event,) = verify([row], [Draft(token, q)], [VerifyOutput([logits], {}, 0, len(logits))])
        counts[event.token_ids[0]] += 1
    expected = counts.sum() * target[0].softmax(-1).numpy()
    assert chi2.sf(((counts - expected) ** 2 / expected).sum(), SIZE - 1) > 1e-3


@pytest.mark.parametrize("name", ["draft model", "prompt lookup", "none"])
def test_a_seed_repeats_an_answer(name: str) -> None:
    # Built once: building seeds the global generator, which must not matter.
    target = llama(0)
    draft = perturbed(target)

    def once(seed: int | None) -> list[tuple[int, ...]]:
        made: dict[str, Drafter] = {"draft model": DraftModel(draft, VOCAB_SIZE), "prompt lookup": PromptLookup()}
        drafter = made.get(name)
        return [r.token_ids for r in run(target, drafter, [1, 5], max_new_tokens=30, temperature=2.5, seed=seed)]

    assert once(5) == once(5)
    assert once(5) != once(6)
    assert once(None) != once(None)


def test_a_seed_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    run(llama(0), None, [1, 5], max_new_tokens=5, temperature=1.0, seed=5)
    torch.manual_seed(0)
    assert torch.equal(first, torch.rand(3))


def test_temperature_zero_ignores_truncations_and_seed() -> None:
    target = llama(0)
    plain = tokens(run(target, None, [1, 5]))
    assert tokens(run(target, None, [1, 5], top_k=3, top_p=0.5, min_p=0.2, seed=9)) == plain


def test_a_draft_that_samples_as_the_target_is_always_accepted() -> None:
    """p equals q at every token, so that nothing may be rejected, also with truncations and a penalty."""
    target = llama(0)
    rounds = run(
        target, DraftModel(target, VOCAB_SIZE), [1, 5], num_draft_tokens=5, max_new_tokens=48,
        temperature=1.3, top_k=12, top_p=0.9, repetition_penalty=1.2, seed=0,
    )  # fmt: skip
    # Rounding of the two forwards may, rarely, reject one.
    assert Stats.of(rounds).causes[Cause.CORRECTION] <= 1


def test_the_judge_keeps_everything_at_threshold_zero_when_sampling(tables: tuple[Tensor, Tensor]) -> None:
    """The text is then the draft's, in distribution."""
    target, draft = tables
    head = random_head(bigram(target))
    _, rounds = sampled(target, DraftModel(bigram(draft), SIZE), Judge(head, 0.0), seed=2, temperature=1.0)
    drafted = [Cause.AGREED, Cause.RESCUED]
    assert {r.causes[-1] for r in rounds} == {Cause.BONUS}
    assert all(cause in drafted for r in rounds for cause in r.causes[:-1])
    inside = np.zeros((SIZE, SIZE))
    for r in rounds:
        np.add.at(inside, (r.token_ids[:2], r.token_ids[1:3]), 1)
    expected = inside.sum(1, keepdims=True) * draft.softmax(-1).numpy()
    usual = expected >= 3
    statistic = ((inside - expected)[usual] ** 2 / expected[usual]).sum()
    assert chi2.sf(statistic, usual.sum() - SIZE) > 1e-3


def test_the_judge_at_its_strict_threshold_keeps_the_distribution(tables: tuple[Tensor, Tensor]) -> None:
    target, draft = tables
    head = random_head(bigram(target))
    chains, _ = sampled(target, DraftModel(bigram(draft), SIZE), Judge(head, 1.0), seed=3, temperature=1.0)
    assert p_value(chains, target, {"temperature": 1.0}) > 1e-3


def test_sampling_without_uniform_numbers_is_refused() -> None:
    evidence = Evidence(torch.tensor([[1]]), torch.zeros(1, 2, 4), greedy=False)
    with pytest.raises(RuntimeError, match="uniform"):
        _ = evidence.agreed


def test_rows_with_and_without_processors_share_a_batch() -> None:
    """One rule for all, some logits as they are and some processed, drafts of different lengths: as each alone."""
    target, rule = llama(0), Exact()
    draft = perturbed(target, 0.05)

    def requests() -> list[Request]:
        options: tuple[dict[str, Any], ...] = (
            {"temperature": 1.0},
            {"temperature": 0.7},
            {"temperature": 1.0, "top_k": 5},
            {"temperature": 0.0},
        )
        return [
            request(target, [5, 6 + row], rule, num_draft_tokens=3 + row, max_new_tokens=16, seed=row, **own)
            for row, own in enumerate(options)
        ]

    together: list[list[int]] = [[] for _ in range(4)]
    for row, event in decode(target, DraftModel(draft, VOCAB_SIZE), requests()):
        together[row] += event.token_ids
    drafter = DraftModel(draft, VOCAB_SIZE)
    alone = [tokens(event for _, event in decode(target, drafter, [own])) for own in requests()]
    assert together == alone
