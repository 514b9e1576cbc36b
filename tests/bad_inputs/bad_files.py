"""Files of cases, questions, answers, results, recipes and other people's formats."""

from __future__ import annotations

import json
from pathlib import Path

from bad import Bad, Make, Places, changed, cut, folder, nothing, raw, text

LABELS = (
    "court check {bad}",
    "court stats {bad}",
    "court view {bad} -o {new}",
    "court split {bad} --into {new}=1",
    "court merge {bad} -o {new}",
    "court rethreshold {bad} -o {new} --label-threshold 0.5",
    "court export {bad} -o {new} -f csv",
    "court annotate {bad} -o {new} --no-browser",
    "court label arithmetic {bad} -o {new}",
    "court label likelihood {bad} -o {new} --target reference --label-threshold 1",
    "court label equivalence {bad} -o {new} --target reference",
    "court label llm {bad} -o {new} -m openai:m --yes",
)
OTHERS = (
    "train {target} {bad} -o {new}",
    "score {bad} --target {target}",
    "court collect {bad} -o {new} -m {target}",
    "court import {bad} -o {new} -f prodigy",
    "report {bad} -o {new}",
    "fit --prompts {bad} --out {new} --target {target} --draft {draft} --yes",
    "evaluate --task jsonl --data {bad} --target {target} --out {new}",
    "sweep --task jsonl --data {bad} --target {target} --draft {draft} --out {new}",
    "bench --task jsonl --data {bad} --target {target} --backend eager",
)
RECIPES = ("plan {bad}.yaml", "serve {bad}.yaml --dry-run")
KEY = {"OPENAI_API_KEY": "x"}
DEEP = 100_000
ARRAY = "[" * DEEP + "]" * DEEP
GOOD = {"question": "one", "answer": " two"}
LABEL_STUDIO = "court import {bad} -o {new} -f label-studio"
CSV = "court import {bad} -o {new} -f csv"
COLLECT, SCORE = OTHERS[2], OTHERS[1]


def line(**values: object) -> Make:
    """A case with other values."""
    return text(json.dumps(GOOD | values) + "\n")


def task(result: str = "[]", more: str = "", extra: str = "1") -> Make:
    """A task of Label Studio, from pieces of JSON."""
    data = '{"question": "a", "answer": "b", "more": ' + extra + "}"
    return text('[{"data": ' + data + ', "annotations": [{"result": ' + result + more + "}]}]")


def recipe(content: str) -> Make:
    """A recipe."""

    def make(bad: Path, good: Places) -> None:
        bad.with_name("bad.yaml").write_text(content)

    return make


def data_set(bad: Path, good: Places) -> None:
    """A folder that says it is a data set."""
    bad.mkdir()
    (bad / "state.json").write_text("{}")


LONG = f"question,answer\n{'x' * 200_000},y\n"
WORD = '[{"type": "labels", "value": {"start": "a"}}]'
ROUND = '{"question": "a", "text": "b", "rounds": [{"token_ids": [1], "pieces": [], "causes": []}]}\n'
ALIASES = "".join(f"{a}: &{a} [*{b}, *{b}]\n" for b, a in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True))

