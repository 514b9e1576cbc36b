"""Texts as drafts: the simulated rounds are those of decoding, the figures are counted, and memory changes nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import (
    AnyOf,
    Cause,
    DraftFunction,
    Evidence,
    Exact,
    Judge,
    JudgeDecoder,
    JudgeDecodingError,
    Round,
    Stats,
    TopK,
    VerificationRule,
    available_rules,
    decode,
    parse_rule,
)
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.evaluation.acceptance import Acceptance
from judge_decoding.evaluation.score import ScoreConfig, score
from judge_decoding.evaluation.texts import TokenizedAnswer
from judge_decoding.judge.target import target_info
from judge_decoding.models.teacher_forcing import read_given
from judge_decoding.statistics import ratio_interval
from test_rule_strict import LOOSE
from tiny import greedy, llama, mistral, perturbed, random_head, request, run, successor, tokens, word_tokenizer

DRAFTLESS = [
    name for name, rule in available_rules().items() if not rule.needs_draft_probs and not rule.needs_draft_hidden
]


def rule_of(name: str, target: PreTrainedModel) -> VerificationRule:
    return parse_rule(LOOSE.get(name, name), random_head(target))


def text_by(
    target: PreTrainedModel, prompt: Sequence[int], count: int, *, seed: int, foreign: float = 0.4
) -> TokenizedAnswer:
    """The target's own words, a share of them replaced by some of its next best ones."""
    rng = random.Random(seed)
    ids: list[int] = []
    for _ in range(count):
        best = target(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1].topk(7).indices.tolist()
        ids.append(best[rng.randrange(1, 7) if rng.random() < foreign else 0])
    return TokenizedAnswer(tuple(prompt), tuple(ids))


def scored(
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[TokenizedAnswer],
    rules: Sequence[VerificationRule],
    *lengths: int,
    batch_tokens: int = 1024,
) -> list[Acceptance]:
    config = ScoreConfig(lengths, batch_tokens=batch_tokens, shown=len(texts))
    return score(JudgeDecoder(target, tokenizer), texts, rules, config)


def first_round(target: PreTrainedModel, text: TokenizedAnswer, at: int, rule: VerificationRule, count: int) -> Round:
    """What decoding does with the text from ``at`` on as its draft."""
    left = text.ids[at:]
    drafter = DraftFunction(lambda _ids, number: left[:number])
    prompt = [*text.prompt_ids, *text.ids[:at]]
    return next(decode(target, drafter, [request(target, prompt, rule, num_draft_tokens=count, max_new_tokens=99)]))[1]


# The rounds are those of decoding


