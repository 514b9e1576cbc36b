"""What a card says of measured results, and the files beside it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token
from transformers import LlamaForCausalLM

from commands import Run, ends_in_one_sentence, is_one_sentence
from judge_decoding import JudgeDecodingError, JudgeHead
from judge_decoding.evaluation.rows import Results, Row
from judge_decoding.judge import head as module
from judge_decoding.report import head_pictures
from samples import HOSTILE
from tiny import llama, random_head

TARGET = Row(
    name="target alone", rule="target alone", num_draft_tokens=0, lossless=True, answers=200, checked=200, right=150,
    accuracy=0.75, accuracy_low=0.686, accuracy_high=0.805, tokens_per_forward=1.0, tokens_per_second=40.2,
)  # fmt: skip
JUDGE = Row(
    name="judge 0.9", rule="judge", setting="0.9", num_draft_tokens=16, answers=200, checked=200, right=142,
    accuracy=0.71, accuracy_low=0.6437, accuracy_high=0.7687, difference=-0.04, difference_low=-0.0912,
    difference_high=0.0104, mcnemar_p=0.1338, non_inferior=False, accepted_per_round=5.126, tokens_per_forward=6.05,
    tokens_per_second=161.7, speedup=4.022, speedup_low=3.8, speedup_high=4.25,
)  # fmt: skip
FAST = JUDGE.model_copy(
    update={
        "name": "judge 0.5", "setting": "0.5", "difference": -0.2, "difference_low": -0.26, "difference_high": -0.14,
        "accuracy": 0.55, "accuracy_low": 0.48, "accuracy_high": 0.62, "mcnemar_p": 1e-7, "non_inferior": True,
    }
)  # fmt: skip
TUNING = tuple(
    Row(name=f"{rule} {length}", rule=rule, setting=setting, num_draft_tokens=length, answers=20,
        tokens_per_forward=2.0, tokens_per_second=100.4 + length)
    for rule, setting, lengths in (("exact", "", (4, 8)), ("judge", "0.9", (8, 16)))
    for length in lengths
)  # fmt: skip
FULL = Results(
    task="gsm8k", data="openai/gsm8k, main, test", data_hash="0123456789abcdef", items=200, target="org/Target",
    draft="org/Draft", judge="me/judge", max_new_tokens=512, chat=True, margin=0.02, rows=(TARGET, JUDGE, FAST),
    tuning=TUNING, distances=(0.5, 0.9, 1.0, 1.1), machine="one GPU, 16 cores", versions={"torch": "2.13.0"},
    command=("judge-decoding", "sweep", "org/Target", "--prompt", "two words"),
)  # fmt: skip


def changed(**fields: Any) -> Results:
    return FULL.model_copy(update=fields)


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def parsed(card: str) -> list[Token]:
    """The card behind its metadata, as a reader of Markdown sees it, what is in its lines included."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [one for token in tokens for one in (token, *(token.children or ()))]


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0]


# ---- what it says


def test_without_results_it_says_that_nothing_was_measured(head: JudgeHead, tmp_path: Path) -> None:
    head.save_pretrained(tmp_path)
    card = card_of(tmp_path)
    assert section(card, "Results").startswith("\n**Nothing has been measured with this head yet.**")
    assert ModelCard(card).data.to_dict() == {
        "library_name": "judge-decoding", "tags": ["judge-decoding", "speculative-decoding", "custom_generate"],
    }  # fmt: skip
    assert not list(tmp_path.glob("results*"))


def test_every_figure_is_in_the_table(head: JudgeHead, tmp_path: Path) -> None:
    head.save_pretrained(tmp_path, results=FULL)
    told = section(card_of(tmp_path), "Results")
    for line in (
        "### gsm8k",
        "| method | draft length | accuracy | difference in points | McNemar p | worse by at most 2 points "
        "| accepted draft tokens per round | tokens per target forward | tokens per second | speed-up |",
        "| target alone | - | 75.0% [68.6, 80.5] | - | - | - | - | 1.00 | 40 | - |",
        "| judge 0.9 | 16 | 71.0% [64.4, 76.9] | -4.0 [-9.1, +1.0] | 0.13 | not shown | 5.13 | 6.05 | 162 "
        "| 4.02x [3.80, 4.25] |",
        "| judge 0.5 | 16 | 55.0% [48.0, 62.0] | -20.0 [-26.0, -14.0] | < 0.001 | shown | 5.13 | 6.05 | 162 "
        "| 4.02x [3.80, 4.25] |",
        "* Questions: 200 of `openai/gsm8k, main, test`, SHA-256 `0123456789ab`…",
        "* Target: `org/Target`",
        "* Draft: `org/Draft`",
        "* Judge: `me/judge` (by its name; the file does not tell its weights)",
        "* Answers: temperature 0, 512 new tokens at most, with the chat template",
        "* Unlike the training questions (distance above 1): 1 of 4",
        "* Machine: one GPU, 16 cores",
        "* Versions: torch 2.13.0",
        "* Draft lengths were chosen on 20 other questions, see below",
        "| method | 4 | 8 | 16 |",
        "| exact | 104 | 108 | - |",
        "| judge 0.9 | - | 108 | 116 |",
        "judge-decoding sweep org/Target --prompt 'two words'",
        "All figures: [results.json](results.json)",
    ):
        assert line in told.splitlines()
    assert "out of domain" not in card_of(tmp_path).lower()


