"""Every rule there is: its strict setting is exact verification, token for token, and a loose one is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel

from judge_decoding import Cause, Evidence, Exact, JudgeHead, Stats, VerificationRule, available_rules, parse_rule
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.judge.target import target_info
from tiny import EOS, VOCAB_SIZE, bigram, perturbed, random_head, run

RULES = sorted(available_rules())
LOSSY = [name for name in RULES if not available_rules()[name].lossless]
PROMPTS = ([5], [1, 7, 9, 23], [4, 4, 4, 8, 15])

# A setting of every lossy rule at which it rescues something on the tiny models. A new rule belongs here, too.
LOOSE = {
    "judge": "judge(threshold=0.4)",
    "top_k": "top_k(k=3)",
    "min_probability": "min_probability(p=0.05)",
    "margin_ratio": "margin_ratio(k=5, ratio=0.1)",
    "relaxed": "relaxed",
    "typical": "typical",
    "running_surprise": "running_surprise(epsilon=3)",
    "entropy_gate": "entropy_gate(entropy=0.05, window=1)",
    "lenience": "lenience(factor=0.1)",
    "mentored_simple": "mentored_simple(alpha=0.9)",
    "mentored": "mentored(kl=0.1)",
    "ensemble": "ensemble(weight=0.2)",
    "cascade": "cascade(alpha=0.9)",
    "fuzzy": "fuzzy",
    "kl_judge": "kl_judge",
}


@pytest.fixture(scope="module")
def rough(target: LlamaForCausalLM) -> PreTrainedModel:
    """A draft that is often wrong, but never by far."""
    return perturbed(target, noise=0.05, seed=3)


def heads(target: PreTrainedModel, draft: PreTrainedModel) -> dict[str, JudgeHead]:
    return {"target": random_head(target), "both": random_head(target, draft=target_info(draft))}


def strict(name: str, head: JudgeHead) -> VerificationRule:
    return available_rules()[name].strict(**({"head": head} if name == "judge" else {}))


def events(*args: object, **options: object) -> list[tuple[object, object]]:
    return [(event.token_ids, event.causes) for event in run(*args, **options)]  # type: ignore[arg-type]


OPTIONS = {"num_draft_tokens": 6, "max_new_tokens": 30, "end_ids": [EOS]}


@pytest.fixture(scope="module")
def exact(target: LlamaForCausalLM, rough: PreTrainedModel) -> list[list[tuple[object, object]]]:
    """What exact verification gives."""
    return [events(target, DraftModel(rough, VOCAB_SIZE), prompt, **OPTIONS) for prompt in PROMPTS]


@pytest.mark.parametrize(("name", "reads"), [*((name, "target") for name in RULES), ("judge", "both")])
def test_a_strict_setting_gives_the_tokens_of_exact(
    target: LlamaForCausalLM, rough: PreTrainedModel, exact: list[list[tuple[object, object]]], name: str, reads: str
) -> None:
    rule = strict(name, heads(target, rough)[reads])
    for prompt, expected in zip(PROMPTS, exact, strict=True):
        assert events(target, DraftModel(rough, VOCAB_SIZE), prompt, rule, **OPTIONS) == expected


@pytest.mark.parametrize("name", RULES)
def test_a_strict_setting_is_strict_where_logits_tie(name: str) -> None:
    """Greedy decoding takes the first of equals; a draft that takes the other is rejected."""
    table = torch.zeros(6, 6)
    table[:, 2] = table[:, 4] = 3.0
    other = table.clone()
    other[:, 4] += 0.001
    target, draft = bigram(table), bigram(other)
    rule = strict(name, random_head(target))
    found = events(target, DraftModel(draft, 6), [0], rule, max_new_tokens=8)
    assert found == events(target, DraftModel(draft, 6), [0], max_new_tokens=8)
    assert {token for ids, _ in found for token in ids} == {2}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", RULES)
def test_a_strict_setting_says_what_exact_says(name: str) -> None:
    """Of long drafts that mostly agree, with logits of all sizes, down to where their probabilities are equal."""
    generator = torch.Generator().manual_seed(2)
    rule = strict(name, random_head(bigram(torch.zeros(6, 6))))
    for size in (20.0, 3.0, 1.0, 0.1, 1e-3, 1e-9):
        logits = size * torch.randn(64, 13, 6, generator=generator)
        logits[:32] = (logits[:32] / size).round() * size  # ties
        draft = logits[:, :-1] + size * torch.randn(64, 12, 6, generator=generator)
        agree = torch.rand(64, 12, generator=generator) < 0.8
        ids = torch.where(agree, logits[:, :-1].argmax(-1), draft.argmax(-1))
        hidden = torch.randn(64, 12, 6, generator=generator)
        seen = Evidence(ids, logits, hidden=hidden, draft_probs=draft.softmax(-1))
        assert not seen.agreed.all()
        assert torch.equal(rule.accept(seen), seen.agreed)


@pytest.mark.parametrize("name", RULES)
def test_a_strict_setting_keeps_a_draft_that_is_the_target(target: LlamaForCausalLM, name: str) -> None:
    rounds = run(target, DraftModel(target, VOCAB_SIZE), PROMPTS[1], strict(name, random_head(target)))
    assert {round_.causes[-1] for round_ in rounds[:-1]} == {Cause.BONUS}
    assert Stats.of(rounds).causes[Cause.RESCUED] == 0


@pytest.mark.parametrize(("name", "reads"), [*((name, "target") for name in LOSSY), ("judge", "both")])
def test_a_loose_setting_rescues(target: LlamaForCausalLM, rough: PreTrainedModel, name: str, reads: str) -> None:
    """Or the strict one would prove nothing."""
    rule = parse_rule(LOOSE[name], heads(target, rough)[reads])
    rounds = [
        event
        for prompt in PROMPTS
        for event in run(target, DraftModel(rough, VOCAB_SIZE), prompt, rule, num_draft_tokens=6, max_new_tokens=24)
    ]
    causes = Stats.of(rounds).causes
    assert causes[Cause.RESCUED] > 0
    assert causes[Cause.AGREED] > 0


def output(rule: VerificationRule, target: Tensor, draft: Tensor | None, token: int | None = None) -> Tensor:
    """The distribution of the token that comes out of one draft token, over a fine grid of coins.

    The draft token is drawn from ``draft``, or is ``token`` for certain.
    """
    size, grid = len(target), 4000
    coins = ((torch.arange(grid) + 0.5) / grid)[:, None]
    result = torch.zeros(size)
    drafts = [token] if token is not None else range(size)
    for drafted in drafts:
        seen = Evidence(
            torch.full((grid, 1), drafted),
            target.log().expand(grid, 2, size),
            None if draft is None else draft.expand(grid, 1, size),
            hidden=torch.zeros(grid, 1, size),
            uniform=coins,
            greedy=False,
        )
        weight = 1.0 if draft is None else float(draft[drafted])
        kept = float(rule.accept(seen).float().mean())
        result[drafted] += weight * kept
        result += weight * (1 - kept) * rule.replacement(seen, 0)[0]
    return result


@pytest.mark.parametrize("name", RULES)
def test_a_strict_setting_is_lossless_above_temperature_zero(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rule = strict(name, random_head(bigram(torch.zeros(6, 6))))
    assert rule.is_lossless
    for _ in range(3):
        target, draft = (2 * torch.randn(2, 6, generator=generator)).softmax(-1)
        assert output(rule, target, draft).tolist() == pytest.approx(target.tolist(), abs=1e-3)
        if name not in ("fuzzy", "kl_judge"):  # which refuse a draft without distributions
            assert output(rule, target, None, token=1).tolist() == pytest.approx(target.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("greedy", [True, False])
def test_rows_of_a_batch_are_judged_as_if_alone(name: str, greedy: bool) -> None:
    """Rows of 4, 2 and no draft tokens; what is said of padding does not matter, and the last one is all bonus."""
    generator = torch.Generator().manual_seed(0)
    size, count, lengths = 8, 4, [4, 2, 0]
    head = random_head(bigram(torch.zeros(size, size)))
    rule = parse_rule(LOOSE.get(name, name), head)
    for _ in range(2):
        logits = 2 * torch.randn(3, count + 1, size, generator=generator)
        draft = (logits[:, :-1] + torch.randn(3, count, size, generator=generator)).softmax(-1)
        whole = Evidence(
            draft.argmax(-1), logits, draft, torch.randn(3, count, size, generator=generator),
            torch.rand(3, count, generator=generator), greedy, lengths=torch.tensor(lengths),
        )  # fmt: skip
        verdicts = rule.accept(whole)
        for place in range(max(lengths) + 1):
            places = torch.tensor([min(place, length) for length in lengths])
            replacements = rule.replacement(whole, places)
            for row, length in enumerate(lengths):
                alone = row_of(whole, row, length)
                assert verdicts[row, :length].tolist() == rule.accept(alone)[0].tolist()
                expected = rule.replacement(alone, int(places[row]))[0].tolist()
                assert replacements[row].tolist() == pytest.approx(expected, abs=1e-6)
                if places[row] == length:
                    assert expected == pytest.approx(alone.target_probs[0, -1].tolist(), abs=1e-6)


@pytest.mark.parametrize("name", sorted(available_rules()))
def test_a_rule_says_whether_its_own_verdicts_depend_on_random_numbers(name: str, target: LlamaForCausalLM) -> None:
    generator = torch.Generator().manual_seed(0)
    size = target.config.hidden_size
    rule = parse_rule(LOOSE.get(name, name), random_head(target))
    logits = 2 * torch.randn(200, 5, size, generator=generator)
    draft = (logits[:, :-1] + torch.randn(200, 4, size, generator=generator)).softmax(-1)
    ids, hidden = draft.argmax(-1), torch.randn(200, 4, size, generator=generator)
    tosses = [torch.rand(200, 4, generator=generator) for _ in range(2)]
    seen = [Evidence(ids, logits, draft, hidden, one, greedy=False) for one in tosses]
    first, second = (rule.accept(one) for one in seen)
    # Where standard verification rejects a token both times, only the rule's own criterion is left.
    rejected = ~(seen[0].agreed | seen[1].agreed)
    same = torch.where(rejected, first == second, first >= seen[0].agreed)
    assert bool(same.all()) == rule.deterministic


def row_of(whole: Evidence, row: int, length: int) -> Evidence:
    """One row's evidence, without padding."""

    def part(values: Tensor | None, columns: int = length) -> Tensor | None:
        return None if values is None else values[row : row + 1, :columns]

    return Evidence(
        whole.draft_ids[row : row + 1, :length], whole.target_logits[row : row + 1, : length + 1],
        part(whole.draft_probs), part(whole.hidden), part(whole.uniform), whole.greedy,
    )  # fmt: skip


def test_a_lossy_rule_without_a_strict_setting_says_so() -> None:
    class Vague(Exact):
        name = "vague"
        lossless = False

    with pytest.raises(ValueError, match="vague has no strict setting"):
        Vague.strict()
