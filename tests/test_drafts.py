"""A draft made from the target's first layers: the cut, the training, its checkpoints, its smaller vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from commands import Run, ends_in_one_sentence, is_one_sentence
from judge_decoding import (
    Block,
    DraftConfig,
    DraftForecast,
    DraftMeasure,
    DraftModel,
    Exact,
    FitConfig,
    JudgeDecoder,
    JudgeDecodingError,
    MadeDraft,
    VerificationRule,
    make_draft,
)
from judge_decoding.fit.pipeline import divide, draft_prompts, earlier_draft
from judge_decoding.loading.models import load_draft
from judge_decoding.models.draft_vocabulary import FILE, cut_head, most_frequent, write_vocabulary
from judge_decoding.models.first_layers import cut_layers
from judge_decoding.training import draft_training
from judge_decoding.training.draft_data import AnswerPart, answer_parts, forwards, read
from judge_decoding.training.draft_options import prompts_hash
from judge_decoding.training.draft_training import rounds_of
from test_loop_sampling import SIZE, p_value, sampled, tables  # noqa: F401  (a fixture)
from tiny import EOS, VOCAB_SIZE, WORDS, bigram, final_norm, llama, mistral, word_tokenizer

PROMPTS = [f"{one} {two}" for one in WORDS[:6] for two in WORDS[6:11]]  # 30, 3 of them held out
CONFIG = DraftConfig(1, epochs=6, learning_rate=1e-2, batch_size=8, max_new_tokens=12)
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
GPT2 = GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=4, n_head=4, n_positions=64, initializer_range=0.3)
NEOX = {name: value for name, value in SMALL.items() if name != "num_key_value_heads"}
FAMILIES: dict[str, Any] = {
    "llama": lambda: llama(1, layers=4),
    "mistral": mistral,
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8, tie_word_embeddings=True)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=8)),
    "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX)),
}


class Killed(BaseException):
    """What no code expects."""


@pytest.fixture(scope="module")
def deep() -> LlamaForCausalLM:
    """A target of three layers."""
    return llama(0, layers=3)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return word_tokenizer()


@pytest.fixture(scope="module")
def whole(
    deep: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MadeDraft, list[DraftMeasure]]:
    """A draft that was made in one go, and what was measured meanwhile."""
    measures: list[DraftMeasure] = []
    out = tmp_path_factory.mktemp("whole") / "draft"
    return make_draft(deep, words, PROMPTS, out, CONFIG, measured=measures.append), measures


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cut_is_the_first_layers_norm_and_head(family: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model: PreTrainedModel = FAMILIES[family]().eval()
    count = model.config.num_hidden_layers // 2
    short = cut_layers(model, count)
    ids = torch.tensor([[3, 7, 1, 20, 8]])
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states[count]
        norm, head = final_norm(model), model.get_output_embeddings()
        assert norm is not None
        expected = head(norm(states))
        torch.testing.assert_close(short(ids).logits, expected)
        short.save_pretrained(tmp_path)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert loaded.config.num_hidden_layers == count
        torch.testing.assert_close(loaded(ids).logits, expected)
    theirs = {one.data_ptr() for one in model.parameters()}
    assert not any(one.data_ptr() in theirs for one in short.parameters())


def test_what_cannot_be_cut_is_refused(deep: LlamaForCausalLM) -> None:
    for count in (0, 3, 9):
        with pytest.raises(JudgeDecodingError, match="has 3; take from 1 to 2"):
            cut_layers(deep, count)
    uneven = llama(0, layers=3)
    uneven.model.layers[0].mlp.down_proj = nn.Linear(64, 32, bias=True)
    with pytest.raises(
        JudgeDecodingError, match=r"cannot be cut, because the first ones are not a model.*down_proj.bias differs"
    ):
        cut_layers(uneven, 2)


def test_training_lowers_the_loss_and_raises_the_agreement(whole: tuple[MadeDraft, list[DraftMeasure]]) -> None:
    made, measures = whole
    assert (made.answers, made.held_out) == (27, 3)
    assert made.before == measures[0]
    assert made.after in measures
    assert made.after.loss < 0.9 * made.before.loss
    assert (measures[-1].training_loss or 9) < 0.6 * made.before.loss
    assert made.after.agreement > made.before.agreement
    assert made.after.agreement == max(one.agreement for one in measures)
    assert measures[-1].step == measures[-1].steps == 6 * 4
    # What agreement tells along greedy answers is what the loop gives.
    assert made.mean_acceptance_length == pytest.approx(made.after.mean_acceptance_length)
    assert any("27 answers" in sentence for sentence in made.warnings)


def test_the_draft_is_an_ordinary_folder(
    whole: tuple[MadeDraft, list[DraftMeasure]], deep: LlamaForCausalLM, words: PreTrainedTokenizerFast
) -> None:
    folder = whole[0].folder
    draft = AutoModelForCausalLM.from_pretrained(folder)
    assert isinstance(draft, LlamaForCausalLM)
    assert draft.config.num_hidden_layers == 1
    assert not (folder / FILE).exists()
    torch.testing.assert_close(draft.lm_head.weight, deep.lm_head.weight)
    assert not torch.equal(draft.model.layers[0].mlp.up_proj.weight, deep.model.layers[0].mlp.up_proj.weight)
    decoder = JudgeDecoder(deep, words, load_draft(folder, words))
    answer = decoder.generate("one eight", 12, num_draft_tokens=4)
    assert answer.token_ids == decoder.alone().generate("one eight", 12).token_ids
    assert [path.name for path in folder.with_name("draft.work").iterdir()] == ["answers.jsonl"]


def test_a_stopped_run_goes_on_to_the_same_weights(
    whole: tuple[MadeDraft, list[DraftMeasure]], deep: LlamaForCausalLM, words: PreTrainedTokenizerFast,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(draft_training, "SAVE_SECONDS", -1.0)
    out = tmp_path / "draft"

    def killing(what: str, at: int) -> Any:
        def progress(step: str, done: int, _: int) -> None:
            if (step, done) == (what, at):
                raise Killed

        return progress

    for what, at in (("generating the target's answers", 8), ("training", 5), ("training", 17)):
        with pytest.raises(Killed):
            make_draft(deep, words, PROMPTS, out, CONFIG, progress=killing(what, at))
        assert not out.exists()
    with pytest.raises(JudgeDecodingError, match=r"started with num_layers 1, not 2; resume with that, or remove"):
        make_draft(deep, words, PROMPTS, out, DraftConfig(2, epochs=6, batch_size=8, max_new_tokens=12))
    with pytest.raises(JudgeDecodingError, match="started with max_new_tokens 12, not 9"):
        make_draft(deep, words, PROMPTS, out, DraftConfig(1, max_new_tokens=9))
    made = make_draft(deep, words, PROMPTS, out, CONFIG)
    assert made.after == whole[0].after
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, whole[0].folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_cross_entropy_lora_and_a_small_vocabulary(
    deep: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    config = DraftConfig(
        1, "ce", lora=4, keep_adapter=True, vocab=20, epochs=3, learning_rate=1e-2, batch_size=8, max_new_tokens=12
    )
    made = make_draft(deep, words, PROMPTS, tmp_path / "draft", config)
    assert made.after.loss < made.before.loss
    whole_head = AutoModelForCausalLM.from_pretrained(made.folder)
    torch.testing.assert_close(whole_head.lm_head.weight, deep.lm_head.weight)
    assert (made.folder / "adapter" / "adapter_model.safetensors").exists()
    assert whole_head.config.draft_vocabulary == 20
    draft = load_draft(made.folder, words)
    assert isinstance(draft, PreTrainedModel)
    assert draft.get_output_embeddings().weight.shape == (20, 32)
    # Where it has a row, the merged and loaded draft says what the folder's model says; elsewhere nothing.
    ids, kept = torch.tensor([[4, 9, 11]]), load_file(made.folder / FILE)["ids"]
    full = whole_head(ids).logits
    torch.testing.assert_close(draft(ids).logits[..., kept], full[..., kept])
    assert int(draft(ids).logits.isfinite().sum()) == 3 * 20
    answer = JudgeDecoder(deep, words, draft).generate("one eight", 12, num_draft_tokens=4)
    assert {token for event in answer.rounds for token in event.draft_ids} <= set(kept.tolist())
    assert answer.token_ids == JudgeDecoder(deep, words).generate("one eight", 12).token_ids


@pytest.mark.usefixtures("uncompiled")
def test_a_cut_draft_proposes_its_tokens_only_in_both_back_ends(
    deep: LlamaForCausalLM, words: PreTrainedTokenizerFast
) -> None:
    kept = torch.tensor([EOS, 5, 6, 8, 9, 13, 17, 21, 22])
    draft = cut_layers(deep, 2)
    cut_head(draft, kept)
    found = {}
    for backend in ("eager", "static"):
        decoder = JudgeDecoder(deep, words, draft, backend=backend)
        answers = decoder.generate_batch(PROMPTS[:3], 20, batch_size=3, num_draft_tokens=4)
        drawn = decoder.generate("two nine", 20, temperature=1.5, seed=3, num_draft_tokens=4)
        rounds = [event for one in (*answers, drawn) for event in one.rounds]
        assert {token for event in rounds for token in event.draft_ids} <= set(kept.tolist())
        assert sum(len(event.draft_ids) for event in rounds) > 40
        found[backend] = (
            [one.token_ids for one in answers],
            [event.draft_ids for one in answers for event in one.rounds],
        )
    assert found["static"] == found["eager"]
    alone = [JudgeDecoder(deep, words).generate(prompt, 20).token_ids for prompt in PROMPTS[:3]]
    assert found["eager"][0] == alone


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"temperature": 1.0}, {"temperature": 1.2, "top_p": 0.8}], ids=["whole", "top_p"])
@pytest.mark.parametrize("rule", [Exact(), Block()], ids=str)
def test_with_a_cut_draft_the_targets_distribution_is_kept(
    tables: tuple[torch.Tensor, torch.Tensor],  # noqa: F811
    rule: VerificationRule,
    setting: dict[str, float],
) -> None:
    target, small = tables[0], bigram(tables[1])
    cut_head(small, torch.tensor([0, 3, 4, 6]))
    chains, rounds = sampled(target, DraftModel(small, SIZE), rule, seed=5, **setting)
    assert {token for event in rounds for token in event.draft_ids} == {0, 3, 4, 6}
    assert len({token for event in rounds for token in event.token_ids}) > 4
    assert p_value(chains, target, setting) > 1e-3


def test_a_cut_draft_stops_where_all_it_knows_is_forbidden(
    deep: LlamaForCausalLM, words: PreTrainedTokenizerFast
) -> None:
    draft = cut_layers(deep, 2)
    cut_head(draft, torch.tensor([5, 6, 8]))
    config = GenerationConfig(suppress_tokens=[5, 6, 8])
    decoder = JudgeDecoder(deep, words, draft, generation_config=config)
    answer = decoder.generate("two nine", 10, temperature=1.0, seed=3, num_draft_tokens=4)
    assert all(not event.draft_ids for event in answer.rounds)
    assert len(answer.token_ids) > 0
    assert not {5, 6, 8} & set(answer.token_ids)


def test_the_most_frequent_tokens() -> None:
    texts = [[7, 7, 7, 5, 5, 9], [9, 5, 3]]
    assert most_frequent(texts, 3, [2], 12).tolist() == [2, 5, 7]  # 5 and 7 are as frequent; then 9
    assert most_frequent(texts, 4, [2], 12).tolist() == [2, 5, 7, 9]
    assert most_frequent(texts, 7, [2, 11], 12).tolist() == [0, 2, 3, 5, 7, 9, 11]
    with pytest.raises(JudgeDecodingError, match="leaves out an end token, as there are 2 of them"):
        most_frequent(texts, 2, [2, 11], 12)
    with pytest.raises(JudgeDecodingError, match="has 12 tokens, so it cannot be cut to 12"):
        most_frequent(texts, 12, [2], 12)


def test_a_damaged_vocabulary_is_refused(
    whole: tuple[MadeDraft, list[DraftMeasure]], words: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = tmp_path / "draft"
    AutoModelForCausalLM.from_pretrained(whole[0].folder).save_pretrained(folder)
    words.save_pretrained(folder)
    for ids, message in (
        ([3, 3, 4], "not hold an ascending list"), ([3.5], "not hold an ascending list"),
        ([5, VOCAB_SIZE], f"has the token {VOCAB_SIZE}"),
    ):  # fmt: skip
        save_file({"ids": torch.tensor(ids)}, folder / FILE)
        with pytest.raises(JudgeDecodingError, match=message):
            load_draft(folder, words)
    write_vocabulary(folder, torch.tensor([2, 3]))
    assert load_draft(folder, words).get_output_embeddings().out_features == 2  # type: ignore[union-attr]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"draft_vocabulary": 9}))
    with pytest.raises(JudgeDecodingError, match=r"has 2 tokens, and the draft's config.json says 9"):
        load_draft(folder, words)
    (folder / FILE).write_bytes(b"nothing")
    with pytest.raises(JudgeDecodingError):
        load_draft(folder, words)


def test_pieces_are_read_as_the_whole(deep: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("judge_decoding.training.draft_data.LOGITS", 16 * VOCAB_SIZE)
    said = [(7 * i) % 30 + 4 for i in range(40)]
    parts = answer_parts(0, [1, 5, 9], said, VOCAB_SIZE)
    assert [piece.count for piece in parts] == [16, 16, 8]
    other = answer_parts(1, [4], [8, 6], VOCAB_SIZE)
    batches = list(forwards([*parts, *other], VOCAB_SIZE))
    assert [piece for batch in batches for piece in batch] == [*other, *parts]
    found = torch.cat([read(deep, [piece]) for piece in parts])
    torch.testing.assert_close(found, deep(torch.tensor([[1, 5, 9, *said]])).logits[0, 2:-1])
    together = [AnswerPart(0, (1, 5, 9, 7, 6), 3), AnswerPart(1, (4, 8, 6), 1)]
    torch.testing.assert_close(read(deep, together), torch.cat([read(deep, [one]) for one in together]))


def test_rounds_along_an_answer() -> None:
    # Two kept and one of the target; none and one; four, which is the draft's end, and one.
    flags = [True, True, False, False, True, True, True, True, True]
    assert rounds_of(flags, 4) == 3
    assert rounds_of(flags, 1) == 6
    assert rounds_of([], 4) == 0


def test_what_makes_no_sense_is_refused(
    deep: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "draft"
    with pytest.raises(JudgeDecodingError, match="9 different prompts, and a draft needs at least 10"):
        make_draft(deep, words, [*PROMPTS[:9], PROMPTS[0]], out, CONFIG)
    with pytest.raises(JudgeDecodingError, match="leaves out an end token, as there is one"):
        make_draft(deep, words, PROMPTS, out, DraftConfig(1, vocab=1))
    with pytest.raises(JudgeDecodingError, match="take from 1 to 2"):
        make_draft(deep, words, PROMPTS, out, DraftConfig(3))
    with monkeypatch.context() as patch:
        patch.setattr("judge_decoding.training.drafts.find_spec", lambda _: None)
        with pytest.raises(JudgeDecodingError, match="pip install peft"):
            make_draft(deep, words, PROMPTS, out, DraftConfig(1, lora=4))
    for options, message in (
        ({"loss": "mse"}, "loss is mse; it must be kl or ce"), ({"held_out": 0.0}, "held_out is 0"),
        ({"embeddings": True, "vocab": 9}, "either embeddings or vocab"), ({"num_layers": 0}, "num_layers is 0"),
        ({"embeddings": True, "lora": 9}, "either embeddings or lora"), ({"keep_adapter": True}, "no adapter to keep"),
    ):  # fmt: skip
        with pytest.raises(JudgeDecodingError, match=message):
            DraftConfig(**options)
    assert list(tmp_path.iterdir()) == []
    told: list[DraftForecast] = []

    def refuse(forecast: DraftForecast) -> bool:
        told.append(forecast)
        return False

    with pytest.raises(JudgeDecodingError, match="not confirmed; finished work is kept in"):
        make_draft(deep, words, PROMPTS, out, CONFIG, agree=refuse)
    assert told[0].answers == 30 - 3
    assert told[0].generated_tokens <= 27 * 12
    assert 0 < told[0].trained_tokens <= 6 * 27 * 12


def test_fit_trains_its_draft_on_no_prompt_that_measures(tmp_path: Path) -> None:
    config = FitConfig()
    teaching, tuning = divide(PROMPTS, None, config)
    assert draft_prompts(PROMPTS, config) == teaching
    assert not {item.turns[0] for item in tuning} & set(teaching)
    assert draft_prompts(PROMPTS, config, all_of_them=True) == PROMPTS
    target = tmp_path / "big"
    target.mkdir()
    assert not earlier_draft(tmp_path, str(target), 2, teaching)
    made = {"draft_of": str(target), "draft_layers": 2, "draft_prompts": prompts_hash(teaching)}
    (tmp_path / "config.json").write_text(json.dumps(made))
    assert earlier_draft(tmp_path, str(target), 2, teaching)
    assert earlier_draft(tmp_path, f"{tmp_path}/./big/", 2, teaching)
    for other, layers, prompts in ((target, 3, teaching), (tmp_path, 2, teaching), (target, 2, PROMPTS)):
        with pytest.raises(JudgeDecodingError, match="is not a draft of"):
            earlier_draft(tmp_path, str(other), layers, prompts)


@pytest.fixture
def on_disk(deep: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The folder ``target`` and the file ``prompts.txt``."""
    deep.save_pretrained(tmp_path / "target")
    words.save_pretrained(tmp_path / "target")
    (tmp_path / "prompts.txt").write_text("".join(f"{one}\n" for one in PROMPTS))