def test_what_is_not_known_has_no_column(head: JudgeHead, tmp_path: Path) -> None:
    bare = Row(name="a", rule="exact", num_draft_tokens=4, tokens_per_forward=2.5)
    graded = bare.model_copy(update={"name": "b", "grade": 7.25, "grade_low": 7.0, "grade_high": 7.5, "temperature": 1})
    head.save_pretrained(tmp_path, results=[Results(rows=(bare,)), Results(rows=(bare, graded))])
    told = section(card_of(tmp_path), "Results").splitlines()
    assert "| method | draft length | tokens per target forward |" in told
    assert "| method | draft length | temperature | grade | tokens per target forward |" in told
    assert "| b | 4 | 1 | 7.25 [7.00, 7.50] | 2.50 |" in told
    assert "### A task without a name" in told
    assert not list(tmp_path.glob("*.svg"))  # there is no accuracy


def test_what_loses_nothing_by_design_need_not_show_it(head: JudgeHead, tmp_path: Path) -> None:
    exact = JUDGE.model_copy(update={"name": "exact", "rule": "exact", "lossless": True, "difference": 0.0})
    head.save_pretrained(tmp_path, results=changed(rows=(TARGET, exact)))
    assert "| exact | 16 | 71.0% [64.4, 76.9] | +0.0 [-9.1, +1.0] | 0.13 | lossless |" in card_of(tmp_path)


def test_the_hub_reads_what_was_measured(head: JudgeHead, tmp_path: Path) -> None:
    arithmetic = changed(task="arithmetic(family=comparison)", data="problems.jsonl")
    head.save_pretrained(tmp_path, results=[FULL, arithmetic])
    data = ModelCard(card_of(tmp_path)).data
    assert data.model_name == "Judge head for a model without a name"
    found = {(one.dataset_type, one.metric_name): one for one in data.eval_results}
    # Of the two settings of the judge in two files; the target alone is no result of this head.
    assert len(found) == len(data.eval_results) == 2 * 2 * 4
    one = found["openai/gsm8k", "accuracy, judge 0.9"]
    assert (one.task_type, one.task_name, one.metric_type) == ("text-generation", "gsm8k", "accuracy")
    assert (one.dataset_config, one.dataset_split, one.dataset_name) == ("main", "test", "openai/gsm8k, main, test")
    assert (one.metric_value, one.metric_args) == (0.71, {"num_draft_tokens": 16, "temperature": 0.0})
    assert found["openai/gsm8k", "accuracy less that of the target alone, judge 0.5"].metric_value == -0.2
    other = found["arithmetic(family=comparison)", "speed-up over the target alone, judge 0.9"]
    assert (other.metric_value, other.dataset_name, other.dataset_config) == (4.022, "problems.jsonl", None)


@pytest.mark.parametrize(("name", "told"), [("org/Model-1.0", True), ("/models/mine", False), ("mine", False)])
def test_only_a_name_of_the_hub_is_a_base_model(
    target: LlamaForCausalLM, tmp_path: Path, name: str, told: bool
) -> None:
    head = random_head(target)
    head.config.target.name_or_path = name
    head.save_pretrained(tmp_path)
    assert ModelCard(card_of(tmp_path)).data.get("base_model") == (name if told else None)


# ---- out of domain


