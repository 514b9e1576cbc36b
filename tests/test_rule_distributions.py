"""Above temperature 0: lossless rules give the target's distribution, the others the one their papers name."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from judge_decoding import (
    Block,
    Cascade,
    Ensemble,
    Evidence,
    Lenience,
    Mentored,
    MentoredSimple,
    TopK,
    VerificationRule,
    available_rules,
)
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.rules.divergence import kl
from judge_decoding.rules.ratio import factors
from test_loop_sampling import SIZE, p_value, sampled, tables  # noqa: F401  (a fixture)
from test_rule_strict import output
from tiny import bigram

LOSSLESS = sorted(name for name, rule in available_rules().items() if rule.lossless)
SETTINGS = {
    "whole": {"temperature": 1.0},
    "temperature 0.5, top_k": {"temperature": 0.5, "top_k": 4},
    "temperature 1.7, top_p": {"temperature": 1.7, "top_p": 0.8},
    "both": {"temperature": 1.0, "top_k": 6, "top_p": 0.9},
}
"""Each temperature and each truncation once: the one scales the logits before the other cuts them."""
PAIRS = [tuple((2 * torch.randn(2, 6, generator=torch.Generator().manual_seed(i))).softmax(-1)) for i in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_rule_keeps_the_targets_distribution(
    tables: tuple[Tensor, Tensor],  # noqa: F811
    name: str,
    setting: dict[str, float],
) -> None:
    target, draft = tables
    rule = available_rules()[name]()
    chains, rounds = sampled(target, DraftModel(bigram(draft), SIZE), rule, seed=5, **setting)
    assert p_value(chains, target, setting) > 1e-3
    accepted = [event.accepted for event in rounds]
    assert min(accepted) == 0
    assert max(accepted) == 3


def tree(size: int, depth: int, seed: int) -> dict[tuple[int, ...], Tensor]:
    """A random distribution, in double precision, after every sequence of up to ``depth`` tokens."""
    generator = torch.Generator().manual_seed(seed)
    return {
        prefix: (1.5 * torch.randn(size, generator=generator, dtype=torch.float64)).softmax(-1)
        for length in range(depth + 1)
        for prefix in product(range(size), repeat=length)
    }


def thresholds(rule: VerificationRule, logits: Tensor, probs: Tensor, ids: Tensor) -> Tensor:
    """For each draft token, the coin below which it and all before it stay, whatever the others: by bisection."""
    low, high = torch.zeros(ids.shape, dtype=torch.float64), torch.ones(ids.shape, dtype=torch.float64)
    for _ in range(60):
        middle = (low + high) / 2
        kept = torch.zeros_like(ids, dtype=torch.bool)
        for i in range(ids.shape[1]):
            coins = torch.ones_like(middle)  # all others fall short
            coins[:, i] = middle[:, i]
            kept[:, i] = rule.accept(Evidence(ids, logits, probs, uniform=coins, greedy=False))[:, i]
        low, high = torch.where(kept, middle, low), torch.where(kept, high, middle)
    return low


@pytest.mark.parametrize(("size", "count"), [(3, 1), (3, 2), (3, 3), (4, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_block_verification_is_lossless_by_enumeration(size: int, count: int, seed: int) -> None:
    """All drafts, all outcomes of the coins: the joint distribution of the tokens is the target's, to 1e-12."""
    target, draft = tree(size, count, seed), tree(size, count, seed + 100)
    drafts = list(product(range(size), repeat=count))
    ids = torch.tensor(drafts)
    logits = torch.stack([torch.stack([target[d[:i]].log() for i in range(count + 1)]) for d in drafts])
    probs = torch.stack([torch.stack([draft[d[:i]] for i in range(count)]) for d in drafts])
    limits = thresholds(Block(), logits, probs, ids)
    seen = Evidence(ids, logits, probs, uniform=torch.zeros_like(limits), greedy=False)
    replacements = [Block().replacement(seen, i) for i in range(count + 1)]

    joint = dict.fromkeys(product(range(size), repeat=count + 1), 0.0)
    for row, drafted in enumerate(drafts):
        chance = float(torch.stack([probs[row, i, token] for i, token in enumerate(drafted)]).prod())
        for kept in range(count, -1, -1):  # the last coin that falls low enough decides
            limit = float(limits[row, kept - 1]) if kept else 1.0
            for token in range(size):
                start = (*drafted[:kept], token)
                first = chance * limit * float(replacements[kept][row, token])
                for rest in product(range(size), repeat=count - kept):
                    whole, weight = start, first
                    for following in rest:
                        weight *= float(target[whole][following])
                        whole = (*whole, following)
                    joint[whole] += weight
            chance *= 1 - limit
    for whole, found in joint.items():
        expected = 1.0
        for i, token in enumerate(whole):
            expected *= float(target[whole[:i]][token])
        assert found == pytest.approx(expected, abs=1e-12)


