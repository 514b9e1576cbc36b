"""A head fits its own target, however it is stored and wrapped, and no other."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedModel

from judge_decoding import JudgeDecodingError, JudgeHead
from judge_decoding.core.hidden import HiddenSource, Norm
from judge_decoding.judge.target import check_target, target_info
from judge_decoding.models.provenance import fingerprint
from judge_decoding.models.weights import quantization, tensors
from judge_decoding.training.features import FeatureCache
from tiny import VOCAB_SIZE, llama, perturbed, random_head


def with_delta(model: LlamaForCausalLM, scale: float, layer: int = 1) -> LlamaForCausalLM:
    """As a merged LoRA of rank 2 on the queries and values of one layer."""
    generator = torch.Generator().manual_seed(5)
    attention = model.model.layers[layer].self_attn
    for linear in (attention.q_proj, attention.v_proj):
        out, into = linear.weight.shape
        up, down = torch.randn(out, 2, generator=generator), torch.randn(2, into, generator=generator)
        linear.weight += scale * up @ down
    return model


def padded(model: LlamaForCausalLM, more: int = 24) -> PreTrainedModel:
    model.resize_token_embeddings(VOCAB_SIZE + more)
    return model.requires_grad_(False)


def fine_tuned(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """A few steps of training the layers; the embeddings are left alone."""
    parameters = list(model.model.layers.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    ids = torch.randint(3, VOCAB_SIZE, (4, 12), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


def tied() -> LlamaForCausalLM:
    model = llama(0)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    return model


@pytest.mark.parametrize("norm", ["before", "after"])
@pytest.mark.parametrize(
    "change",
    [copy.deepcopy, lambda m: m.bfloat16(), lambda m: m.half(), padded, lambda m: padded(m).bfloat16()],
    ids=["same", "bfloat16", "float16", "padded", "padded bfloat16"],
)
def test_the_same_layers_fit(change: Callable[[Any], PreTrainedModel], norm: Norm) -> None:
    head = JudgeHead(
        random_head(llama(0)).config.model_copy(update={"target": target_info(llama(0), HiddenSource(-1, norm))})
    )
    head.check_fits(change(llama(0)))
    # And the other way round: trained on the changed one.
    random_head(change(llama(0))).check_fits(llama(0))


def test_tied_weights_fit_themselves_in_16_bits() -> None:
    random_head(tied()).check_fits(tied().bfloat16())


@pytest.mark.parametrize(
    "change",
    [
        fine_tuned,
        lambda m: with_delta(m, 0.02),
        lambda m: with_delta(m, 0.02, layer=0),
        lambda m: with_delta(m, 0.1).bfloat16(),
        lambda m: padded(with_delta(m, 0.02)),
    ],
    ids=["fine-tuned", "LoRA, last layer", "LoRA, first layer", "LoRA in bfloat16", "LoRA, padded"],
)
def test_other_layers_under_the_same_embeddings_are_refused(change: Callable[[Any], PreTrainedModel]) -> None:
    other = change(llama(0))
    inner: Any = other.get_input_embeddings()
    embeddings = inner.weight[:VOCAB_SIZE]
    assert torch.equal(embeddings, llama(0).model.embed_tokens.weight.to(embeddings.dtype))
    with pytest.raises(JudgeDecodingError, match=r"same shape but other weights \(a layer's output differs by"):
        random_head(llama(0)).check_fits(other)


def test_other_embeddings_under_the_same_layers_are_refused() -> None:
    other = llama(0)
    other.model.embed_tokens.weight.copy_(perturbed(llama(0), 0.1).model.embed_tokens.weight)
    with pytest.raises(JudgeDecodingError, match="other weights"):
        random_head(llama(0)).check_fits(other)


def test_layers_above_the_head_do_not_matter() -> None:
    low = target_info(llama(0), HiddenSource(-2, "before"))
    check_target(low, with_delta(llama(0), 0.5, layer=1))
    with pytest.raises(JudgeDecodingError, match="other weights"):
        check_target(low, with_delta(llama(0), 0.5, layer=0))


def test_a_smaller_vocabulary_is_refused() -> None:
    with pytest.raises(JudgeDecodingError, match="smaller vocabulary of 12 tokens"):
        random_head(llama(0)).check_fits(llama(0, vocab_size=12))


@pytest.mark.filterwarnings("ignore")  # of peft's imports
def test_an_adapter_is_seen_merged_and_unmerged_and_switched_off() -> None:
    peft = pytest.importorskip("peft")

    def adapted() -> Any:
        torch.manual_seed(3)
        config = peft.LoraConfig(
            r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
        )
        return peft.get_peft_model(llama(0), config).eval()

    own = random_head(adapted())
    own.check_fits(adapted())
    own.check_fits(adapted().merge_and_unload())
    plain, one = random_head(llama(0)), adapted()
    with pytest.raises(JudgeDecodingError, match="other weights"):
        plain.check_fits(one)
    with one.disable_adapter():
        plain.check_fits(one)
    with pytest.raises(JudgeDecodingError, match="other weights"):
        plain.check_fits(one)


def quantized(model: nn.Module) -> Any:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantised_target_is_accepted_with_a_warning_that_names_the_figure(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.WARNING, "judge_decoding"):
        random_head(llama(0)).check_fits(quantized(llama(0)))
        (record,) = caplog.records
        assert re.search("differs by [4-9]% from that of the model", record.message)
        assert "(int8, dynamic)" in record.message
        caplog.clear()
        random_head(quantized(llama(0))).check_fits(quantized(llama(0)))
        assert not caplog.records
    with pytest.raises(JudgeDecodingError, match="other weights"):
        random_head(llama(0)).check_fits(quantized(llama(1)))
    assert quantization(llama(0)) is None
    one, other = quantized(llama(0)), quantized(perturbed(llama(0), 0.1))
    for linear in (one, other):  # all that is not packed is the same
        linear.model.embed_tokens.weight.zero_()
    assert FeatureCache(tmp_path, one).folder != FeatureCache(tmp_path, other).folder
    assert fingerprint(one) != fingerprint(other)


def test_the_state_of_a_plain_model_is_its_parameters() -> None:
    model = tied()
    assert [name for name, _ in tensors(model)] == [name for name, _ in model.named_parameters()]


def test_a_probe_leaves_no_trace_and_is_remembered() -> None:
    model = llama(0).train()
    model.config.attention_dropout = 0.5
    model.model.layers[0].requires_grad_(True)
    forwards: list[int] = []
    hook = model.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    torch.manual_seed(11)
    before = torch.get_rng_state()
    head = random_head(llama(0))
    torch.set_rng_state(before)
    head.check_fits(model)
    count = len(forwards)
    head.check_fits(model)
    assert len(forwards) == count == 2  # one finds the layers, one asks them
    assert torch.equal(torch.get_rng_state(), before)
    hook.remove()
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    with_delta(model.requires_grad_(False), 0.1)
    with pytest.raises(JudgeDecodingError, match="other weights"):
        head.check_fits(model)


def test_a_head_of_an_older_version_is_checked_as_before(tmp_path: Path) -> None:
    random_head(llama(0)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["target"]["rows"], config["target"]["probe"]
    flat = llama(0).lm_head.weight.flatten()
    config["target"]["fingerprint"] = flat[torch.linspace(0, len(flat) - 1, 16, dtype=torch.float64).long()].tolist()
    (tmp_path / "config.json").write_text(json.dumps(config))
    JudgeHead.from_pretrained(tmp_path, llama(0).bfloat16())
    JudgeHead.from_pretrained(tmp_path, with_delta(llama(0), 0.5))  # it cannot tell
    with pytest.raises(JudgeDecodingError, match="other weights"):
        JudgeHead.from_pretrained(tmp_path, llama(1))


@pytest.mark.parametrize("numbers", ["", "AAAA", "not base64", "AH4AfgB+" * 21 + "AH4="])
def test_numbers_that_cannot_be_read_are_refused(numbers: str, tmp_path: Path) -> None:
    random_head(llama(0)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["target"]["probe"]["numbers"] = numbers
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(JudgeDecodingError):
        JudgeHead.from_pretrained(tmp_path)