@pytest.mark.parametrize(
    ("distances", "away"), [((1.2, 1.3, 0.5), True), ((1.2, 0.5), False), ((), False), ((1.0, 1.0), False)]
)
def test_most_questions_unlike_the_training_data_are_out_of_domain(
    head: JudgeHead, tmp_path: Path, distances: tuple[float, ...], away: bool
) -> None:
    head.save_pretrained(tmp_path, results=[changed(distances=distances), FULL])
    card = card_of(tmp_path)
    assert ("### gsm8k, out of domain\n" in card) == away
    assert "### gsm8k\n" in card
    expected = (
        "**Out of domain:** 2 of 3 questions of gsm8k are unlike the training questions (distance above 1). "
        "There judge 0.5, the worst of 2 settings, is right in 55.0% [48.0, 62.0] and the target alone in 75.0%: "
        "-20.0 [-26.0, -14.0] points."
    )
    assert (expected in section(card, "Limits").splitlines()) == away


def test_out_of_domain_without_answers_to_check(head: JudgeHead, tmp_path: Path) -> None:
    bare = JUDGE.model_copy(update={"difference": None})
    head.save_pretrained(tmp_path, results=changed(distances=(2.0,), rows=(TARGET, bare)))
    assert "What the head costs there is not known." in section(card_of(tmp_path), "Limits")


# ---- names that are not what they seem

INJECTIONS = [
    HOSTILE,
    "a | b\n| --- |\n\n# Title\n---\nlicense: mit\nx: |",
    "---\nbase_model: org/taken\n---",
    "```\n</pre>\n```\n<b>x</b> **y** [z](http://evil) ![i](http://evil/i.png) <http://evil>",
    "': [1, 2]\n\"{&a *a}: !!python/object:os.system x",
    "- [ ] $x$ ~~y~~ :warning: &lt; \\",
]


def everywhere(text: str, head: JudgeHead) -> tuple[JudgeHead, Results]:
    """A head and results in which every name is ``text``."""
    rows = tuple(row.model_copy(update={"name": text, "setting": text}) for row in (TARGET, JUDGE, FAST))
    tuning = tuple(row.model_copy(update={"setting": text, "name": text}) for row in TUNING)
    results = FULL.model_copy(
        update={
            **dict.fromkeys(("task", "data", "data_hash", "target", "draft", "judge", "machine"), text),
            "rows": rows, "tuning": tuning, "versions": {text: text}, "command": (text, text), "distances": (2.0,),
        }
    )  # fmt: skip
    head.config = head.config.model_copy(
        update={
            "labels": text, "data": {text: text}, "target": head.config.target.model_copy(
                update={"name_or_path": text, "architecture": text}),
            "calibration": {
                text: text, "out_of_fold": text, "warnings": [text], "comparison": [{"detector": text, "auc": text}],
            },
        }
    )  # fmt: skip
    return head, results


@pytest.mark.parametrize("text", INJECTIONS)
def test_hostile_names_change_nothing_but_words(target: LlamaForCausalLM, tmp_path: Path, text: str) -> None:
    cards = []
    for folder, name in (("plain", "name"), ("hostile", text)):
        head, results = everywhere(name, random_head(target))
        head.save_pretrained(tmp_path / folder, results=results)
        cards.append(card_of(tmp_path / folder))
    plain, hostile = map(parsed, cards)
    # As words are joined, a text that is escaped is one text.
    assert [token.type for token in hostile] == [token.type for token in plain]
    assert [token.tag for token in hostile] == [token.tag for token in plain]
    for token in hostile:
        assert not token.type.startswith("html")
        assert not str(token.attrs.get("href", "results")).startswith(("http", "java"))
    assert ModelCard(cards[1]).data.to_dict().keys() == ModelCard(cards[0]).data.to_dict().keys()
    assert len(ModelCard(cards[1]).data.eval_results) == len(ModelCard(cards[0]).data.eval_results)
    assert ModelCard(cards[1]).data.get("license") is None


@pytest.mark.parametrize(
    "calibration",
    [
        {"warnings": "x", "comparison": "y", "curve": {"a": 1}, "learning_curve": 3},
        {"warnings": [1, None], "comparison": [1, [], None, {}], "curve": [{"threshold": {}}], "out_of_fold": []},
    ],
)
def test_odd_figures_make_no_traceback(target: LlamaForCausalLM, tmp_path: Path, calibration: dict[str, Any]) -> None:
    head = random_head(target)
    head.config.calibration = calibration
    head.save_pretrained(tmp_path)
    assert "## Calibration" in card_of(tmp_path)


# ---- files


