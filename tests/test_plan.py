"""The plan: bytes added up by hand, a roofline worked out by hand, and what may never happen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import Run, is_one_sentence
from judge_decoding.serving.plan import (
    ALLOWANCE,
    LAUNCH,
    ForwardCost,
    Memory,
    RoundCost,
    accepted_of,
    against_published,
    best_length,
    remedies,
)
from judge_decoding.serving.recipe import Experts, Gpus, Model, Recipe, load, packaged

BIG, SMALL = "llama-3.1-8b-405b", "smollm2-135m-1.7b"

# 2 layers: attention 2*10*5*2*(2+2) = 800, mlp 2*3*10*20 = 1,200, table 100*10 = 1,000, norms 2*2*10+10 = 50.
TOY = Model(
    name="toy", layers=2, hidden_size=10, intermediate_size=20, heads=2, kv_heads=2, head_dim=5, vocab_size=100
)  # fmt: skip
ONE = Gpus(
    name="toy", count=1, memory=1e6, bandwidth=1000, bf16_flops=1e5, fp8_flops=2e5, link_bandwidth=100,
    all_reduce_latency=0.5,
)  # fmt: skip
TWO = ONE.model_copy(update={"count": 2})


def with_gpus(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"gpus": recipe.gpus.model_copy(update=changes)})


def test_a_toy_models_parameters_and_bytes() -> None:
    assert (TOY.attention, TOY.mlp, TOY.embedding, TOY.parameters) == (800, 1200, 1000, 4050)
    assert TOY.weight_bytes == 8100
    assert TOY.bytes_read() == 6100  # not the table of input embeddings
    assert TOY.model_copy(update={"weights": "fp8"}).weight_bytes == 2000 + 2050 * 2
    assert TOY.model_copy(update={"weights": "fp8-mlp"}).weight_bytes == 1600 + 1200 + 2050 * 2
    tied = TOY.model_copy(update={"tied_embeddings": True})
    assert (tied.parameters, tied.weight_bytes, tied.bytes_read()) == (3050, 6100, 6100)
    assert TOY.model_copy(update={"qk_norm": True}).parameters == 4050 + 2 * 2 * 5


def test_a_toy_with_experts() -> None:
    # One dense layer of 3*10*20 = 600; in the other 4 experts of 3*10*6 = 180, a shared one of 3*10*2, a router of 40.
    moe = TOY.model_copy(update={
        "experts": Experts(total=4, active=2, intermediate_size=6, shared_intermediate_size=2, dense_layers=1)
    })  # fmt: skip
    assert (moe.mlp, moe.active_mlp) == (600 + 4 * 180 + 60 + 40, 600 + 2 * 180 + 60 + 40)
    assert moe.parameters == TOY.parameters - 1200 + 1420
    # 16-bit weights: one token reads 2 of 4 experts; of two tokens, each leaves an expert out with probability 1/2.
    everything = 2 * (moe.parameters - 1000)
    assert moe.bytes_read(1) == everything - 2 * 2 * 180
    assert moe.bytes_read(2) == everything - 2 * 1 * 180
    assert moe.bytes_read(1000) == pytest.approx(everything)
    # Only the active experts multiply: 2 * (800 + 1060 + 1000) a token, and attention 800 for 10 tokens of context.
    assert ForwardCost.of(moe, 200, 10, ONE, share=1.0).work == pytest.approx((2 * 2860 + 800) * 200 / 1e5)
    assert moe.as_dense().intermediate_size == 2 * 6 + 2


@pytest.mark.parametrize(
    ("experts", "phrase"),
    [({"total": 4, "active": 5, "intermediate_size": 6}, "5 of 4 experts"),
     ({"total": 4, "active": 2, "intermediate_size": 6, "dense_layers": 2}, "leave none of 2")],
)  # fmt: skip
def test_experts_that_cannot_be_are_refused(experts: dict[str, int], phrase: str) -> None:
    with pytest.raises(ValueError, match=phrase):
        Model.model_validate(TOY.model_dump() | {"experts": experts})


def test_the_published_sizes_of_a_mixture_of_experts() -> None:
    """Qwen3-30B-A3B's model card: 30.5B parameters, 29.9B without embeddings, 3.3B of them active."""
    target = load("qwen3-0.6b-30b-a3b").target
    assert round(target.parameters / 1e9, 1) == 30.5
    assert round((target.parameters - 2 * target.embedding) / 1e9, 1) == 29.9
    assert target.parameters - target.mlp + target.active_mlp == pytest.approx(3.3e9, rel=0.02)