@pytest.mark.parametrize("name", [*DRAFTLESS, "judge | top_k"])
def test_every_round_is_the_one_decoding_would_do(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    rule = AnyOf(*(rule_of(part, target) for part in name.split(" | ")))
    text = text_by(target, [5, 6], 30, seed=1)
    lengths = (1, 4, 9, 100)
    for length, found in zip(lengths, scored(target, tokenizer, [text], [rule], *lengths), strict=True):
        at = 0
        for event in found.rounds[0]:
            real = first_round(target, text, at, rule, length)
            assert event.draft_ids == real.draft_ids == text.ids[at : at + length]
            assert event.accepted == real.accepted
            assert event.causes[: real.accepted] == real.causes[: real.accepted]
            assert event.rescuers[: real.accepted] == real.rescuers[: real.accepted]
            assert event.target_ids == real.target_ids
            if real.scores is None:
                assert event.scores is None
            else:
                assert event.scores == pytest.approx(real.scores, abs=1e-4)
            at += len(event.token_ids)
        assert at == len(text.ids)
        assert tokens(found.rounds[0]) == list(text.ids)
    if name != "exact" and name != "block":
        assert found.stats.causes[Cause.RESCUED]  # else this compares little


@pytest.mark.parametrize("source", [HiddenSource(-1, "before"), HiddenSource(), HiddenSource(-2, "before")])
def test_a_judge_reads_where_its_head_was_trained(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, source: HiddenSource
) -> None:
    text, rule = (
        text_by(target, [5, 6], 12, seed=1),
        Judge(random_head(target, norm=source.norm, layer=source.layer), 0),
    )
    (event,) = scored(target, tokenizer, [text], [rule], 12)[0].rounds[0]
    assert event.scores == pytest.approx(first_round(target, text, 0, rule, 12).scores, abs=1e-4)


def test_a_rule_that_accepts_everything_counts_as_in_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    counting, rng = successor(), random.Random(0)
    text = TokenizedAnswer(
        (2, 3), (*(rng.randrange(4, 9) for _ in range(22)), 0)
    )  # only the text says 0, which ends it
    rule = TopK(12)
    for length, found in zip((1, 5, 23, 24), scored(counting, tokenizer, [text], [rule], 1, 5, 23, 24), strict=True):
        drafter = DraftFunction(lambda ids, count: text.ids[len(ids) - 2 :][:count])
        real = Stats.of(run(counting, drafter, [2, 3], rule, num_draft_tokens=length, max_new_tokens=99, end_ids=[0]))
        assert found.stats.accepted_lengths == real.accepted_lengths
        assert (found.stats.rounds, found.stats.tokens) == (real.rounds, real.tokens) == (-(-23 // (length + 1)), 23)
        assert found.stats.causes[Cause.BONUS] == real.causes[Cause.BONUS]
        assert found.rejected_share == 0


def test_where_nothing_is_accepted_it_is_plain_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    counting = successor()
    text = TokenizedAnswer((2, 3), (5, 7, 9, 11, 1, 3, 5, 7))
    found = scored(counting, tokenizer, [text], [Exact()], 4)[0]
    drafter = DraftFunction(lambda ids, count: text.ids[len(ids) - 2 :][:count])
    real = Stats.of(run(counting, drafter, [2, 3], num_draft_tokens=4, max_new_tokens=8))
    assert found.stats.accepted_lengths == real.accepted_lengths == {0: 8}
    assert found.stats.tokens_per_forward == real.tokens_per_forward == 1
    assert found.rejected_share == 1
    assert (found.histogram, found.by_position) == ([1], [0])


def test_the_targets_own_answer_is_accepted_whole(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    text = TokenizedAnswer((5, 6), tuple(greedy(target, [5, 6], 30)))
    found = scored(target, tokenizer, [text], [Exact()], 100)[0]
    assert (found.stats.rounds, found.stats.causes[Cause.AGREED], found.rejected_share) == (1, 30, 0)


# Figures


def test_hand_counted_figures(tokenizer: PreTrainedTokenizerFast) -> None:
    """After i the target says i + 1, and 0 after 11."""
    text = TokenizedAnswer((2, 3), (4, 5, 9, 10, 11, 0, 1))
    three, ten = scored(successor(), tokenizer, [text], [Exact()], 3, 10)
    agreed, correction, bonus = Cause.AGREED, Cause.CORRECTION, Cause.BONUS
    assert [(r.token_ids, r.causes) for r in three.rounds[0]] == [
        ((4, 5, 9), (agreed, agreed, correction)),
        ((10, 11, 0, 1), (agreed, agreed, agreed, bonus)),
    ]
    assert [(r.token_ids, r.causes) for r in ten.rounds[0]] == [
        ((4, 5, 9), (agreed, agreed, correction)),
        ((10, 11, 0, 1), (agreed,) * 4),  # the text ends: nobody needs a bonus
    ]
    assert three.histogram == [0, 0, 0.5, 0.5]
    assert three.by_position == three.to_dict()["acceptance_by_position"] == [1, 1, 0.5]
    assert three.median == 2.5
    assert three.rejected_share == pytest.approx(1 / 6)
    assert [(each.token, each.times, each.decided, each.instead) for each in three.most_rejected()] == [
        (9, 1, 1, ((6, 1),))
    ]
    # The longer draft proposes 10 to 1 twice, but behind a rejection nobody decides about them.
    assert ten.decided == dict.fromkeys((4, 5, 9, 10, 11, 0, 1), 1)
    figures = three.to_dict()
    assert figures["accepted_per_round"] == 2.5
    assert figures["tokens_per_forward"] == 3.5
    assert figures["accepted_per_round_interval"] is None  # one text tells nothing of others
    assert ten.to_dict()["accepted_lengths"] == {"2": 1, "4": 1}
    assert ten.by_position == [1, 1, 0.5, 0.5]  # the first draft proposes seven, and no later one that many


def test_several_texts_are_added_up(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [TokenizedAnswer((2,), (3, 4, 9, 5)), TokenizedAnswer((6,), (7, 8)), TokenizedAnswer((1,), (9, 9, 9))]
    found = scored(successor(), tokenizer, texts, [Exact()], 2)[0]
    # 3 4|9, 5 ; 7 8 ; |9, |9, |9
    assert found.stats.accepted_lengths == {2: 2, 0: 4}
    assert found.answers == {0: (2, 4, 2), 1: (2, 2, 1), 2: (0, 3, 3)}
    assert found.stats.accepted_per_round == pytest.approx(4 / 6)
    assert found.accepted_interval is not None
    low, high = found.accepted_interval
    assert low <= 4 / 6 <= high


def test_the_interval_is_that_of_a_ratio_over_texts() -> None:
    rng = random.Random(0)
    pairs = [(rng.gauss(4, 1), 1) for _ in range(400)]
    low, high = ratio_interval(pairs) or (0, 0)
    mean = sum(a for a, _ in pairs) / 400
    assert (low + high) / 2 == pytest.approx(mean, abs=0.02)
    assert high - low == pytest.approx(2 * 1.96 / 400**0.5, rel=0.15)
    assert ratio_interval(pairs) == (low, high)
    assert ratio_interval([(6, 2), (3, 1)]) == (3, 3)
    assert ratio_interval([(6, 2)]) is None
    # A long text counts for more than a short one.
    low, high = ratio_interval([(0, 1), (300, 100)] * 20) or (0, 0)
    assert low > 2.8


# Memory


@pytest.mark.parametrize("batch_tokens", [1, 3, 7, 40])
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_batches_and_parts_change_nothing(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, family: str, batch_tokens: int
) -> None:
    model = target if family == "llama" else mistral()
    rng = random.Random(4)
    texts = [
        text_by(model, [rng.randrange(4, 30) for _ in range(rng.randrange(1, 9))], rng.randrange(1, 25), seed=i)
        for i in range(9)
    ]
    rules = [Exact(), *(Judge(random_head(model, norm=norm), 0.4) for norm in ("before", "after"))]
    rules.append(Judge(random_head(model, norm="before", layer=-2), 0.4))
    rules += [rule_of(name, model) for name in ("entropy_gate", "running_surprise")]
    alone = [scored(model, tokenizer, [text], rules, 4, 30) for text in texts]
    together = scored(model, tokenizer, texts, rules, 4, 30, batch_tokens=batch_tokens)
    for number in range(len(texts)):
        for one, all_of_them in zip(alone[number], together, strict=True):
            assert [plain(event) for event in all_of_them.rounds[number]] == [plain(e) for e in one.rounds[0]]
    assert [each.stats.tokens for each in together] == [sum(len(text.ids) for text in texts)] * len(together)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_round_may_end_where_reading_does(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, length: int
) -> None:
    """Then the next one begins behind a token whose state is still to be read."""
    text, rules = text_by(target, [5, 6], 20, seed=3), [Judge(random_head(target), 0)]
    whole = scored(target, tokenizer, [text], rules, length)[0].rounds[0]
    for batch_tokens in (1, 2, 3, 4, 5):
        parts = scored(target, tokenizer, [text], rules, length, batch_tokens=batch_tokens)[0].rounds[0]
        assert [plain(event) for event in parts] == [plain(event) for event in whole]
        for one, other in zip(parts, whole, strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-4)


def plain(event: Round) -> tuple[object, ...]:
    return event.draft_ids, event.token_ids, event.causes, event.target_ids, event.rescuers


@pytest.mark.parametrize("batch_tokens", [2, 16, 50])
def test_every_token_is_read_once_and_few_distributions_are_there_at_a_time(
    target: LlamaForCausalLM, batch_tokens: int
) -> None:
    texts = [text_by(target, [7] * prompt, count, seed=prompt) for prompt, count in ((1, 5), (20, 3), (3, 40), (2, 6))]
    read: list[tuple[int, int]] = []
    hook = target.lm_head.register_forward_pre_hook(lambda _, inputs: read.append(tuple(inputs[0].shape[:2])))
    widths: list[tuple[int, int]] = []
    other = target.model.embed_tokens.register_forward_pre_hook(lambda _, inputs: widths.append(tuple(inputs[0].shape)))
    both = [(*text.prompt_ids, *text.ids) for text in texts]
    wanted = [range(len(text.prompt_ids), len(ids) + 1) for text, ids in zip(texts, both, strict=True)]
    try:
        pieces = list(read_given(target, both, wanted, sources=[HiddenSource()], batch_tokens=batch_tokens))
    finally:
        hook.remove()
        other.remove()
    assert max(rows * width for rows, width in widths) <= batch_tokens
    assert max(rows * width for rows, width in read) <= batch_tokens
    if batch_tokens == 50:
        assert len(widths) < len(texts)
    for number, text in enumerate(texts):
        own = [piece for piece in pieces if piece.number == number]
        ids = torch.tensor([[*text.prompt_ids, *text.ids]])
        whole = target(input_ids=ids).logits[0, len(text.prompt_ids) - 1 :]
        torch.testing.assert_close(torch.cat([piece.logits for piece in own]), whole, atol=1e-4, rtol=1e-4)
        assert sum(len(piece.states[HiddenSource()]) for piece in own) == len(text.ids)


def test_a_window_is_the_evidence_of_its_own_tokens() -> None:
    torch.manual_seed(0)
    ids, logits, hidden = torch.randint(0, 11, (1, 12)), torch.randn(1, 13, 11), torch.randn(1, 12, 4)
    whole = Evidence(draft_ids=ids, target_logits=logits)
    for start, count in ((0, 12), (0, 3), (5, 7), (11, 1), (4, 0)):
        part = whole.window(start, count, hidden)
        fresh = Evidence(ids[:, start : start + count], logits[:, start : start + count + 1])
        for name in (
            "draft_ids", "target_logits", "target_ids", "target_probs", "token_probs", "token_ranks", "gaps", "entropy",
            "best_probs", "agreed", "drafted",
        ):  # fmt: skip
            assert torch.equal(getattr(part, name), getattr(fresh, name)), name
        assert part.hidden is not None
        assert torch.equal(part.hidden, hidden[:, start : start + count])


# Refusals


@pytest.mark.parametrize("name", sorted(set(available_rules()) - set(DRAFTLESS)))
def test_rules_that_need_a_real_draft_are_refused(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    with pytest.raises(JudgeDecodingError, match=rf"The rule {name}\(.*probabilities, and a text has none"):
        scored(target, tokenizer, [TokenizedAnswer((1,), (2,))], [parse_rule(LOOSE[name])], 4)


def test_a_head_that_reads_the_drafts_states_is_refused(
    target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    head = random_head(target, draft=target_info(perturbed(target)))
    with pytest.raises(JudgeDecodingError, match="hidden states, and a text has none"):
        scored(target, tokenizer, [TokenizedAnswer((1,), (2,))], [AnyOf(Exact(), Judge(head))], 4)


def test_a_rule_may_be_given_by_its_spelling(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    decoder, texts = JudgeDecoder(target, tokenizer), [TokenizedAnswer((1,), (5, 6, 7, 8, 9))]
    one, other = (score(decoder, texts, [rule]) for rule in ("top_k(k=9)", TopK(9)))
    assert [str(each.rule) for each in one] == ["top_k(k=9)"]
    assert one[0].stats == other[0].stats


def test_nothing_to_score(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(JudgeDecodingError, match="no text to score"):
        scored(target, tokenizer, [], [Exact()], 4)
    for make in (lambda: ScoreConfig((4, 0)), lambda: ScoreConfig(batch_tokens=0)):
        with pytest.raises(JudgeDecodingError, match="is 0; it must be 1 or more"):
            make()
    for ids in (((), (1,)), ((1,), ())):
        with pytest.raises(JudgeDecodingError, match="is empty"):
            TokenizedAnswer(*ids)


def test_a_generation_configuration_counts_as_in_decoding() -> None:
    """What generate says, scored as a draft, agrees whole; without the configuration it does not."""
    model, tokenizer = llama(0), word_tokenizer()
    model.generation_config.repetition_penalty = 1.3
    prompt = [5, 6, 7, 8]
    answer = greedy(model, prompt, 20)
    text = TokenizedAnswer(tuple(prompt), tuple(answer))
    (found,) = score(JudgeDecoder(model, tokenizer), [text], [Exact()], ScoreConfig(num_draft_tokens=(5,)))
    assert found.stats.accepted_per_round == pytest.approx(17 / 4)  # three rounds of five and a bonus, then two
    plain = JudgeDecoder(model, tokenizer, generation_config=GenerationConfig())
    (other,) = score(plain, [text], [Exact()], ScoreConfig(num_draft_tokens=(5,)))
    assert other.stats.accepted_per_round < found.stats.accepted_per_round
