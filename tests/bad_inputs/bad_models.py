"""Model folders: configurations, weights, tokenizers, generation configurations, adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bad import Bad, Places, copy, folder, one, tensors, text

from tiny import with_own_code

GENERATE = "generate {bad} one --max-new-tokens 4"
PLAIN = f"{GENERATE} --no-chat"
USERS = (
    GENERATE,
    "generate {target} one --draft {bad}",
    "fit --prompts {prompts} --out {new} --target {bad} --draft {draft} --yes",
    "evaluate --task arithmetic --target {bad} --out {new}",
    "sweep --task arithmetic --target {bad} --draft {draft} --out {new}",
    "bench --target {bad} --backend eager",
    "score {cases} --target {bad}",
    "train {bad} {cases} -o {new}",
    "info {judge} --target {bad}",
    "court collect {questions} -o {new} -m {bad}",
    "play --pair {bad},{draft} --cases {new} --no-browser --port 0",
    "court annotate {cases} -o {new} --target {bad} --no-browser --port 0",
    "court label likelihood {questions} -o {new} --target {bad} --draft {draft} --label-threshold 1 --yes",
    "court label equivalence {questions} -o {new} --target {bad} --draft {draft} --yes",
)
EQUIVALENCE_THERE = f"{USERS[-1]} --endpoint m"
KEY = {"OPENAI_API_KEY": "x"}
TOKENIZED = (
    "court check {cases} --tokenizer {bad}",
    "court stats {cases} --tokenizer {bad}",
    "court view {cases} -o {new} --tokenizer {bad}",
)
DEEP = "[" * 100_000 + "]" * 100_000
BINARY = bytes(range(256))
NORM: Any = {"dtype": "F32", "shape": [32], "data_offsets": [0, 128]}


def index(content: object) -> dict[str, str | None]:
    """Weights in several files, by this index."""
    return {"model.safetensors": None, "model.safetensors.index.json": json.dumps(content)}


def adapter(content: str) -> dict[str, str | None]:
    """An adapter alone."""
    return {"adapter_config.json": content, "config.json": None, "model.safetensors": None}


def stranger(bad: Path, good: Places) -> None:
    """A model with code of its own, which would leave a file."""
    copy("target")(bad, good)
    with_own_code(bad, bad.with_name("it ran"))


CONFIGURATIONS = (
    ("missing", copy("target", {"config.json": None})),
    ("empty", copy("target", {"config.json": ""})),
    ("a list", copy("target", {"config.json": "[]"})),
    ("a number", copy("target", {"config.json": "1"})),
    ("null", copy("target", {"config.json": "null"})),
    ("cut off", copy("target", {"config.json": '{"model_type": "ll'})),
    ("binary", copy("target", {"config.json": BINARY})),
    ("nested deep", copy("target", {"config.json": DEEP})),
    ("no model type", copy("target", {"config.json": "{}"})),
    ("an encoder and a decoder", copy("target", {"config.json": '{"model_type": "t5"}'})),
    ("no language model", copy("target", {"config.json": '{"model_type": "vit"}'})),
    *(
        (f"{field} {value}", copy("target", **one(field, value)))
        for field, values in {
            "model_type": ("nonsense", ["llama"]),
            "hidden_act": ("magic", 3),
            "rope_parameters": (
                {"rope_type": "magic", "rope_theta": 1e4}, {"rope_type": "linear", "rope_theta": 1e4}, "linear",
            ),
            "num_attention_heads": (5, -4),
            "num_key_value_heads": (3, 0),
            "num_hidden_layers": (0, -1, "two", 1.5, 3, 1),
            "hidden_size": (0, [32], 64),
            "vocab_size": (0, 10**15),
            "dtype": ("float99",),
            "max_position_embeddings": ("long",),
            "eos_token_id": ({"a": 1}, "stop"),
            "quantization_config": ("magic",),
        }.items()
        for value in values
    ),
)  # fmt: skip
WEIGHTS = (
    ("missing", {"model.safetensors": None}),
    ("empty", {"model.safetensors": b""}),
    ("words", {"model.safetensors": "nonsense"}),
    ("a page of the web", {"model.safetensors": "<!DOCTYPE html><html></html>"}),
    ("a pointer of Git LFS", {"model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}),
    ("a header of exabytes", {"model.safetensors": b"\xff" * 8 + b"{}"}),
    ("no tensors", {"model.safetensors": tensors()}),
    ("one tensor only", {"model.safetensors": tensors(128, **{"model.norm.weight": NORM})}),
    ("cut off", {"model.safetensors": tensors(9, **{"model.norm.weight": NORM})}),
    ("pickles", {"model.safetensors": None, "pytorch_model.bin": b"x"}),
    ("a missing part", index({"metadata": {}, "weight_map": {"model.norm.weight": "model-1-of-2.safetensors"}})),
    ("an index that leads away", index({"metadata": {}, "weight_map": {"model.norm.weight": "../../etc/passwd"}})),
    ("an index that is a list", index([])),
)
TOKENIZERS = (
    ("missing", copy("target", {"tokenizer.json": None, "tokenizer_config.json": None})),
    ("empty", copy("target", {"tokenizer.json": ""})),
    ("a list", copy("target", {"tokenizer.json": "[]"})),
    ("cut off", copy("target", {"tokenizer.json": "{"})),
    ("without its model", copy("target", {"tokenizer.json": "{}"})),
    ("of no kind", copy("target", {"tokenizer.json": '{"model": {"type": "Magic"}}'})),
    ("binary", copy("target", {"tokenizer.json": BINARY})),
    ("nested deep", copy("target", {"tokenizer.json": DEEP})),
    ("settings that are a list", copy("target", {"tokenizer_config.json": "[]"})),
    ("settings cut off", copy("target", {"tokenizer_config.json": "{"})),
    ("a class that is a number", copy("target", inside="tokenizer_config.json", tokenizer_class=7)),
    ("an end token that is a list", copy("target", inside="tokenizer_config.json", eos_token=["</s>"])),
    ("special tokens that are a number", copy("target", inside="tokenizer_config.json", extra_special_tokens=5)),
)
GENERATION = (
    *(
        (name, copy("target", {"generation_config.json": content}))
        for name, content in (("a list", "[]"), ("cut off", "{"), ("nested deep", DEEP), ("binary", BINARY))
    ),
    *(
        (f"{field} {value}", copy("target", inside="generation_config.json", do_sample=True, **one(field, value)))
        for field, values in {
            "eos_token_id": ({"a": 1}, "stop", ["stop"]),
            "temperature": ("hot", -1),
            "max_new_tokens": (-5, "many"),
            "repetition_penalty": (0, "much"),
            "watermarking_config": ("magic",),
            "bad_words_ids": ("magic",),
            "top_p": ("all",),
            "top_k": (True,),
            "max_time": ("long", [1]),
            "stop_strings": (5, [5]),
            "no_repeat_ngram_size": (True, 10**15),
            "encoder_no_repeat_ngram_size": (10**15,),
            "is_assistant": (True,),
        }.items()
        for value in values
    ),
)
ADAPTERS = (
    ("no base", adapter("{}"), "{bad}"),
    ("a base that is not there", adapter('{"peft_type": "LORA", "base_model_name_or_path": "no/such"}'), "no/such"),
    ("a base that is a number", adapter('{"peft_type": "LORA", "base_model_name_or_path": 7}'), "{bad}"),
    ("nested deep", adapter(DEEP), "{bad}"),
    ("a list", {"adapter_config.json": "[]"}, "{bad}"),
)

MODELS = [
    *(Bad("no such model", command, "Cannot load the") for command in (*USERS, *TOKENIZED)),
    *(
        Bad("zero attention heads", command, "{bad}", copy("target", num_attention_heads=0))
        for command in (*USERS, *TOKENIZED)
    ),
    *(
        Bad("code of its own", command, "trust_remote_code=True", stranger, environment=KEY)
        for command in (
            *USERS, *TOKENIZED, EQUIVALENCE_THERE,
            *(one.replace("{bad}", "{target}").replace("{draft}", "{bad}") for one in USERS if "{draft}" in one),
            "evaluate --task arithmetic --target {target} --draft {bad} --out {new}",
            "bench --target {target} --draft {bad} --backend eager",
            "court collect {questions} -o {new} -m {target} --chat --target {bad}",
            "generate {target} one --draft {bad} --translate",
        )
    ),
    Bad("an empty folder", GENERATE, "{bad}", folder),
    Bad("a file for a model", GENERATE, "is a file", text("x")),
    Bad("a device for a model", "generate /dev/zero one", "/dev/zero"),
    Bad("a name of 300 letters", f"generate {'x' * 300} one", "no such folder"),
    Bad("a misspelt name", "generate referense one", "reference"),
    Bad("an empty name", "generate '' one", "name is empty"),
    Bad("a draft of other words", "generate {target} one --draft reference-draft", "different vocabularies"),
    *(Bad(f"configuration: {name}", PLAIN, "{bad}", make) for name, make in CONFIGURATIONS),
    *(Bad(f"weights: {name}", PLAIN, "{bad}", copy("target", files)) for name, files in WEIGHTS),
    *(
        Bad(f"tokenizer: {name}", command, "{bad}", make)
        for command in (PLAIN, TOKENIZED[1])
        for name, make in TOKENIZERS
    ),
    *(Bad(f"generation configuration: {name}", f"{GENERATE[:-19]}", "{bad}", make) for name, make in GENERATION),
    Bad(
        "an end token that is an object",
        EQUIVALENCE_THERE, "eos_token_id", copy("target", inside="generation_config.json", eos_token_id={"a": 1}),
        environment=KEY,
    ),
    *(Bad(f"adapter: {name}", PLAIN, says, copy("target", files)) for name, files, says in ADAPTERS),
]  # fmt: skip
