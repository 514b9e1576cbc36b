"""The command line as a user meets it: what it prints, and one sentence and exit code 2 for every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from commands import Run, is_one_sentence
from judge_decoding import Case, JudgeHead, available_rules, write_cases
from judge_decoding.cli import generate
from judge_decoding.cli.rule_docs import built_in, texts
from judge_decoding.judge.config import has_sound_weights
from judge_decoding.names import EMBEDDED
from judge_decoding.rules.spelling import described
from tiny import WORDS, llama, word_tokenizer


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers in which "bad" is the error."""
    path = tmp_path_factory.mktemp("court") / "cases.jsonl"
    words = "one two three four five six seven eight nine ten".split()
    write_cases(
        path,
        [
            case
            for a in words
            for b in words
            for case in (
                Case(question=f"{a} {b}", answer=" good cat"),
                Case(question=f"{a} {b}", answer=" bad dog", errors=((1, 4),)),
            )
        ],
    )
    return path


def test_generate_plain_is_the_text_alone(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    args = ("generate", folders["target"], "one two", "--no-chat", "--max-new-tokens", 12, "--draft", folders["draft"])
    code, out, _ = run(*args, "--plain", "--out", record)
    assert code == 0
    written = json.loads(record.read_text())
    assert out == written["text"] + "\n"
    assert sum(len(r["token_ids"]) for r in written["rounds"]) == written["stats"]["tokens"]
    alone = run("generate", folders["target"], "one two", "--no-chat", "--max-new-tokens", 12, "--plain")
    assert alone[1] == out


def test_generate_in_a_pipe_shows_figures_and_no_legend(run: Run, folders: dict[str, Path]) -> None:
    asked = (
        "generate", "--target", folders["target"], "--draft", folders["draft"], "--judge", folders["judge"],
        "--threshold", 0, "--max-new-tokens", 12,
    )  # fmt: skip
    code, out, err = run(*asked, stdin="one two three")
    assert code == 0
    assert err.startswith("Using the chat template; --no-chat turns it off.\n")
    assert all(word in out for word in ("mean acceptance length", "accepted draft tokens"))
    assert "rescued" not in out
    written = json.loads(run(*asked, "--json", stdin="one two three")[1])
    assert out.startswith(written["text"])
    assert written["stats"]["rescued"] > 0


def test_generate_by_a_rule(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    pair = ("generate", folders["target"], "one two", "--draft", folders["draft"], "--no-chat", "--max-new-tokens", 12)
    exact = run(*pair, "--plain")[1]
    assert run(*pair, "--plain", "--rule", "top_k(k=1) | kl_judge(tau=0)") == (0, exact, "")
    code, _, _ = run(*pair, "--judge", folders["judge"], "--rule", "judge(threshold=0)", "--out", tmp_path / "record")
    assert code == 0
    assert json.loads((tmp_path / "record").read_text())["stats"]["correction"] == 0


def test_rules_are_listed(run: Run) -> None:
    code, out, _ = run("rules")
    assert code == 0
    assert "threshold=the head's" in out
    assert all(name in out for name in available_rules())
    assert built_in() == [described(rule) | texts(rule.__doc__ or "") for rule in available_rules().values()]
    assert json.loads(run("rules", "top_k", "--json")[1]) == built_in()[3]
    code, out, _ = run("rules", "typical")
    assert (code, out.count("arXiv 2401.10774")) == (0, 1)
    assert "epsilon=1, delta=1e+09, where it equals exact verification" in out
    is_one_sentence(run("rules", "tpo_k"), "There is no rule tpo_k (did you mean top_k?)")
    rows = {row["name"]: row for row in json.loads(run("rules", "--json")[1])}
    assert list(rows) == list(available_rules())
    assert rows["top_k"]["required"] == ["k"]
    assert rows["fuzzy"]["parameters"] == {"threshold": 0.1, "divergence": "js"}
    assert rows["fuzzy"]["types"] == {"threshold": "float", "divergence": "str"}
    assert rows["fuzzy"]["strict"] == {"threshold": 0.0}
    assert rows["fuzzy"]["needs"] == ["draft probabilities"]
    assert [name for name, row in rows.items() if row["lossless"]] == ["exact", "block"]
    assert rows["judge"]["needs"] == ["judge head"]
    assert all(row["summary"].endswith(".") for row in rows.values())


@pytest.mark.slow
def test_train_on_both_models(run: Run, folders: dict[str, Path], cases: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "train",
        folders["target"],
        cases,
        "-o",
        tmp_path / "head",
        "--draft",
        folders["draft"],
        "--draft-states",
        "--json",
    )
    assert code == 0, err
    assert json.loads(out)["draft"]["name_or_path"] == str(folders["draft"])
    assert "last hidden state of both" in run("info", tmp_path / "head")[1]
    pair = ("generate", folders["target"], "one two", "--draft", folders["draft"], "--max-new-tokens", 12, "--plain")
    assert run(*pair, "--judge", tmp_path / "head")[0] == 0


def test_generate_with_prompt_lookup(run: Run, folders: dict[str, Path]) -> None:
    assert run("generate", folders["target"], "one two one two", "--draft", "prompt-lookup", "--plain")[0] == 0


def test_generate_translates_a_draft_of_other_words(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    other = word_tokenizer(WORDS[::-1])
    llama(5, vocab_size=len(other)).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    args = ("generate", folders["target"], "one two", "--no-chat", "--plain", "--max-new-tokens", 12)
    code, out, err = run(*args, "--draft", tmp_path / "other", "--translate", "--out", tmp_path / "record.json")
    assert code == 0, err
    assert out == run(*args)[1]
    assert json.loads((tmp_path / "record.json").read_text())["stats"]["drafted"] > 0


def test_train_then_info(run: Run, folders: dict[str, Path], cases: Path, tmp_path: Path) -> None:
    code, out, err = run("train", folders["target"], cases, "-o", tmp_path / "head", "--json", "--no-plots")
    assert code == 0, err
    config = json.loads(out)
    assert config["data"]["cases"] == 200
    assert config["labels"].endswith("ignore")
    files = {"config.json", "model.safetensors", "README.md", "custom_generate", "run.yaml"}
    assert {p.name for p in (tmp_path / "head").iterdir()} == files
    code, out, _ = run("info", tmp_path / "head", "--target", folders["target"])
    assert code == 0
    assert "yes" in out
    assert "after the final norm" in out
    assert json.loads(run("info", tmp_path / "head", "--json")[1]) == config


def test_the_embedded_head_goes_by_its_name(run: Run) -> None:
    lines = run("info", "reference")[1].splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["head", "reference"], ["target", "reference"]]


def test_a_prompt_is_not_waited_for_at_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was meant as the prompt is taken as the target; the sentence has it."""
    monkeypatch.setattr(generate, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    is_one_sentence(run("generate", "Why is the sky blue?"), "no prompt for the target Why is the sky blue?;")


def test_version_and_help(run: Run) -> None:
    assert run("--version")[1].startswith("judge-decoding ")
    code, out, _ = run("--help")
    assert code == 0
    assert all(name in out for name in ("demo", "generate", "train", "info", "rules"))


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("{target}", " "), "prompt is empty"),
        (("{target}", "one " * 600, "--no-chat"), "shorten the prompt"),
        (("{target}", "one", "--draft", "{other_words}"), "different vocabularies"),
        (("{target}", "one", "--threshold", "0.5"), "needs a judge"),
        (("{missing}", "one", "--rule", "topk(k=3)"), "no rule topk (did you mean top_k?)"),
        (("{target}", "one", "--rule", "judge"), "needs a judge head and there is none; give one (on the command line"),
        (("{target}", "one", "--judge", "{judge}", "--rule", "exact", "--threshold", "1"), "not both"),
        (("{target}", "one one", "--no-chat", "--draft", "prompt-lookup", "--rule", "kl_judge"), "use a draft model"),
    ],
)
def test_what_a_user_can_do_wrong_with_generate(  # the rest stands in bad_inputs
    run: Run, args: tuple[str, ...], phrase: str, folders: dict[str, Path], tmp_path: Path, target: LlamaForCausalLM
) -> None:
    places = dict(folders, missing=tmp_path / "nothing", other_words=tmp_path / "other")
    if "{other_words}" in args:
        target.save_pretrained(places["other_words"])
        word_tokenizer(["other", "words"]).save_pretrained(places["other_words"])
    before = sorted(tmp_path.rglob("*"))
    is_one_sentence(run("generate", *(arg.format(**places) for arg in args)), phrase)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (None, "Cannot read the data set"),
        ("", "has no cases"),
        ('{"question": "one", "answer": " two"}\n{"question": 3}\n', "line 2 is not a case"),
        ('{"question": "one", "answer": " two"}\n', "correct and wrong tokens"),
        ('{"question": "one", "answer": " two", "errors": [[0, 99]]}\n', "outside the answer"),
    ],
)
def test_what_a_user_can_do_wrong_with_train(
    run: Run, content: str | None, phrase: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cases.jsonl"
    if content is not None:
        path.write_text(content)
    is_one_sentence(run("train", folders["target"], path, "-o", tmp_path / "head"), phrase)
    assert not (tmp_path / "head").exists()


def test_train_does_not_start_what_it_cannot_save(
    run: Run, folders: dict[str, Path], cases: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    is_one_sentence(run("train", folders["target"], cases, "-o", tmp_path / "file"), "give a folder")


def test_a_copy_without_the_reference_pair(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "target", tmp_path / "target")
    is_one_sentence(run("demo", "--limit", "1"), "not in this copy")
    is_one_sentence(run("generate", "reference", "one"), "not in this copy")


def test_info_reads_a_sound_head_without_loading_it(
    run: Run, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (EMBEDDED["judge"], folders["judge"]):
        loaded = JudgeHead.from_pretrained(place)
        assert {name: tuple(one.shape) for name, one in loaded.state_dict().items()} == loaded.config.weight_shapes
        with monkeypatch.context() as patch:
            patch.setattr(JudgeHead, "from_pretrained", None)
            code, out, _ = run("info", place, "--json")
        assert code == 0
        assert json.loads(out) == loaded.config.model_dump(mode="json")
    shutil.copytree(folders["judge"], tmp_path, dirs_exist_ok=True)
    head = JudgeHead.from_pretrained(tmp_path).bfloat16()
    head.save_pretrained(tmp_path)
    assert not has_sound_weights(tmp_path, head.config)  # by its own means; loaded, it is sound
    assert run("info", tmp_path)[0] == 0


def test_a_model_cannot_steer_the_terminal() -> None:
    from judge_decoding.visible import shown

    assert shown("a\x1b[31mb\x07\n") == "a\\x1b[31mb\\x07\n"


def test_a_page_escapes_what_a_model_wrote() -> None:
    from judge_decoding.core.results import ResultRow
    from judge_decoding.core.rounds import Cause
    from judge_decoding.report.page import comparison_page
    from judge_decoding.report.verdicts import ShownRound, ShownToken

    evil = '"><script>alert(1)</script>'
    row = ResultRow(
        name=evil, rule="judge", num_draft_tokens=1, accuracy=1.0, accuracy_low=1.0, accuracy_high=1.0,
        accepted_per_round=1.0, tokens_per_forward=1.0, tokens_per_second=1.0, speedup=1.0, mcnemar_p=1.0,
    )  # fmt: skip
    rounds = [ShownRound((ShownToken(evil, Cause.RESCUED, 0.5, evil),), evil, 1)]
    page = comparison_page([row], {"fact": evil}, evil, rounds)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") == 7  # title, table, bar, fact, question, text, own choice, rejected


def test_the_tokenizer_fixture_has_the_words_the_cases_use(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.unk_token_id not in tokenizer("one two good cat bad dog")["input_ids"]


def test_generate_takes_guards_draft_lengths_and_stop_strings(
    run: Run, folders: dict[str, Path], tmp_path: Path
) -> None:
    record = tmp_path / "record.json"
    args: tuple[object, ...] = (
        "generate",
        folders["target"],
        "red blue",
        "--draft",
        folders["draft"],
        "--judge",
        folders["judge"],
    )
    args += ("--threshold", 0, "--no-chat", "--plain", "--out", record, "--max-new-tokens", 60, "--overwrite")
    assert run(*args)[0] == 0
    free = json.loads(record.read_text())
    rescued = free["stats"]["rescued"]
    assert rescued > 1
    assert free["stats"]["rescued_by"] == {"judge": rescued}
    assert run(*args, "--guard", "budget(tokens=0)", "--draft-schedule", "heuristic")[0] == 0
    guarded = json.loads(record.read_text())
    assert guarded["stats"]["rescued"] == 0
    assert len({len(event["draft_ids"]) for event in guarded["rounds"]}) > 1
    stop = free["text"].split()[2]
    assert run(*args, "--stop", stop)[0] == 0
    assert json.loads(record.read_text())["text"].endswith(stop)


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        (("--guard", "bugdet(tokens=1)"), "did you mean budget"),
        (("--guard", "budget(tokens=1)", "--guard", "budget(tokens=2)"), "given twice"),
        (("--draft-schedule", "nonsense"), "no draft schedule nonsense"),
        (("--stop", ""), "stop string is empty"),
    ],
)
def test_generate_refuses_bad_options(run: Run, folders: dict[str, Path], more: tuple[str, ...], phrase: str) -> None:
    pair = ("generate", folders["target"], "one", "--draft", "prompt-lookup", "--rule", "top_k(k=2)", "--no-chat")
    is_one_sentence(run(*pair, *more), phrase)