def test_the_published_sizes_of_a_mixture_in_4_bits() -> None:
    """gpt-oss-20b's model card (arXiv 2508.10925, table 1): 20.91B parameters, 3.61B of them active, 12.8 GiB."""
    model = Model(
        name="openai/gpt-oss-20b", weights="mxfp4-mlp", layers=24, hidden_size=2880, intermediate_size=2880, heads=64,
        kv_heads=8, head_dim=64, vocab_size=201088, experts=Experts(total=32, active=4, intermediate_size=2880),
    )  # fmt: skip
    assert round(model.parameters / 1e9, 2) == 20.91
    assert round((model.attention + model.active_mlp + model.embedding) / 1e9, 2) == 3.61
    assert round(model.weight_bytes / 2**30, 1) == 12.8


def test_experts_make_the_best_draft_shorter() -> None:
    recipe = load("qwen3-0.6b-30b-a3b")
    for rate in (0.7, 0.9):
        one = best_length(recipe, rate)
        assert one.dense_length is not None
        assert one.length < one.dense_length
    assert best_length(load("qwen3-0.6b-32b"), 0.8).experts_read is None


def test_the_best_length_is_the_best(run: Run) -> None:
    recipe = load("qwen3-0.6b-32b")
    speeds = {}
    for length in range(1, 33):  # an accepted prefix of i tokens has probability 0.8 ** i
        accepted = sum(0.8**i for i in range(1, length + 1))
        assert accepted_of(0.8, length) == pytest.approx(accepted)
        speeds[length] = RoundCost.of(recipe, 0.7, length).tokens_per_second(accepted)
    assert best_length(recipe, 0.8).length == max(speeds, key=speeds.__getitem__)
    told = json.loads(run("plan", "qwen3-0.6b-32b", "--json")[1])["best_draft_lengths"]
    assert next(one["length"] for one in told if one["rate"] == 0.8) == best_length(recipe, 0.8).length


def test_a_toy_forward_that_waits_for_memory() -> None:
    # 6,100 bytes of weights, and 10 tokens of 2 * 2 layers * 2 heads * 5 numbers * 2 bytes, at 1,000 bytes a second.
    one = ForwardCost.of(TOY, 1, 10, ONE, share=1.0)
    assert one.work == pytest.approx((6100 + 10 * 80) / 1000)
    assert one.all_reduce == 0
    assert one.seconds == pytest.approx(6.9 + LAUNCH)
    assert ForwardCost.of(TOY, 1, 10, ONE, share=0.5).work == pytest.approx(13.8)


def test_a_toy_forward_that_waits_for_the_multiplications() -> None:
    # 2 * 3,000 a token, and attention 4 * 10 tokens * 2 layers * 2 heads * 5: 6,800 a token, 200 tokens.
    assert ForwardCost.of(TOY, 200, 10, ONE, share=1.0).work == pytest.approx(6800 * 200 / 1e5)
    eight = TOY.model_copy(update={"weights": "fp8"})
    assert ForwardCost.of(eight, 200, 10, ONE, share=1.0).work == pytest.approx(6800 * 200 / 2e5)


def test_a_toy_forward_on_two() -> None:
    # Each reads half. 4 all-reduces: half a second each, and 2 * 1/2 * 3 tokens * 10 numbers * 2 bytes at 100 a second.
    one = ForwardCost.of(TOY, 3, 10, TWO, share=1.0)
    assert one.work == pytest.approx((3050 + 10 * 40) / 1000)
    assert one.all_reduce == pytest.approx(4 * (0.5 + 0.6))


