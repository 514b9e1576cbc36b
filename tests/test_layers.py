"""Judges on lower layers: the same states in training, in the loop, in transformers and in annotation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedModel

from judge_decoding import Judge, JudgeDecodingError, JudgeHead, custom_generate
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.decoding.drafters.model import DraftModel
from judge_decoding.judge.target import target_info
from judge_decoding.models.hidden import HiddenStateHook
from judge_decoding.models.teacher_forcing import hidden_states
from tiny import VOCAB_SIZE, greedy, llama, perturbed, random_head, run, tokens


@pytest.fixture(scope="module")
def deep() -> LlamaForCausalLM:
    return llama(0, layers=4)


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=4, n_head=4, initializer_range=0.3)
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


@pytest.mark.parametrize("layer", [-2, -3, -4])
@pytest.mark.parametrize("build", [lambda: llama(0, layers=4), gpt2], ids=["llama", "gpt2"])
def test_a_layer_is_what_transformers_says_it_is(build: object, layer: int) -> None:
    model: PreTrainedModel = build()  # type: ignore[operator]
    ids = [1, 5, 9, 4, 7]
    expected = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
    torch.testing.assert_close(hidden_states(model, [ids], "before", layer)[0], expected)


@pytest.mark.parametrize("layer", [-1, -2, -4])
def test_a_judge_sees_in_the_loop_what_it_saw_in_training(deep: LlamaForCausalLM, layer: int) -> None:
    head = random_head(deep, layer=layer, norm="before")
    prompt, seen = [1, 7, 9], 0
    for event in run(deep, DraftModel(perturbed(deep), VOCAB_SIZE), prompt, Judge(head, 0.5), max_new_tokens=30):
        states = hidden_states(deep, [[*prompt, *event.draft_ids]], "before", layer)[0][len(prompt) :]
        if event.draft_ids:
            assert event.scores == pytest.approx(head.probability(states).tolist(), abs=1e-4)
        seen += len(event.draft_ids)
        prompt += event.token_ids
    assert seen


def test_a_head_of_a_lower_layer_and_the_draft_reads_the_drafts_last(deep: LlamaForCausalLM) -> None:
    draft = llama(3, hidden_size=16, layers=1)
    head = random_head(deep, layer=-3, norm="before", draft=target_info(draft))
    prompt = [1, 7, 9]
    event = run(deep, DraftModel(draft, VOCAB_SIZE), prompt, Judge(head, 0.5), max_new_tokens=8)[0]
    ids = [[*prompt, *event.draft_ids]]
    own, theirs = hidden_states(deep, ids, "before", -3)[0], hidden_states(draft, ids, "before")[0]
    assert event.scores == pytest.approx(head.probability(own[3:], theirs[3:]).tolist(), abs=1e-4)


def test_transformers_decodes_with_it(deep: Any) -> None:
    head, draft, prompt = random_head(deep, layer=-2, norm="before"), perturbed(deep), [1, 7, 9]
    own = tokens(run(deep, DraftModel(draft, VOCAB_SIZE), prompt, Judge(head, 0.5), num_draft_tokens=4))
    ids = torch.tensor([prompt])
    method = custom_generate(draft, head, threshold=0.5, num_draft_tokens=4)
    output = deep.generate(
        ids, attention_mask=torch.ones_like(ids), custom_generate=method, max_new_tokens=24, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert output[0, 3:].tolist() == own
    assert own != greedy(deep, prompt)


def test_it_comes_back_from_its_folder(deep: LlamaForCausalLM, tmp_path: Path) -> None:
    random_head(deep, layer=-3, norm="before").save_pretrained(tmp_path)
    assert JudgeHead.from_pretrained(tmp_path, deep).config.layer == -3
    assert "hidden state after layer -3" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(("layer", "norm"), [(-5, "before"), (0, "before"), (1, "before"), (-2, "after")])
def test_a_head_of_a_place_that_is_not_there_is_refused(deep: LlamaForCausalLM, layer: int, norm: str) -> None:
    with pytest.raises(ValueError, match="layer"):
        random_head(deep, layer=layer, norm=norm)


def test_places_that_are_not_there_are_refused(deep: LlamaForCausalLM) -> None:
    with pytest.raises(JudgeDecodingError, match="layer is -5, and LlamaForCausalLM has 4 layers"):
        hidden_states(deep, [[1]], "before", -5)
    with pytest.raises(JudgeDecodingError, match="norm is after at layer -2; the final norm follows the last layer"):
        HiddenSource(-2, "after")
    with pytest.raises(JudgeDecodingError, match="layer is 0; it must be -1, the last, or below"):
        HiddenStateHook(deep, HiddenSource(0, "before"))


def test_judges_of_different_layers_cannot_be_joined(deep: LlamaForCausalLM) -> None:
    one, other = (Judge(random_head(deep, layer=layer, norm="before")) for layer in (-2, -3))
    with pytest.raises(JudgeDecodingError, match="or of another layer; join judges of one kind"):
        one | other
    joined = one | Judge(random_head(deep, seed=1, layer=-2, norm="before"))
    assert joined.source == HiddenSource(-2, "before")
