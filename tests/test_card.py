"""What a card says of measured results, and the files beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token
from transformers import LlamaForCausalLM

from judge_decoding import JudgeHead, save_head
from judge_decoding.core.results import ResultRow, Results
from samples import HOSTILE
from tiny import random_head

TARGET = ResultRow(
    name="target alone", rule="target alone", num_draft_tokens=0, lossless=True, answers=200, checked=200, right=150,
    accuracy=0.75, accuracy_low=0.686, accuracy_high=0.805, tokens_per_forward=1.0, tokens_per_second=40.2,
)  # fmt: skip
JUDGE = ResultRow(
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
    ResultRow(name=f"{rule} {length}", rule=rule, setting=setting, num_draft_tokens=length, answers=20,
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


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tested in test_report_plots.py, and take longer than all else."""
    monkeypatch.setattr("judge_decoding.report.card_files.pareto_svg", lambda _: "<svg />")


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
    save_head(head, tmp_path)
    card = card_of(tmp_path)
    assert section(card, "Results").startswith("\n**Nothing has been measured with this head yet.**")
    assert ModelCard(card).data.to_dict() == {
        "library_name": "judge-decoding", "tags": ["judge-decoding", "speculative-decoding", "custom_generate"],
    }  # fmt: skip
    assert not list(tmp_path.glob("results*"))