def test_a_toy_forward_of_several_sequences() -> None:
    # The weights once and the 10 tokens of each; all-reduces of 4 * 3 tokens; 4 * 50 tokens to multiply.
    assert ForwardCost.of(TOY, 1, 10, ONE, share=1.0, sequences=4).work == pytest.approx((6100 + 4 * 10 * 80) / 1000)
    assert ForwardCost.of(TOY, 3, 10, TWO, share=1.0, sequences=4).all_reduce == pytest.approx(4 * (0.5 + 4 * 0.6))
    assert ForwardCost.of(TOY, 50, 10, ONE, share=1.0, sequences=4).work == pytest.approx(6800 * 200 / 1e5)


@given(st.sampled_from([*packaged()]), st.integers(1, 64), st.floats(0.05, 1), st.floats(0, 20))
def test_more_sequences_are_more_tokens_and_fewer_for_each(
    name: str, sequences: int, share: float, accepted: float
) -> None:
    recipe = load(name)
    some, more = (RoundCost.of(recipe, share, 20, sequences=count) for count in (sequences, sequences + 1))
    for one, other in (
        (some.tokens_per_second(accepted), more.tokens_per_second(accepted)),
        (some.plain_tokens_per_second, more.plain_tokens_per_second),
    ):
        assert one <= other * (1 + 1e-9)
        assert one / sequences > other / (sequences + 1)
    assert some.tokens_per_second(some.break_even) == pytest.approx(some.plain_tokens_per_second)


@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("draft_gpus", [8, 1])
def test_a_round_is_its_drafts_and_one_verification(share: float, draft_gpus: int) -> None:
    recipe = load(BIG)
    one = RoundCost.of(recipe, share, draft_gpus=draft_gpus)
    context, gpus = recipe.context // 2, recipe.gpus
    drafting = gpus.model_copy(update={"count": draft_gpus})
    draft = ForwardCost.of(recipe.draft, 1, context, drafting, share).seconds
    verify = ForwardCost.of(recipe.target, 21, context, gpus, share).seconds
    assert one.seconds == pytest.approx(20 * draft + verify)
    assert one.plain == ForwardCost.of(recipe.target, 1, context, gpus, share)
    assert sum(one.parts().values()) == pytest.approx(one.seconds)
    assert one.tokens_per_second(19.7) == pytest.approx(20.7 / one.seconds)
    assert one.tokens_per_second(one.break_even) == pytest.approx(1 / one.plain.seconds)


def test_the_memory_of_one_recipe_by_hand() -> None:
    memory = Memory.of(load(BIG))
    # Of 405,853,388,800 parameters the 126 layers' MLPs, 3 * 16,384 * 53,248 each, take a byte and the others two.
    assert memory.target == (2 * 405_853_388_800 - 126 * 3 * 16_384 * 53_248) / 8
    assert memory.draft == 2 * 8_030_261_248 / 8
    # One of 8 kv heads on each GPU: keys and values of 128 numbers in 126 and 32 layers, 16 * 8,192 tokens.
    assert memory.cache == 2 * 128 * 2 * (126 + 32) * 16 * 8192
    assert memory.allowance == ALLOWANCE
    assert memory.usable == pytest.approx(0.92 * 85.5e9)
    assert memory.spare == pytest.approx(memory.usable - memory.target - memory.draft - memory.cache - memory.allowance)


def test_405b_in_16_bits_does_not_go_on_8_times_80_gb() -> None:
    recipe = load(BIG)
    half = recipe.model_copy(update={"target": recipe.target.model_copy(update={"weights": "bf16"})})
    assert half.target.weight_bytes == pytest.approx(812e9, rel=0.01)
    assert not Memory.of(half).fits
    assert "the target's weights in fp8" in remedies(half)
    assert "16 GPUs" in remedies(half)
    assert not any("sequence" in each for each in remedies(half))
    assert {each.weights for each in against_published(recipe) if not each.possible} == {"bf16"}


@pytest.mark.parametrize("name", packaged())
def test_what_is_said_to_help_helps(name: str) -> None:
    recipe = load(name).model_copy(update={"sequences": 200})
    assert not Memory.of(recipe).fits
    (told,) = [each for each in remedies(recipe) if each.endswith("sequences")]
    fewer = int(told.split()[0])
    assert Memory.of(recipe.model_copy(update={"sequences": fewer})).fits
    assert not Memory.of(recipe.model_copy(update={"sequences": fewer + 1})).fits


