"""Judge heads: damaged, foreign, of other models."""

from __future__ import annotations

from typing import Any

from bad import Bad, copy, folder, tensors, text

USERS = (
    "generate {target} one --draft {draft} --judge {bad}",
    "evaluate --task arithmetic --target {target} --draft {draft} --judge {bad} --out {new}",
    "sweep --task arithmetic --target {target} --draft {draft} --judge {bad} --out {new}",
    "bench --target {target} --draft {draft} --judge {bad} --backend eager",
    "score {cases} --target {target} --judge {bad}",
    "court annotate {cases} -o {new} --target {target} --judge {bad} --no-browser --port 0",
    "play --pair {target},{draft},{bad} --cases {new} --no-browser --port 0",
)
INFO = "info {bad}"
OTHER = "LlamaForCausalLM with hidden size 32"
F32: Any = {"dtype": "F32", "shape": [1, 32], "data_offsets": [0, 128]}
BIAS: Any = {"dtype": "F32", "shape": [1], "data_offsets": [128, 132]}
DRAFT = {
    "name_or_path": "x", "architecture": "LlamaForCausalLM", "hidden_size": 32, "num_hidden_layers": 2,
    "fingerprint": "x",
}  # fmt: skip

HEADS = [
    *(Bad("no such head", command, "no judge head") for command in (*USERS, INFO)),
    *(Bad("a file for a head", command, "is a file", text("x")) for command in (*USERS, INFO)),
    *(
        Bad("a head of another model", command, "was trained for", copy("reference"))
        for command in (*USERS, "info {bad} --target {target}")
    ),
    Bad("no such head", "card {bad}", "is not a folder"),
    Bad("no such head", "push {bad} me/judge", "is not a folder"),
    *(
        Bad("an empty folder", command, "Cannot read the judge head's configuration", folder)
        for command in ("card {bad}", "push {bad} me/judge", INFO)
    ),
    *(
        Bad(f"configuration: {name}", INFO, "{bad}", make)
        for name, make in (
            ("missing", copy("judge", {"config.json": None})),
            ("empty", copy("judge", {"config.json": ""})),
            ("a list", copy("judge", {"config.json": "[]"})),
            ("cut off", copy("judge", {"config.json": '{"target": {'})),
            ("binary", copy("judge", {"config.json": bytes(range(256))})),
            ("UTF-16", copy("judge", {"config.json": "{}".encode("utf-16")})),
            ("nested deep", copy("judge", {"config.json": "[" * 100_000})),
            ("without its target", copy("judge", drop="target")),
            ("a target that is a word", copy("judge", target="reference")),
            ("a threshold beyond 1", copy("judge", threshold=2)),
            ("a threshold that is a word", copy("judge", threshold="high")),
            ("another version", copy("judge", version=99)),
            ("a layer that is none", copy("judge", layer=0)),
            ("a place that is none", copy("judge", norm="beside")),
            ("a draft length below 1", copy("judge", num_draft_tokens=0)),
            ("that of a model", copy("judge", {"config.json": '{"model_type": "llama"}'})),
        )
    ),
    *(
        Bad(f"weights: {name}", INFO, "{bad}", copy("judge", {"model.safetensors": content}))
        for name, content in (
            ("missing", None),
            ("empty", b""),
            ("words", "nonsense"),
            ("a pickle", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}."),
            ("a header of exabytes", b"\xff" * 8 + b"{}"),
            ("a header that is no JSON", (4).to_bytes(8, "little") + b"nope"),
            ("no tensors", tensors()),
            ("cut off", tensors(10, **{"linear.weight": F32})),
            ("no bias", tensors(128, **{"linear.weight": F32})),
            ("another name", tensors(128, w=F32)),
            ("another shape", tensors(132, **{"linear.weight": F32 | {"shape": [32, 1]}, "linear.bias": BIAS})),
            ("overlapping", tensors(128, **{"linear.weight": F32, "linear.bias": BIAS | {"data_offsets": [0, 4]}})),
            ("an unknown number format", tensors(128, **{"linear.weight": F32 | {"dtype": "F99"}})),
            ("not numbers", tensors(128, b"\0\0\xc0\x7f", **{"linear.weight": F32, "linear.bias": BIAS})),
        )
    ),
    Bad("a head that reads a draft too", USERS[4], "draft", copy("judge", draft=DRAFT)),
    Bad("a head without its target", "court annotate {cases} -o {new} --judge {judge} --no-browser", "--target"),
    Bad("results that are damaged", "card {bad}", "results.json", copy("judge", {"results.json": "{"})),
]  # fmt: skip