def test_results_and_plot_are_kept_when_the_head_is_saved_again(head: JudgeHead, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({"made": "today"} | json.loads(FULL.model_dump_json())), encoding="utf-8")
    head.save_pretrained(tmp_path / "a", results=[file, FULL, str(file)])
    assert (tmp_path / "a" / "results.json").read_bytes() == file.read_bytes()
    assert (tmp_path / "a" / "results-3.json").read_bytes() == file.read_bytes()
    assert Results.model_validate_json((tmp_path / "a" / "results-2.json").read_bytes()) == FULL
    JudgeHead.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "README.md", "config.json", "custom_generate", "model.safetensors", "pareto-2.svg", "pareto-3.svg",
        "pareto.svg", "results-2.json", "results-3.json", "results.json",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == names
    for name in set(names) - {"custom_generate"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    pictures = [token.attrs["src"] for token in parsed(card_of(tmp_path / "b")) if token.type == "image"]
    assert pictures == ["pareto.svg", "pareto-2.svg", "pareto-3.svg"]
    assert (tmp_path / "b" / "pareto.svg").read_text().startswith("<svg ")


def test_ten_results_keep_their_order(head: JudgeHead, tmp_path: Path) -> None:
    speeds = (TARGET.model_copy(update={"accuracy": None}),)
    head.save_pretrained(tmp_path, results=[changed(task=f"task{place}", rows=speeds) for place in range(1, 12)])
    card = card_of(tmp_path)
    JudgeHead.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert card_of(tmp_path) == card
    assert re.findall(r"### (task\d+)", card) == [f"task{place}" for place in range(1, 12)]


def test_another_heads_results_do_not_stay(head: JudgeHead, tmp_path: Path) -> None:
    head.save_pretrained(tmp_path, results=[FULL, FULL])
    (tmp_path / "results-final.json").write_text("mine")
    head.save_pretrained(tmp_path, results=[FULL])
    left = {path.name for path in tmp_path.glob("[rp]*.*")}
    assert left == {"results.json", "pareto.svg", "results-final.json"}
    random_head(llama(0), seed=9).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("[rp]*.*")} == {"results-final.json"}
    assert "Nothing has been measured" in card_of(tmp_path)


def test_results_are_of_the_head_with_these_weights(head: JudgeHead, target: LlamaForCausalLM, tmp_path: Path) -> None:
    other = random_head(target, seed=5)
    assert other.weights_hash != head.weights_hash
    own = changed(judge="/elsewhere/judge", judge_hash=head.weights_hash)
    head.save_pretrained(tmp_path / "a", results=own)
    assert "* Judge: `/elsewhere/judge`\n" in card_of(tmp_path / "a")
    back = JudgeHead.from_pretrained(tmp_path / "a")
    back.config.threshold = 0.125
    assert back.weights_hash == head.weights_hash
    with pytest.raises(JudgeDecodingError, match=r"^These results are of another judge head, /elsewhere/judge, by its"):
        other.save_pretrained(tmp_path / "b", results=own)
    assert not (tmp_path / "b").exists()
    # What a head was loaded with is no longer true of it when its weights are others.
    back.linear.bias.add_(1.0)
    back.save_pretrained(tmp_path / "c")
    assert "Nothing has been measured" in card_of(tmp_path / "c")
    assert not (tmp_path / "c" / "results.json").exists()


def test_the_hash_is_of_weight_and_bias_alone(head: JudgeHead, target: LlamaForCausalLM) -> None:
    again = random_head(target)
    again.know(None)
    assert again.weights_hash == head.weights_hash
    assert re.fullmatch("[0-9a-f]{64}", head.weights_hash)
    again.linear.weight[0, 7] += 1e-3
    assert again.weights_hash != head.weights_hash


def test_bad_results_beside_a_head_are_no_matter_until_it_is_saved(head: JudgeHead, tmp_path: Path) -> None:
    head.save_pretrained(tmp_path)
    (tmp_path / "results.json").write_bytes(b"\xff")
    (tmp_path / "results-2.json").mkdir()
    back = JudgeHead.from_pretrained(tmp_path)
    with pytest.raises(JudgeDecodingError, match=r"results\.json has no results of evaluate or sweep"):
        back.save_pretrained(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    back.save_pretrained(tmp_path / "b", results=[])


def test_results_and_plots_go_to_the_hub(head: JudgeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None) -> None:
            pass

        def create_repo(self, repo_id: str, **options: object) -> str:
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, repo_id: str, folder_path: str, delete_patterns: list[str]) -> None:
            sent.update({path.name: path for path in Path(folder_path).iterdir()}, patterns=delete_patterns)
            sent["card"] = card_of(Path(folder_path))

    monkeypatch.setattr(module, "HfApi", Api)
    assert head.push_to_hub("me/judge", results=[FULL]) == "https://hub/me/judge"
    assert {"results.json", "pareto.svg", "README.md", "model.safetensors", "config.json"} <= set(sent)
    assert "### gsm8k" in sent["card"]
    assert sent["patterns"] == ["results.json", "results-*.json", "pareto.svg", "pareto-*.svg"]