@given(st.sampled_from([*packaged()]), st.floats(1.01, 100), st.integers(1, 64), st.floats(0.05, 1))
def test_better_machines_are_never_slower_and_longer_drafts_never_cheaper(
    name: str, factor: float, length: int, share: float
) -> None:
    recipe = load(name)
    gpus = recipe.gpus
    before = RoundCost.of(recipe, share, length)
    for better in ("bandwidth", "bf16_flops", "fp8_flops", "link_bandwidth"):
        after = RoundCost.of(with_gpus(recipe, **{better: getattr(gpus, better) * factor}), share, length)
        assert after.seconds <= before.seconds
    slower = with_gpus(recipe, all_reduce_latency=gpus.all_reduce_latency * factor)
    assert RoundCost.of(slower, share, length).seconds >= before.seconds
    assert RoundCost.of(recipe, share, length + 1).seconds > before.seconds
    assert RoundCost.of(with_gpus(recipe, bandwidth=gpus.bandwidth * factor), share, length).seconds < before.seconds


def test_against_the_paper_with_nothing_fitted(run: Run) -> None:
    for name, published in ((BIG, 129), ("llama-3.1-8b-70b", 141)):
        told = json.loads(run("plan", name, "--json")[1])
        speeds = [each["tokens_per_second"] for each in told["rounds"]]
        for each in speeds:
            assert each["judge"] > each["standard"] > each["plain"]
        assert speeds[0]["judge"] > speeds[1]["judge"]
        assert speeds[0]["judge"] > published  # at all of the peak it is an upper bound
        for each in told["published"]:
            assert each["deviation"] == pytest.approx(each["tokens_per_second"] / published - 1)
        ours = [e["tokens_per_second"] for e in told["published"] if e["weights"] == load(name).target.weights]
        assert speeds[0]["judge"] in ours
        assert speeds[1]["judge"] in ours


def test_the_plan_is_for_one_sequence_and_for_the_recipes(run: Run) -> None:
    recipe = load(BIG)
    assert recipe.accepted is not None
    told = json.loads(run("plan", BIG, "--json")[1])["rounds"]
    assert [(each["sequences"], each["share"]) for each in told] == [(1, 1.0), (1, 0.7), (16, 1.0), (16, 0.7)]
    for each in told:
        one = RoundCost.of(recipe, each["share"], sequences=each["sequences"])
        speeds = each["tokens_per_second"]
        assert speeds["judge"] == pytest.approx(each["sequences"] * (recipe.accepted.judge + 1) / one.seconds)
        assert speeds["plain"] == pytest.approx(each["sequences"] / one.plain.seconds)
        assert each["break_even"] == one.break_even


def test_the_plan_in_words(run: Run) -> None:
    code, out, err = run("plan", BIG)
    assert (code, err) == (0, "")
    assert "tokens per second, one sequence" in out
    assert "tokens per second, 16 sequences in all" in out
    assert "It fits" in out
    assert "Published: judge 129, plain 33.2 tokens per second" in out
    assert "does not fit" in out  # the target in 16 bits
    assert "all-reduces a layer" in out


def test_a_plan_that_does_not_fit_says_what_would_and_ends_with_1(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(packaged()[SMALL].read_text().replace("sequences: 8", "sequences: 100"))
    code, out, _ = run("plan", file)
    assert code == 1
    assert "It does not fit" in out
    assert "17 sequences" in out
    assert json.loads(run("plan", file, "--json")[1])["memory"]["fits"] is False


def test_what_nobody_measured_is_not_made_up(run: Run) -> None:
    told = json.loads(run("plan", SMALL, "--json")[1])
    assert told["rounds"][0]["tokens_per_second"]["judge"] is None
    assert told["published"] == []
    assert "not known" in run("plan", SMALL)[1]
    given_one = json.loads(run("plan", SMALL, "--accepted", 5, "--json")[1])
    assert given_one["rounds"][0]["tokens_per_second"]["judge"] == pytest.approx(6 / given_one["rounds"][0]["seconds"])
    is_one_sentence(run("plan", SMALL, "--accepted", 9), "9 accepted tokens a round cannot come from 8")
