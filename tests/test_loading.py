"""Loading: which options go where, whose code runs, and whose weights a model has in the end."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from judge_decoding import JudgeDecoder, JudgeDecodingError
from judge_decoding.loading import adapters, models
from judge_decoding.loading.models import draft_options, load_model, load_tokenizer, tokenizer_options
from judge_decoding.loading.weights import check_finite_weights
from tiny import greedy, llama, with_own_code, word_tokenizer

IDS = [5, 6, 7, 8]


def says(phrase: str, work: Callable[[], object]) -> None:
    """It is refused in one sentence with ``phrase`` in it."""
    with pytest.raises(JudgeDecodingError, match=phrase) as caught:
        work()
    assert "\n" not in str(caught.value)


def answer(*args: Any, **kwargs: Any) -> list[int]:
    """Twelve tokens of a pair that is loaded so."""
    return list(JudgeDecoder.from_pretrained(*args, **kwargs).generate(torch.tensor([IDS]), 12).token_ids)


def saved(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    """A model in a folder, with its tokenizer."""
    model.save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


def changed(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """The folder, with other weights in its file."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reconfigured(folder: Path, name: str = "config.json", **values: Any) -> Path:
    """The folder, with other values in its configuration."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return folder


# Which options go where


def test_what_is_about_access_and_the_machine_is_for_both_and_all_else_is_the_targets(folders: dict[str, Path]) -> None:
    both = {"token": "t", "cache_dir": "c", "trust_remote_code": True, "dtype": "bfloat16", "use_fast": True}
    given = both | {"revision": "v1", "variant": "fp16", "gguf_file": "x.gguf", "rope_theta": 5.0}
    assert draft_options(folders["draft"], given, {}) == both
    assert draft_options(folders["draft"], given, {"revision": "v2", "token": "u"}) == both | {
        "revision": "v2", "token": "u",
    }  # fmt: skip
    assert tokenizer_options(given) == {
        name: given[name] for name in ("token", "cache_dir", "trust_remote_code", "use_fast", "revision", "gguf_file")
    }


def test_a_device_map_of_the_targets_modules_is_not_the_drafts(folders: dict[str, Path]) -> None:
    whole = {"device_map": {"": "cpu"}}
    assert draft_options(folders["draft"], whole, {}) == whole
    parts = {"device_map": {"model.layers.0": "cpu", "model.layers.1": "disk"}}
    assert "device_map" not in draft_options(folders["draft"], parts, {})
    assert draft_options(folders["draft"], {"device": "cpu"}, {"device_map": "auto"}) == {"device_map": "auto"}


def test_a_subfolder_is_the_drafts_too_where_it_has_one(
    target: LlamaForCausalLM, draft: PreTrainedModel, tmp_path: Path
) -> None:
    saved(tmp_path / "target" / "hf", target)
    saved(tmp_path / "draft" / "hf", draft)
    flat = saved(tmp_path / "flat", draft)
    want = greedy(target, IDS, 12, stop=True)
    assert answer(tmp_path / "target", tmp_path / "draft", subfolder="hf") == want
    assert answer(tmp_path / "target", flat, subfolder="hf") == want
    assert answer(tmp_path / "target" / "hf", tmp_path / "draft", draft_kwargs={"subfolder": "hf"}) == want
    says("no folder gone", lambda: answer(tmp_path / "target", flat, subfolder="gone"))
    says("Cannot load the tokenizer", lambda: answer(tmp_path / "target" / "hf", tmp_path / "draft"))


def test_options_of_one_draft_need_a_draft_by_name(folders: dict[str, Path], draft: PreTrainedModel) -> None:
    says("draft_kwargs are for", lambda: answer(folders["target"], draft, draft_kwargs={"revision": "v2"}))
    says("draft_kwargs are for", lambda: answer(folders["target"], "prompt-lookup", draft_kwargs={"revision": "v2"}))


def test_options_for_tokenizers_do_not_reach_models_nor_a_targets_configuration_its_draft(
    folders: dict[str, Path],
) -> None:
    pair = JudgeDecoder.from_pretrained(
        folders["target"], folders["draft"], use_fast=True, dtype="bfloat16", max_position_embeddings=99
    )
    assert isinstance(pair.draft, PreTrainedModel)
    assert (pair.target.config.max_position_embeddings, pair.draft.config.max_position_embeddings) == (99, 256)
    assert pair.target.dtype == pair.draft.dtype == torch.bfloat16
    says("there is no option 'colour'; check its spelling", lambda: load_model(folders["target"], colour=1))


# Whose code runs


@pytest.fixture
def stranger(tmp_path: Path, target: LlamaForCausalLM) -> tuple[Path, Path]:
    """A model with code of its own in every place, and the file that this code leaves behind when it runs."""
    folder, mark = saved(tmp_path / "stranger", target), tmp_path / "mark"
    with_own_code(folder, mark)
    return folder, mark


def test_no_code_of_a_model_runs_whatever_comes_on_standard_input(
    stranger: tuple[Path, Path], folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = stranger
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    for load in (load_model, load_tokenizer, JudgeDecoder.from_pretrained):
        says("command line never runs.*trust_remote_code=True", lambda: load(folder))  # noqa: B023  (called at once)
        says("trust_remote_code=True", lambda: load(folder, trust_remote_code=None))  # noqa: B023
    says("trust_remote_code=True", lambda: answer(folders["target"], folder))
    assert not mark.exists()


def test_trusted_code_runs_for_model_and_tokenizer_of_target_and_draft(
    stranger: tuple[Path, Path], target: LlamaForCausalLM
) -> None:
    folder, mark = stranger
    pair = JudgeDecoder.from_pretrained(folder, folder, trust_remote_code=True)
    assert mark.exists()
    assert [type(part).__name__ for part in (pair.target, pair.draft, pair.tokenizer)] == [
        "OwnForCausalLM", "OwnForCausalLM", "OwnTokenizer",
    ]  # fmt: skip
    assert list(pair.generate(torch.tensor([IDS]), 12).token_ids) == greedy(target, IDS, 12, stop=True)


# Whose weights a model has


def layer(weights: dict[str, Tensor], number: int) -> list[str]:
    return [name for name in weights if name.startswith(f"model.layers.{number}.")]


def without_a_layer(weights: dict[str, Tensor]) -> None:
    for name in layer(weights, 1):
        del weights[name]


def one_layer_more(weights: dict[str, Tensor]) -> None:
    weights |= {name.replace("layers.1", "layers.2"): weights[name].clone() for name in layer(weights, 1)}


def a_bias(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.ones(32)


def one_norm_more(weights: dict[str, Tensor]) -> None:
    weights["model.layers.0.self_attn.q_norm.weight"] = torch.ones(8)


def a_norm_less(weights: dict[str, Tensor]) -> None:
    del weights["model.norm.weight"]


def no_output(weights: dict[str, Tensor]) -> None:
    del weights["lm_head.weight"]


def another_shape(weights: dict[str, Tensor]) -> None:
    weights["model.layers.1.mlp.up_proj.weight"] = torch.ones(48, 32)


def not_a_number(weights: dict[str, Tensor]) -> None:
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")


def infinite(weights: dict[str, Tensor]) -> None:
    weights["model.embed_tokens.weight"][3, 4] = -float("inf")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            without_a_layer,
            r"lacks weights of LlamaForCausalLM.* random: model\.layers\.1\.input_layernorm.* and 8 more",
        ),
        (a_norm_less, r"random: model\.norm\.weight;"),
        (no_output, r"random: lm_head\.weight;"),
        (one_layer_more, r"does not use.* ignored: model\.layers\.2\.input_layernorm\.weight and 8 more"),
        (a_bias, r"ignored: model\.layers\.0\.self_attn\.q_proj\.bias;"),
        (one_norm_more, r"ignored: model\.layers\.0\.self_attn\.q_norm\.weight;"),
        (another_shape, r"up_proj\.weight is 48 x 32 and LlamaForCausalLM wants 64 x 32;"),
        (not_a_number, r"not finite numbers: model\.layers\.1\.mlp\.up_proj\.weight;"),
        (infinite, r"not finite numbers: model\.embed_tokens\.weight;"),
    ],
)
def test_a_model_has_all_its_weights_and_the_checkpoint_no_others(
    change: Callable[[dict[str, Tensor]], None], sentence: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = changed(saved(tmp_path / "model", load_model(folders["target"])), change)
    says(sentence, lambda: load_model(folder))
    says(sentence, lambda: answer(folders["target"], folder))


@pytest.mark.parametrize(
    "names",
    [
        ["mtp.fc.weight", "mtp.layers.0.mlp.up_proj.weight"],
        ["v_head.summary.weight", "v_head.summary.bias"],
        ["vision_tower.encoder.layers.0.weight", "multi_modal_projector.weight"],
        ["model.vision_tower.weight"],
        ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.1.self_attn.masked_bias"],
    ],
)
def test_parts_that_a_model_lacks_as_a_whole_may_be_left_over(
    names: list[str], folders: dict[str, Path], target: LlamaForCausalLM, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", load_model(folders["target"]))
    changed(folder, lambda weights: weights.update({name: torch.ones(3) for name in names}))
    assert answer(folder) == greedy(target, IDS, 12, stop=True)


def test_a_layer_that_predicts_further_tokens_may_be_left_over(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(saved(tmp_path / "model", load_model(folders["target"])), one_layer_more)
    reconfigured(folder, num_nextn_predict_layers=1)
    assert load_model(folder).config.num_hidden_layers == 2


def test_tied_weights_may_be_missing(tmp_path: Path) -> None:
    model = llama(0)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    folder = saved(tmp_path, model)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    loaded = load_model(folder)
    assert torch.equal(loaded.lm_head.weight, model.model.embed_tokens.weight)


def test_a_weight_of_another_shape_may_be_random_if_one_insists(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(saved(tmp_path / "model", load_model(folders["target"])), another_shape)
    loaded = load_model(folder, ignore_mismatched_sizes=True)
    assert loaded.model.layers[1].mlp.up_proj.weight.shape == (64, 32)


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ({"model_type": "qwen9"}, "model type `qwen9`.*; update transformers if the model is newer"),
        ({"model_type": "t5"}, "T5Config.*; use a decoder-only language model"),
        # transformers skips it with a warning, and takes 8-bit floats without their scales for weights.
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}},
         r"quantised by modelopt, which transformers [\d.]+ does not read; use the checkpoint that is not quantised"),
        ({"quantization_config": {
            "quant_method": "torchao", "quant_type": {"default": {"_type": "Int3", "_data": {}}},
         }},
         "Int3.*; update torchao if the quantisation is newer"),
    ],
    ids=["family", "encoder", "quantisation", "torchao"],
)  # fmt: skip
def test_a_family_or_quantisation_that_is_not_known_is_refused(
    folders: dict[str, Path], tmp_path: Path, values: dict[str, Any], phrase: str
) -> None:
    folder = reconfigured(saved(tmp_path / "new", load_model(folders["target"])), **values)
    says(phrase, lambda: load_model(folder))


def test_buffers_may_be_infinite_and_half_precision_weights_as_large_as_they_can_be() -> None:
    model: Any = torch.nn.Linear(4, 4, dtype=torch.float16).requires_grad_(False)
    model.weight.fill_(torch.finfo(torch.float16).max)
    model.register_buffer("mask", torch.tensor([0.0, -float("inf")]))
    check_finite_weights(model, "it")
    model.mask[0] = float("nan")
    says("not finite numbers: mask;", lambda: check_finite_weights(model, "it"))


# Weights that are no safetensors


def test_pickled_weights_are_converted_by_the_command_that_the_sentence_gives(
    target: LlamaForCausalLM, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "a folder", target)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    want = greedy(target, IDS, 12, stop=True)
    assert answer(folder, use_safetensors=False) == want
    with pytest.raises(JudgeDecodingError, match="pickles") as caught:
        answer(folder)
    command = re.search(r"with: (python -c '.*')", str(caught.value))
    assert command is not None
    exec(shlex.split(command[1])[2])
    assert (folder / "model.safetensors").is_file()
    assert answer(folder) == want


# Adapters


@pytest.fixture
def adapter(tmp_path: Path, target: LlamaForCausalLM) -> tuple[Path, list[int]]:
    """A LoRA adapter's folder without a tokenizer, and what its model says by peft's own means."""
    peft = pytest.importorskip("peft")
    base = saved(tmp_path / "base", target)
    torch.manual_seed(3)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads an attribute that transformers has renamed
        model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), config).eval().requires_grad_(False)
    model.save_pretrained(tmp_path / "lora")
    assert "tokenizer.json" not in [path.name for path in (tmp_path / "lora").iterdir()]
    ids = torch.tensor([IDS])
    said = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
    return tmp_path / "lora", said[0, len(IDS) :].tolist()


def test_an_adapters_folder_is_a_target_and_a_draft(
    adapter: tuple[Path, list[int]], folders: dict[str, Path], target: LlamaForCausalLM
) -> None:
    folder, want = adapter
    assert want != greedy(target, IDS, 12, stop=True)
    assert answer(folder) == want
    assert answer(folder, folders["draft"]) == want
    assert answer(folder, folder, dtype="float32", device="cpu") == want
    own = JudgeDecoder.from_pretrained(folders["target"], folder)
    made = own.generate(torch.tensor([IDS]), 12)
    assert list(made.token_ids) == greedy(target, IDS, 12, stop=True)
    assert any("lora_A" in name for name, _ in own.draft.named_parameters())  # type: ignore[union-attr]


def test_an_adapter_beside_its_model_is_used(adapter: tuple[Path, list[int]], tmp_path: Path) -> None:
    folder, want = adapter
    for file in (tmp_path / "base").iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    reconfigured(folder, adapters.CONFIG, base_model_name_or_path="/moved/away")
    assert answer(folder) == want


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("no peft", r"is an adapter, which needs peft; install it with: pip install peft\."),
        ("base moved", r"model that the adapter .*lora is for, /moved/away: there is no such folder"),
        ("base unnamed", "is an adapter that does not name its base model; fill in base_model_name_or_path"),
        ("damaged", "damaged adapter_config.json"),
        ("base lacks a layer", r"base lacks weights of LlamaForCausalLM.*model\.layers\.1"),
        ("lacks a weight", r"lora lacks weights of LlamaForCausalLM.*lora_A"),
        ("not a number", r"lora are not finite numbers: .*lora_A"),
        ("pickled", r"has no adapter_model\.safetensors; .* use_safetensors=False if you trust"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused_in_one_sentence(
    change: str, sentence: str, adapter: tuple[Path, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = adapter
    weights = load_file(folder / "adapter_model.safetensors")
    key = next(name for name in weights if "lora_A" in name)
    if change == "no peft":
        monkeypatch.setattr(models, "find_spec", lambda name: None)
    elif change == "base moved":
        reconfigured(folder, adapters.CONFIG, base_model_name_or_path="/moved/away")
    elif change == "base unnamed":
        reconfigured(folder, adapters.CONFIG, base_model_name_or_path=None)
    elif change == "damaged":
        (folder / adapters.CONFIG).write_text("{")
    elif change == "base lacks a layer":
        changed(tmp_path / "base", without_a_layer)
    elif change == "pickled":
        torch.save(weights, folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    else:
        if change == "not a number":
            weights[key][0, 0] = float("nan")
        else:
            del weights[key]
        save_file(weights, folder / "adapter_model.safetensors")
    says(sentence, lambda: load_model(folder))
