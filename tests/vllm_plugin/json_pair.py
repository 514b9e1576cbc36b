"""A random pair with tokens for JSON, which the embedded one has not, and a head that accepts all it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from jsonschema import Draft202012Validator
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.judge.head import JudgeHead
from judge_decoding.judge.target import target_info


def _record(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


# Not maxLength: what xgrammar makes of it lets control characters through, with a judge or without.
_TEXT = {"type": "string", "pattern": "^[a-z ]{1,12}$"}
SCHEMAS: list[dict[str, Any]] = [
    _record(name=_TEXT, colour={"enum": ["red", "green", "blue"]}, old={"type": "boolean"}),
    _record(
        age={"type": "integer", "minimum": 0, "maximum": 120},
        words={"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 3},
    ),
    {
        "type": "array",
        "items": _record(kind={"const": 'a "quoted" kind'}, what=_TEXT),
        "minItems": 1,
        "maxItems": 2,
    },
    _record(of=_record(town=_TEXT, country={"enum": ["FR", "CH", None]})),
]
JSON_PROMPTS = ["Who is it?", "{", "Tell me of a red house: ", '{"name": "', "17", "\n\n"]
MAX_TOKENS = 150  # an answer has fewer characters
COMPACT = {"backend": "xgrammar", "disable_any_whitespace": True}
"""Of the engine: with as much white space as it likes, a random model would never end."""


def make_json_pair(folder: Path) -> Path:
    """Write ``target``, ``draft`` and ``head`` into the folder."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    # Tokens across the borders of names, values and punctuation, as real tokenizers have them.
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=3, show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator([json.dumps(schema, separators=(",", ":")) for schema in SCHEMAS], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")
    for seed, name in enumerate(("target", "draft")):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.3,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, dtype="float32",
        )  # fmt: skip
        model = LlamaForCausalLM(config)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        if name == "target":
            head = JudgeHead(JudgeHeadConfig(target=target_info(model), norm="after"))
            torch.nn.init.zeros_(head.linear.weight)
            torch.nn.init.constant_(head.linear.bias, 20.0)
            head.save_pretrained(folder / "head")
    return folder


def check_json(texts: Iterable[str], schema: dict[str, Any]) -> None:
    """Each of ``texts`` is JSON, and what the schema asks for."""
    validator = Draft202012Validator(schema)
    for text in texts:
        validator.validate(json.loads(text))