@pytest.mark.usefixtures("on_disk")
def test_the_command_makes_the_draft_and_resumes(
    run: Run, deep: LlamaForCausalLM, words: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "draft"
    args = ("draft", tmp_path / "target", "--prompts", prompts, "-o", out, "--draft-layers", 1, "--epochs", 2,
            "--batch-size", 8, "--max-new-tokens", 12)  # fmt: skip
    ends_in_one_sentence(run(*args), "add --yes")
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(draft_training.DraftTrainer, "_take_step", stop)
        code, _, err = run(*args, "--yes")
    assert code == 130
    assert err.splitlines()[-1] == (f"Stopped: finished work is kept in {out}.work, and the same command resumes.")
    code, told, err = run(*args, "--yes")
    assert code == 0, err
    assert "The target will answer 0 more prompts" in err
    assert "Step 4 of 8" in err
    assert "mean acceptance length" in told
    draft = load_draft(out, words)
    assert JudgeDecoder(deep, words, draft).generate("one eight", 5, rule=Exact()).token_ids
    is_one_sentence(run(*args, "--yes"), "config.json already exists; choose another folder")
    ends_in_one_sentence(run(*args, "--overwrite", "--draft-layers", 3), "take from 1 to 2")
    ends_in_one_sentence(run(*args, "--overwrite", "--vocab", 1), "leaves out an end token")
    is_one_sentence(run(*args, "--overwrite", "--keep-adapter"), "Without --lora")
    ends_in_one_sentence(run(*args, "--overwrite", "--limit", 5), "5 different prompts, and a draft needs at least 10")
    is_one_sentence(run("fit", "--target", "x", "--prompts", prompts, "-o", out, "--draft-layers", 2), "--make-draft")


@pytest.mark.usefixtures("on_disk")
def test_fit_makes_its_own_draft(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "head"
    asked: list[Any] = []

    def fit_head(decoder: Any, *args: object, **_: object) -> None:
        asked.append((decoder.args[:2], args[:2]))
        raise JudgeDecodingError("That is enough.")

    monkeypatch.setattr("judge_decoding.cli.run.fit.fit_head", fit_head)
    args = ("fit", "--target", tmp_path / "target", "--prompts", prompts, "-o", out, "--make-draft", "--no-chat",
            "--draft-layers", 1, "--max-new-tokens", 12, "--yes")  # fmt: skip
    for _ in range(2):  # the second time it is there
        ends_in_one_sentence(run(*args), "That is enough.")
    assert asked == 2 * [((str(tmp_path / "target"), f"{out}-draft"), (PROMPTS, out))]
    lines = (tmp_path / "head-draft.work" / "answers.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in lines[1:]} == set(draft_prompts(PROMPTS, FitConfig()))
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "head-draft").config
    assert (config.num_hidden_layers, config.draft_of) == (1, str(tmp_path / "target"))
    is_one_sentence(run(*args, "--draft-layers", 2), "is not a draft of 2 layers of")