def test_every_figure_is_in_the_table(head: JudgeHead, tmp_path: Path) -> None:
    save_head(head, tmp_path, results=FULL)
    told = section(card_of(tmp_path), "Results")
    for line in (
        "### gsm8k",
        "| method | accuracy [95%] | difference from target (pp) [95%] | McNemar p | non-inferiority | draft length "
        "| accepted draft tokens per round | mean acceptance length | tokens per second | speed-up [95%] |",
        "| target alone | 75.0% [68.6, 80.5] | - | - | - | - | - | 1.00 | 40 | - |",
        "| judge 0.9 | 71.0% [64.4, 76.9] | -4.0 [-9.1, +1.0] | 0.13 | inconclusive | 16 | 5.13 | 6.05 | 162 "
        "| 4.02x [3.80, 4.25] |",
        "| judge 0.5 | 55.0% [48.0, 62.0] | -20.0 [-26.0, -14.0] | < 0.001 | worse | 16 | 5.13 | 6.05 | 162 "
        "| 4.02x [3.80, 4.25] |",
        "* Margin of non-inferiority: 2 points",
        "* Questions: 200 of `openai/gsm8k, main, test`, SHA-256 `0123456789ab`…",
        "* Target: `org/Target`",
        "* Draft: `org/Draft`",
        "* Judge: `me/judge` (by name; the file has no hash of its weights)",
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
    bare = ResultRow(name="a", rule="exact", num_draft_tokens=4, tokens_per_forward=2.5)
    graded = bare.model_copy(update={"name": "b", "grade": 7.25, "grade_low": 7.0, "grade_high": 7.5})
    save_head(head, tmp_path, results=[Results(rows=(bare,)), Results(rows=(bare, graded))])
    told = section(card_of(tmp_path), "Results").splitlines()
    assert "| method | draft length | mean acceptance length |" in told
    assert "| method | grade [95%] | draft length | mean acceptance length |" in told
    assert "| b | 7.25 [7.00, 7.50] | 4 | 2.50 |" in told
    assert "### A task without a name" in told
    assert not list(tmp_path.glob("*.svg"))  # there is no accuracy


def test_what_loses_nothing_by_design_need_not_show_it(head: JudgeHead, tmp_path: Path) -> None:
    exact = JUDGE.model_copy(update={"name": "exact", "rule": "exact", "lossless": True, "difference": 0.0})
    matched = exact.model_copy(update={"name": "typical, matched", "rule": "typical, matched"})
    save_head(head, tmp_path, results=changed(rows=(TARGET, exact, matched)))
    assert "| exact | 71.0% [64.4, 76.9] | +0.0 [-9.1, +1.0] | 0.13 | lossless | 16 |" in card_of(tmp_path)
    # The target's truncated distribution is another one.
    assert "| typical, matched | 71.0% [64.4, 76.9] | +0.0 [-9.1, +1.0] | 0.13 | inconclusive | 16 |" in card_of(
        tmp_path
    )


def test_the_card_tells_limits_and_how_to_serve(head: JudgeHead, tmp_path: Path) -> None:
    save_head(head, tmp_path)
    card = card_of(tmp_path)
    assert "33 numbers" in card
    assert section(card, "Limits").startswith("\nJudge decoding gives up the guarantee")
    assert '"judge": {"head": "THIS-REPOSITORY"}' in card


def test_the_hub_reads_what_was_measured(head: JudgeHead, tmp_path: Path) -> None:
    arithmetic = changed(task="arithmetic(family=comparison)", data="problems.jsonl")
    save_head(head, tmp_path, results=[FULL, arithmetic])
    data: Any = ModelCard(card_of(tmp_path)).data
    assert data.model_name == "Judge head for a model without a name"
    found = {(one.dataset_type, one.metric_name): one for one in data.eval_results}
    # Of the two settings of the judge in two files; the target alone is no result of this head.
    assert len(found) == len(data.eval_results) == 2 * 2 * 4
    one = found["openai/gsm8k", "accuracy, judge 0.9"]
    assert (one.task_type, one.task_name, one.metric_type) == ("text-generation", "gsm8k", "accuracy")
    assert (one.dataset_config, one.dataset_split, one.dataset_name) == ("main", "test", "openai/gsm8k, main, test")
    assert (one.metric_value, one.metric_args) == (0.71, {"num_draft_tokens": 16, "temperature": 0.0})
    assert found["openai/gsm8k", "difference of accuracy from the target alone, judge 0.5"].metric_value == -0.2
    other = found["arithmetic(family=comparison)", "speed-up over the target alone, judge 0.9"]
    assert (other.metric_value, other.dataset_name, other.dataset_config) == (4.022, "problems.jsonl", None)


@pytest.mark.parametrize(("name", "told"), [("org/Model-1.0", True), ("/models/mine", False), ("mine", False)])
def test_only_a_name_of_the_hub_is_a_base_model(
    target: LlamaForCausalLM, tmp_path: Path, name: str, told: bool
) -> None:
    head = random_head(target)
    head.config.target.name_or_path = name
    save_head(head, tmp_path)
    assert ModelCard(card_of(tmp_path)).data.get("base_model") == (name if told else None)


# ---- out of domain


@pytest.mark.parametrize(
    ("distances", "away"), [((1.2, 1.3, 0.5), True), ((1.2, 0.5), False), ((), False), ((1.0, 1.0), False)]
)
def test_most_questions_unlike_the_training_data_are_out_of_domain(
    head: JudgeHead, tmp_path: Path, distances: tuple[float, ...], away: bool
) -> None:
    save_head(head, tmp_path, results=[changed(distances=distances), FULL])
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
    save_head(head, tmp_path, results=changed(distances=(2.0,), rows=(TARGET, bare)))
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
        save_head(head, tmp_path / folder, results=results)
        cards.append(card_of(tmp_path / folder))
    plain, hostile = map(parsed, cards)
    # As words are joined, a text that is escaped is one text.
    assert [token.type for token in hostile] == [token.type for token in plain]
    assert [token.tag for token in hostile] == [token.tag for token in plain]
    for token in hostile:
        assert not token.type.startswith("html")
        assert not str(token.attrs.get("href", "results")).startswith(("http", "java"))
    before: Any
    after: Any
    before, after = (ModelCard(card).data for card in cards)
    assert after.to_dict().keys() == before.to_dict().keys()
    assert len(after.eval_results) == len(before.eval_results)
    assert after.get("license") is None


@pytest.mark.parametrize("text", INJECTIONS)
def test_hostile_names_change_nothing_in_a_bare_card(target: LlamaForCausalLM, tmp_path: Path, text: str) -> None:
    for folder, name in (("plain", "name"), ("hostile", text)):
        everywhere(name, random_head(target))[0].save_pretrained(tmp_path / folder)
    plain, hostile = (card_of(tmp_path / folder) for folder in ("plain", "hostile"))
    kinds = [[(token.type, token.tag) for token in parsed(card)] for card in (plain, hostile)]
    assert kinds[0] == kinds[1]
    assert ModelCard(hostile).data.to_dict() == ModelCard(plain).data.to_dict()


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
    save_head(head, tmp_path)
    assert "## Calibration" in card_of(tmp_path)