FILES = [
    *(Bad("no such file", command, "Cannot read", environment=KEY) for command in (*LABELS, *OTHERS, *RECIPES)),
    *(Bad("a folder", command, "Cannot read", folder) for command in (LABELS[0], *OTHERS)),
    *(Bad("UTF-16", command, "UTF-16", text('{"a": 1}\n', encoding="utf-16")) for command in (LABELS[0], *OTHERS)),
    *(Bad("an empty file", command, "{bad}", raw(b""), environment=KEY) for command in (*LABELS, *OTHERS)),
    *(
        Bad(name, "court stats {bad}", says, make, notes=True)
        for name, says, make in (
            ("binary", "not UTF-8", raw(bytes(range(256)) * 8)),
            ("Latin-1", "line 1 is not UTF-8", text('{"question": "ü"}', encoding="latin-1")),
            ("a byte order mark alone", "has no cases", raw(b"\xef\xbb\xbf")),
            ("zeros", "line 1 is not a case", raw(bytes(5000))),
            ("blank lines", "has no cases", text("\n \n\t\n")),
            ("cut off inside a line", "line 1 is not a case", cut("cases", 0.1)),
            ("an array in one line", "line 1 is not a case", text(json.dumps([GOOD]))),
            ("a number", "line 1 is not a case", text("1\n")),
            ("null", "line 1 is not a case", text("null\n")),
            ("a CSV file", "line 1 is not a case", text("question,answer\none,two\n")),
            ("a field of another type", "answer: Input should be a valid string", line(answer=1)),
            ("a missing field", "answer: Field required", text('{"question": "one"}\n')),
            ("an unknown field", "colour: Extra inputs", line(colour="red")),
            ("a span outside", "is outside the answer", line(errors=[[2, 9]])),
            ("a span backwards", "is outside the answer", line(errors=[[3, 1]])),
            ("a span of three", "errors.0", line(errors=[[0, 1, 2]])),
            ("a span that is a number", "errors", line(errors=3)),
            ("half a surrogate pair", "line 1 is not a case", text('{"question": "\\ud800", "answer": "a"}\n')),
            ("a word for seconds", "line 1 is not a case", line(seconds="long")),
            ("arrays nested deep", "line 1 is not a case", text("[" * DEEP)),
            ("objects nested deep", "line 1 is not a case", text('{"question":' * DEEP)),
            ("a token of many digits", "line 1 is not a case", text('{"token_ids": [' + "9" * 5000 + "]}")),
            ("a damaged gzip file", "damaged gzip", raw(b"\x1f\x8b\x08\x00nonsense")),
            ("a gzip file cut off", "damaged gzip", raw(b"\x1f\x8b")),
            ("a zero in the middle", "line 1 is not a case", raw(b'{"question"\0: 1}\n')),
        )
    ),
    Bad("a name of 300 letters", f"court stats {'x' * 300}", "Cannot read"),
    # what generate and evaluate write
    *(
        Bad(name, "report {bad} -o {new}", "no answer", make, notes=True)
        for name, make in (
            ("cases", cut("cases", 1)),
            ("words", text("hello\n")),
            ("arrays nested deep", text("[" * DEEP)),
            ("rounds that do not fit together", text(ROUND)),
        )
    ),
    *(
        Bad(name, command, "{bad}", make)
        for command in ("card {reference} --results {bad}", "report {cases} -o {new} --sweep {bad}")
        for name, make in (
            ("no such results", nothing),
            ("an empty object", text("{}")),
            ("results cut off", cut("results")),
            ("results without rows", changed("results", rows=[])),
            ("results with a word for the rows", changed("results", rows="none")),
            ("results nested deep", text("[" * DEEP)),
            ("binary results", raw(bytes(range(256)))),
        )
    ),
    # other people's formats
    *(
        Bad(f"{form} of {name}", f"court import {{bad}} -o {{new}} -f {form}", "{bad}", make, notes=True)
        for form in ("csv", "prm800k", "processbench", "mr-gsm8k", "bigbench-mistake", "prodigy", "label-studio")
        for name, make in (
            ("words", text("hello\n")),
            ("other JSON", text('[1, null, "a", {}]')),
            ("arrays nested deep", text(ARRAY)),
            ("objects nested deep", text('{"data":' * DEEP + "1" + "}" * DEEP)),
        )
    ),
    Bad("an array that is cut off", LABEL_STUDIO, "not complete JSON", text('[{"data": {}')),
    Bad("a value nested deep", LABEL_STUDIO, "nested too deep", task(extra=ARRAY)),
    Bad("a result that is a list", LABEL_STUDIO, "no cases", task("[[]]"), notes=True),
    Bad("a span that is a word", LABEL_STUDIO, "no cases", task(WORD), notes=True),
    Bad("an annotator nested deep", LABEL_STUDIO, "nested too deep", task(more=f', "completed_by": {ARRAY}')),
    Bad("a field that is too large", CSV, "{bad}", text(LONG), notes=True),
    Bad("a header that says nothing", CSV, "{bad}", text("a,b\n1,2\n"), notes=True),
    # questions and answers
    *(
        Bad(name, command, "{bad}", make, notes=True)
        for command in (COLLECT, SCORE, OTHERS[6])
        for name, make in (
            ("no question", text('{"a": 1}\n')),
            ("a question nested deep", text('{"question": ' + ARRAY + "}\n")),
            ("half a surrogate pair", text('{"question": "\\ud800", "answer": "a"}\n')),
            ("a question that is a list", text('{"question": ["one"], "answer": "a"}\n')),
        )
    ),
    Bad("no such field", f"{COLLECT} --prompt-field colour", "no field", cut("questions", 1), notes=True),
    *(
        Bad(name, "court collect --dataset {bad} -o {new} -m {target}", "data set", make)
        for name, make in (
            ("no such folder", nothing), ("an empty folder", folder), ("a file", text("x")),
            ("a folder that says it is a data set", data_set),
        )
    ),
    # recipes
    *(
        Bad(name, command, "{bad}.yaml", recipe(content))
        for command in RECIPES
        for name, content in (
            ("an empty recipe", ""),
            ("a recipe that is a list", "[1]"),
            ("a recipe that is no YAML", "about: [\n"),
            ("a recipe with a tag of Python", "about: !!python/object/apply:os.system [true]\n"),
            ("a recipe of aliases", f"a: &a [x, x]\n{ALIASES}"),
            ("a recipe nested deep", "[" * 5000),
            ("a recipe with nothing but a name", "about: x\n"),
            ("a recipe with a day that is none", "about: 2024-13-45\n"),
        )
    ),
    Bad("half a recipe", "plan {bad}", "{bad}", cut("recipe")),
    Bad("a misspelt recipe", "plan llama-3.1-8b-405", "llama-3.1-8b-405b"),
    Bad("a head that is not there", "serve {recipe} --force", "vllm"),
]  # fmt: skip