def test_block_verification_keeps_more_than_standard_verification() -> None:
    target, draft = tree(3, 3, 0), tree(3, 3, 100)
    generator = torch.Generator().manual_seed(0)
    count = 20_000
    ids = torch.empty(count, 0, dtype=torch.long)
    for _ in range(3):
        rows = torch.stack([draft[tuple(row)] for row in ids.tolist()])
        ids = torch.cat((ids, rows.multinomial(1, generator=generator)), 1)
    logits = torch.stack([torch.stack([target[tuple(row[:i])].log() for i in range(4)]) for row in ids.tolist()])
    probs = torch.stack([torch.stack([draft[tuple(row[:i])] for i in range(3)]) for row in ids.tolist()])
    coins = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    seen = Evidence(ids, logits, probs, uniform=coins, greedy=False)
    standard, block = (verdict.long().cumprod(1).sum() / count for verdict in (seen.agreed, Block().accept(seen)))
    assert block > standard + 0.02


def close(found: Tensor, expected: Tensor) -> None:
    assert found.sum().item() == pytest.approx(1, abs=1e-5)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def excess(wanted: Tensor, drawn: Tensor) -> Tensor:
    rest = (wanted - drawn).clamp(min=0)
    return rest / rest.sum()


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.8])
def test_ensemble_gives_the_mixture(p: Tensor, q: Tensor, weight: float) -> None:
    close(output(Ensemble(weight), p, q), weight * p + (1 - weight) * q)


@pytest.mark.parametrize("weight", [0.3, 0.8])
def test_ensemble_rejects_by_weight_times_total_variation(weight: float) -> None:
    p, q = PAIRS[0]
    coins = ((torch.arange(4000) + 0.5) / 4000)[:, None]
    kept = 0.0
    for token in range(6):
        seen = Evidence(
            torch.full((4000, 1), token), p.log().expand(4000, 2, 6), q.expand(4000, 1, 6), uniform=coins, greedy=False
        )
        kept += float(q[token] * Ensemble(weight).accept(seen).float().mean())
    assert kept == pytest.approx(1 - weight * float((p - q).abs().sum() / 2), abs=1e-3)


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.95, 1.0])
def test_cascade_gives_its_pi(p: Tensor, q: Tensor, alpha: float) -> None:
    good = p >= (1 - alpha) * p.max()
    close(output(Cascade(alpha), p, q), q * good + (1 - (q * good).sum()) * p)


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("bound", [0.01, 0.1, 0.5])
def test_mentored_uses_up_its_bound_and_no_more(p: Tensor, q: Tensor, bound: float) -> None:
    a, inverse = factors(p, q, bound)
    found = output(Mentored(bound), p, q)
    close(found, torch.minimum(torch.maximum(q, p * inverse), p / a))
    assert float(kl(p, found)) == pytest.approx(min(bound, float(kl(p, q))), abs=2e-3)


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_mentored_rejects_least_at_its_distance(p: Tensor, q: Tensor) -> None:
    """Its simple form, at a factor of the same distance, rejects more."""
    simple = output(MentoredSimple(0.4), p, q)
    bound = float(kl(p, simple))
    a = float(factors(p, q, bound)[0])
    assert a <= 0.6 + 1e-3
    assert (q - p / a).clamp(min=0).sum() <= (q - p / 0.6).clamp(min=0).sum() + 1e-3


def test_mentored_where_the_draft_cannot_say_all_tokens() -> None:
    """Truncation: no token that the target cuts off comes out, and those of the target alone do."""
    p, q = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.tensor([0.8, 0.0, 0.1, 0.1])
    found = output(Mentored(0.05), p, q)
    assert found[3] == 0
    assert found[1] > 0.1
    assert float(kl(p, found)) == pytest.approx(0.05, abs=2e-3)
    generous = output(Mentored(5.0), p, q)  # only what the target never says is rejected
    assert generous[3] == 0
    assert generous[0] == pytest.approx(0.8, abs=1e-3)
    close(output(Mentored(0.2), p, p), p)


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize(("rule", "factor"), [(Lenience(0.5), 0.5), (MentoredSimple(0.3), 0.7)])
def test_a_factor_lets_overshoot_through(p: Tensor, q: Tensor, rule: VerificationRule, factor: float) -> None:
    kept = torch.minimum(q, p / factor)
    close(output(rule, p, q), kept + (1 - kept.sum()) * excess(p, q))


@pytest.mark.parametrize(("p", "q"), PAIRS)
def test_a_rescued_token_keeps_the_drafts_probability(p: Tensor, q: Tensor) -> None:
    """The rules with a criterion: what it names comes from q, the rest by standard verification."""
    good = p >= p.topk(2).values[-1]
    kept = torch.where(good, q, torch.minimum(p, q))
    close(output(TopK(2), p, q), kept + (1 - kept.sum()) * excess(p, q))
