"""Layers and final norm are found in models that name and nest them in their own ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MptConfig,
    MptForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from judge_decoding import JudgeDecodingError, train_head
from judge_decoding.core.hidden import HiddenSource
from judge_decoding.models.anatomy import anatomy
from judge_decoding.models.first_layers import first_layers
from judge_decoding.models.hidden import HiddenStateHook, decoder_layer, output_size
from test_training import word_cases
from tiny import VOCAB_SIZE, final_norm, llama, word_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3,
}  # fmt: skip


def llama4() -> PreTrainedModel:
    """``get_decoder`` gives the model itself."""
    sizes = SIZES | {"head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2, "num_experts_per_tok": 1}
    return Llama4ForCausalLM(Llama4TextConfig(**sizes))


def llava() -> PreTrainedModel:
    """A vision tower with layers and norms of its own."""
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(text_config=LlamaConfig(**SIZES), vision_config=vision, image_token_index=39)
    return LlavaForConditionalGeneration(config)


def mpt() -> PreTrainedModel:
    """``logit_scale`` is null in its configuration."""
    return MptForCausalLM(MptConfig(d_model=32, n_heads=4, n_layers=3, vocab_size=VOCAB_SIZE, max_seq_len=128))


def lfm2() -> PreTrainedModel:
    """The final norm has the name of the embeddings' norm."""
    return Lfm2ForCausalLM(Lfm2Config(**SIZES, layer_types=["conv", "full_attention", "conv"]))


def opt() -> PreTrainedModel:
    """The final norm comes before the layers in the list of modules, and a projection behind it."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCAB_SIZE, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4,
            word_embed_proj_dim=16, max_position_embeddings=128,
        )
    )  # fmt: skip


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=3, n_head=4, n_positions=128))


def gpt1() -> PreTrainedModel:
    """Each layer ends in a norm, and none follows the last."""
    return OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=3, n_head=4, n_positions=128))


MODELS = [
    (llama4, "model.layers", "model.norm"),
    (llava, "model.language_model.layers", "model.language_model.norm"),
    (mpt, "transformer.blocks", "transformer.norm_f"),
    (lfm2, "model.layers", "model.embedding_norm"),
    (opt, "model.decoder.layers", "model.decoder.final_layer_norm"),
    (gpt2, "transformer.h", "transformer.ln_f"),
    (gpt1, "transformer.h", None),
]


@pytest.mark.parametrize(("build", "layers", "norm"), MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_parts_are_found_and_a_head_trains_on_them(build: Any, layers: str, norm: str | None) -> None:
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    found = anatomy(model)
    assert (found.layers, found.norm, found.logits) == (layers, norm, VOCAB_SIZE)
    assert output_size(model) == VOCAB_SIZE
    assert decoder_layer(model, -3) is model.get_submodule(layers)[0]
    assert final_norm(model) is (model.get_submodule(norm) if norm else None)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with (
        HiddenStateHook(model, HiddenSource(-1, "before")) as before,
        HiddenStateHook(model, HiddenSource(-1, "after")) as after,
    ):
        model(input_ids=ids)
        states = (before.states, after.states)
    if norm is None:
        assert torch.equal(*states)
        assert torch.equal(states[0], model(input_ids=ids, output_hidden_states=True).hidden_states[-1])
    else:
        torch.testing.assert_close(model.get_submodule(norm)(states[0]), states[1])
    head = train_head(model, word_tokenizer(), word_cases())
    head.check_fits(model)


def test_wrappers_are_looked_through() -> None:
    model = llama()
    compiled: Any = torch.compile(model, backend="eager")
    assert final_norm(compiled) is model.model.norm
    assert train_head(compiled, word_tokenizer(), word_cases()).config.target.architecture == "LlamaForCausalLM"


def test_a_norm_that_was_replaced_is_found_anew() -> None:
    model: Any = llama()
    assert final_norm(model) is model.model.norm
    model.model.norm = torch.nn.LayerNorm(32)
    assert final_norm(model) is model.model.norm


@pytest.mark.parametrize("build", [llava, llama4, gpt2])
def test_the_first_layers_of_a_nested_model(build: Any) -> None:
    torch.manual_seed(0)
    model = build().eval().requires_grad_(False)
    ids = torch.tensor([[5, 6, 7, 8]])
    short = first_layers(model, 2)
    whole = model(input_ids=ids, output_hidden_states=True).hidden_states[2]
    with HiddenStateHook(short, HiddenSource(-1, "before")) as tap:
        short(input_ids=ids)
        torch.testing.assert_close(tap.states, whole)
    assert len(model.get_submodule(str(anatomy(model).layers))) == 3


def test_a_model_that_cannot_read_ids_is_refused() -> None:
    model = llama()
    model.model.embed_tokens.weight = torch.nn.Parameter(torch.zeros(1, 32), requires_grad=False)
    with pytest.raises(JudgeDecodingError, match=r"LlamaForCausalLM cannot read token ids by themselves \(IndexError"):
        anatomy(model)


def test_a_model_that_looks_ahead_is_refused() -> None:
    sizes = {name: SIZES[name] for name in SIZES if name != "num_key_value_heads"}
    anatomy(BertLMHeadModel(BertConfig(**sizes, is_decoder=True)).eval())
    with pytest.raises(JudgeDecodingError, match="BertLMHeadModel is not causal"):
        anatomy(BertLMHeadModel(BertConfig(**sizes)).eval())
