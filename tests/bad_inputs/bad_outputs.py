"""Outputs that cannot be written, that are read from, or that are there already."""

from __future__ import annotations

from bad import Bad, folder, text

FILES = (
    "generate {target} one --out",
    "court view {cases} -o",
    "court merge {cases} -o",
    "court rethreshold {scored} --label-threshold 0.5 -o",
    "court import {cases} -f prodigy -o",
    "court export {cases} -f csv -o",
    "court collect {questions} -m {target} -o",
    "court label arithmetic {sums} -o",
    "court label likelihood {questions} --target reference --label-threshold 1 -o",
    "court label equivalence {questions} --target reference -o",
    "report {cases} -o",
    "score {cases} --target {target} --html",
    "demo --out",
    "demo --html",
    "court check {cases} --out",
    "court starter -o",
)
FOLDERS = (
    "train {target} {cases} -o",
    "evaluate --task arithmetic --target {target} --out",
    "sweep --task arithmetic --target {target} --draft {draft} --out",
    "draft {target} --prompts {prompts} --yes -o",
    "fit --prompts {prompts} --target {target} --draft {draft} --yes --out",
    "bench --target {target} --backend eager --out",
    "court annotate {cases} --no-browser -o",
)
ALL = (*FILES, *FOLDERS)

OUTPUTS = [
    *(Bad("an output of 300 letters", f"{command} {'x' * 300}", "File name too long") for command in ALL),
    *(Bad("an output below a file", f"{command} {{bad}}/out", "Cannot write", text("x")) for command in ALL),
    *(Bad("an output in /proc", f"{command} /proc/nowhere/out", "Cannot write") for command in ALL),
    *(Bad("an output that is a folder", f"{command} {{bad}}", "it is a folder", folder) for command in FILES),
    *(Bad("an output that is there", f"{command} {{bad}}", "--overwrite", text("x")) for command in FILES),
    *(Bad("a folder that is a file", f"{command} {{bad}}", "{bad}", text("x")) for command in FOLDERS),
    Bad("an output that is read", "court merge {cases} -o {cases} --overwrite", "is read from"),
    Bad("a part that is read", "court split {cases} --into {cases}=1 --overwrite", "is read from"),
    Bad("an output among a model's files", f"{FILES[0]} {{target}}/config.json --overwrite", "read from"),
    Bad("one output twice", "demo --out {new} --html {new}", "same file"),
    Bad("one output twice", "court label arithmetic {sums} -o {new} --aside {new}", "same file"),
]  # fmt: skip
