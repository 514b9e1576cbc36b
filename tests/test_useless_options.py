"""An option that would do nothing where it is given is refused, in a sentence with the remedy, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import Run, is_one_sentence
from judge_decoding import Case, JudgeHead, write_cases

GENERATE = "generate {none} one"
DRAFTED = f"{GENERATE} --draft prompt-lookup"
EVALUATE = "evaluate --target {none} --out {new} --task jsonl --data {file}"
CHECKED = "evaluate --target {none} --out {new} --task jsonl(checker=number) --data {file}"
SWEEP = "sweep --target {none} --draft prompt-lookup --out {new} --task jsonl(checker=number) --data {file}"
COLLECT = "court collect {file} -o {new} -m"
CODE = ("--allow-code-execution", "--sandbox docker:python:3.12", "--no-sandbox")
FIT = "fit --prompts {file} --target {none} --draft {none} --out {new}"
TRAIN = "train {none} {file} -o {new}"

CASES = [
    # command, option that does nothing, where
    *((GENERATE, option, "Without --draft") for option in (
        "--judge {judge}", "--rule top_k(k=2)", "--num-draft-tokens 3", "--draft-schedule heuristic",
        "--guard budget(tokens=1)", "--translate",
    )),
    (f"{GENERATE} --out {{new}}", "--with-target", "Without --draft"),
    (DRAFTED, "--translate", "With the draft prompt-lookup"),
    (DRAFTED, "--draft-schedule confident", "With the draft prompt-lookup"),
    (DRAFTED, "--guard budget(tokens=1)", "With the rule exact"),
    (f"{DRAFTED} --judge {{judge}} --threshold 1", "--guard budget(tokens=1)", "which rescues nothing"),
    *(
        (f"{GENERATE} --temperature 0", option, "At temperature 0")
        for option in ("--top-p 0.9", "--top-k 3", "--min-p 0.1", "--seed 0")
    ),
    (f"{GENERATE} --no-chat", "--system x", "With --no-chat"),
    (GENERATE, "--overwrite", "Without --out"),
    ("demo", "--overwrite", "Without --out or --html"),
    *((EVALUATE, option, "Without --draft") for option in (
        "--judge {judge}", "--rule exact", "--num-draft-tokens 3", "--target-alone", "--details", "--margin 1",
    )),
    (f"{CHECKED} --draft prompt-lookup --no-target-alone", "--margin 1", "With --no-target-alone"),
    (f"{EVALUATE} --draft prompt-lookup", "--margin 1", "whose answers are not right or wrong"),
    (EVALUATE, "--seed 1", "At temperature 0 and without --limit"),
    *((EVALUATE, option, "which runs no code") for option in CODE),
    (SWEEP, "--threshold 0.5", "Without --judge"),
    (f"{SWEEP} --every-length", "--tune 2", "With --every-length"),
    *((SWEEP, option, "which runs no code") for option in CODE),
    (SWEEP.replace("(checker=number)", ""), "--margin 1", "whose answers are not right or wrong"),
    *(("bench --target {none}", option, "Without --draft and --draft-layers") for option in (
        "--judge {judge}", "--num-draft-tokens 3",
    )),
    ("bench", "--overwrite", "Without --out"),
    *(("score {file} --target {none}", option, "Without --html") for option in ("--show 3", "--overwrite")),
    *((TRAIN, option, "With the aim catch=0.95") for option in (
        "--checker exact", "--max-new-tokens 9", "--batch-size 2", "--calibrate-data {file}",
        "--calibrate-limit 3",
    )),
    (f"{TRAIN} --aim accuracy --calibrate-on gsm8k", "--checker exact", "a task by name"),
    (f"{TRAIN} --aim accuracy --calibrate-on {{file}}", "--calibrate-data {file}", "is a file"),
    *((FIT, option, "Without --calibrate-on") for option in ("--calibrate-data {file}", "--calibrate-limit 3")),
    *((f"{FIT} --calibrate-on gsm8k", option, "With --calibrate-on") for option in (
        "--share 0.5", "--reference-field x",
    )),
    (f"{TRAIN} --labels from_error", "--after-error correct", "With --labels from_error"),
    (f"{TRAIN} --layers -2", "--norm after", "Below the last layer"),
    ("serve llama-3.1-8b-405b --dry-run", "--force", "With --dry-run"),
    *((f"{COLLECT} {{none}}", option, "Without an endpoint") for option in (
        "--raw", "--concurrency 2", "--retries 1",
    )),
    *((f"{COLLECT} {{none}}", option, "At temperature 0") for option in ("--top-p 0.5", "--seed 1")),
    *((f"{COLLECT} openai:m", option, "Without a local model") for option in ("--batch-size 2", "--dtype float32")),
    (f"{COLLECT} {{none}} --no-chat", "--system x", "Where there is no chat"),
    (f"{COLLECT} openai:m --raw", "--system x", "Where there is no chat"),
    *((f"{COLLECT} {{none}}", option, "Without --dataset") for option in ("--dataset-config x", "--split test")),
    ("court collect --dataset {saved} -o {new} -m {none}", "--dataset-config x", "data set that was saved to a folder"),
    *((f"{COLLECT} {{none}}", option, "Without --checker tests") for option in CODE),
    *(("court label likelihood {file} -o {new} --target {none} --draft {none} --label-threshold 1 --given", option,
       "With --given") for option in ("--max-new-tokens 9", "--batch-size 2")),
    ("court annotate {file} -o {new} --target {none}", "--draft {none}", "Without --judge"),
    ("court annotate {file} -o {new} --target {none} --judge {judge}", "--draft {none}", "reads the target alone"),
    ("court check {file}", "--overwrite", "Without --out"),
]  # fmt: skip


@pytest.fixture
def places(head: JudgeHead, tmp_path: Path) -> dict[str, Path]:
    head.save_pretrained(tmp_path / "judge")
    write_cases(tmp_path / "in.jsonl", [Case(question="q", answer="a", reference="1")])
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").touch()
    names = {"none": "none", "judge": "judge", "file": "in.jsonl", "new": "new", "saved": "saved"}
    return {name: tmp_path / file for name, file in names.items()}


@pytest.mark.parametrize(("command", "option", "where"), CASES, ids=[f"{c.split()[0]} {o}" for c, o, _ in CASES])
def test_it_is_refused_with_the_remedy(
    run: Run, places: dict[str, Path], tmp_path: Path, command: str, option: str, where: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run(*(part.format(**places) for part in f"{command} {option}".split()))
    is_one_sentence(result, where)
    assert f"there is no use for {option.split()[0]}; " in result[2]
    assert result[2].rstrip().endswith(" out.")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("--template", "{a}", "--prompt-field", "b"), "the field b would be ignored"),
        (("--reference-field", "a", "--reference-template", "{b}"), "not both"),
    ],
)
def test_a_field_that_a_template_leaves_out(
    run: Run, places: dict[str, Path], args: tuple[str, ...], phrase: str
) -> None:
    is_one_sentence(run("court", "collect", places["file"], "-o", places["new"], "-m", places["none"], *args), phrase)


def test_several_are_named_together(run: Run, places: dict[str, Path]) -> None:
    told = run("generate", "nowhere", "one", "--judge", places["judge"], "--threshold", 0.5)
    is_one_sentence(
        told, "Without --draft there is no use for --judge and --threshold; give a draft model, or leave them"
    )
    told = run("generate", "nowhere", "one", "--temperature", 0, "--seed", 1, "--top-k", 2)
    assert told == (
        2, "",
        "Error: At temperature 0 there is no use for --top-k and --seed; give a --temperature, or leave them out.\n",
    )  # fmt: skip


@pytest.mark.parametrize("option", ["--chat", "--system"])
def test_a_model_without_a_template(run: Run, places: dict[str, Path], option: str) -> None:
    from tiny import llama, word_tokenizer

    llama(0).save_pretrained(places["none"])
    word_tokenizer(chat=False).save_pretrained(places["none"])
    more = ["x"] if option == "--system" else []
    is_one_sentence(run("generate", places["none"], "one", option, *more), f"no chat template; leave {option} out")


def test_flags_that_are_switched_off_and_defaults_are_no_matter(run: Run, folders: dict[str, Path]) -> None:
    args = ("generate", folders["target"], "one", "--no-chat", "--plain", "--max-new-tokens", 2)
    assert run(*args)[0] == 0
    assert run(*args, "--temperature", 0.5, "--seed", 1, "--top-k", 3)[0] == 0