# ---- the command


@pytest.fixture
def folder(head: JudgeHead, tmp_path: Path) -> Path:
    head.save_pretrained(tmp_path / "judge", {"roc.svg": "<svg/>"})
    return tmp_path / "judge"


def write(path: Path, results: Results) -> Path:
    path.write_text(results.model_dump_json(), encoding="utf-8")
    return path


def test_the_command_changes_the_card_alone(run: Run, folder: Path, tmp_path: Path) -> None:
    # A configuration as another version may have written it.
    config = json.dumps(json.loads((folder / "config.json").read_text()) | {"from_the_future": 1})
    (folder / "config.json").write_text(config)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    files = [write(tmp_path / f"{name}.json", changed(task=name)) for name in ("here", "there")]
    done = run("card", folder, "--results", files[0], "--results", files[1])
    assert done == (0, f"{folder / 'README.md'} is written, with 2 files of results.\n", "")
    for name in ("model.safetensors", "config.json", "roc.svg"):
        assert (folder / name).read_bytes() == before[name]
    card = card_of(folder)
    assert re.findall("### (.*here)\n", card) == ["here", "there"]
    assert "](roc.svg)" in card
    # Without results it keeps those that are there.
    assert run("card", folder)[1].endswith("with 2 files of results.\n")
    assert card_of(folder) == card
    assert run("card", folder, "--results", folder / "results-2.json")[0] == 0
    assert re.findall("### (.*here)\n", card_of(folder)) == ["there"]
    assert not (folder / "results-2.json").exists()


def test_a_head_without_results_says_so(run: Run, folder: Path) -> None:
    card = card_of(folder)
    assert run("card", folder) == (0, f"{folder / 'README.md'} is written, with no results.\n", "")
    assert card_of(folder) == card


@pytest.mark.parametrize(
    ("judge", "noted"), [("judge", False), ("/old/judge", False), ("me/judge", False), ("me/other", True), ("", True)]
)
def test_another_name_is_told_where_the_weights_are_not(
    run: Run, folder: Path, tmp_path: Path, head: JudgeHead, judge: str, noted: bool
) -> None:
    code, _, err = run("card", folder, "--results", write(tmp_path / "a.json", changed(judge=judge)))
    assert code == 0
    assert ("does not tell its weights; check that it is" in err) == noted
    sure = changed(judge=judge, judge_hash=head.weights_hash)
    assert run("card", folder, "--results", write(tmp_path / "a.json", sure))[2] == ""


def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.json", FULL), tmp_path / "bad.json"
    bad.write_text("{}")
    other = write(tmp_path / "other.json", changed(judge_hash="0" * 64))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    is_one_sentence(run("card", folder, "--results", good, "--results", bad), "has no results of evaluate or sweep")
    is_one_sentence(run("card", folder, "--results", good, "--results", other), "other.json are of another judge head")
    is_one_sentence(run("card", folder, "--results", tmp_path / "none.json"), "Cannot read the results")
    is_one_sentence(run("card", tmp_path / "none"), "is no folder")
    is_one_sentence(run("card", good), "is no folder")
    is_one_sentence(run("card", tmp_path), "Cannot read the judge head's configuration")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    shutil.copy(other, folder / "results.json")
    ends_in_one_sentence(run("card", folder), "of another judge head")


def test_without_matplotlib_there_is_a_note_and_no_plot(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(head_pictures, "can_draw", lambda: False)
    code, _, err = run("card", folder, "--results", write(tmp_path / "a.json", FULL))
    assert (code, err.count("\n")) == (0, 1)
    assert "needs matplotlib" in err
    assert not (folder / "pareto.svg").exists()
    assert "pareto" not in card_of(folder)


def test_the_embedded_head_goes_by_its_name(run: Run, tmp_path: Path) -> None:
    from judge_decoding.reference.pair import JUDGE as EMBEDDED

    shutil.copytree(EMBEDDED, tmp_path / EMBEDDED.name)
    done = run("card", tmp_path / EMBEDDED.name, "--results", write(tmp_path / "a.json", changed(judge="reference")))
    assert done[0] == 0
    assert done[2] == ""
    assert torch.equal(
        JudgeHead.from_pretrained(tmp_path / EMBEDDED.name).linear.weight,
        JudgeHead.from_pretrained(EMBEDDED).linear.weight,
    )
