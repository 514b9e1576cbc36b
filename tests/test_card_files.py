"""The files beside a card, and the command that writes them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from commands import Run, ends_in_one_sentence, is_one_sentence
from judge_decoding import JudgeDecodingError, JudgeHead, save_head
from judge_decoding.core.results import Results
from judge_decoding.report import head_pictures
from test_card import FULL, TARGET, card_of, changed, parsed
from tiny import llama, random_head


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tested in test_report_plots.py, and take longer than all else."""
    monkeypatch.setattr("judge_decoding.report.card_files.pareto_svg", lambda _: "<svg />")


def test_results_and_plot_are_kept_when_the_head_is_saved_again(head: JudgeHead, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps({"made": "today"} | json.loads(FULL.model_dump_json())), encoding="utf-8")
    save_head(head, tmp_path / "a", results=[file, FULL, str(file)])
    assert (tmp_path / "a" / "results.json").read_bytes() == file.read_bytes()
    assert (tmp_path / "a" / "results-3.json").read_bytes() == file.read_bytes()
    assert Results.model_validate_json((tmp_path / "a" / "results-2.json").read_bytes()) == FULL
    save_head(JudgeHead.from_pretrained(tmp_path / "a"), tmp_path / "b")
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
    assert (tmp_path / "b" / "pareto.svg").read_text() == "<svg />"


def test_ten_results_keep_their_order(head: JudgeHead, tmp_path: Path) -> None:
    speeds = (TARGET.model_copy(update={"accuracy": None}),)
    save_head(head, tmp_path, results=[changed(task=f"task{place}", rows=speeds) for place in range(1, 12)])
    card = card_of(tmp_path)
    save_head(JudgeHead.from_pretrained(tmp_path), tmp_path)
    assert card_of(tmp_path) == card
    assert re.findall(r"### (task\d+)", card) == [f"task{place}" for place in range(1, 12)]


def test_another_heads_results_do_not_stay(head: JudgeHead, tmp_path: Path) -> None:
    save_head(head, tmp_path, results=[FULL, FULL])
    (tmp_path / "results-final.json").write_text("mine")
    save_head(head, tmp_path, results=[FULL])
    left = {path.name for path in tmp_path.glob("[rp]*.*")}
    assert left == {"results.json", "pareto.svg", "results-final.json"}
    save_head(random_head(llama(0), seed=9), tmp_path)
    assert {path.name for path in tmp_path.glob("[rp]*.*")} == {"results-final.json"}
    assert "Nothing has been measured" in card_of(tmp_path)


def test_a_bare_save_leaves_no_figures_of_another_head(head: JudgeHead, tmp_path: Path) -> None:
    own = changed(judge_hash=head.weights_hash)
    save_head(head, tmp_path, {"roc.svg": "<svg/>"}, [changed(task="nameless"), own])
    full = card_of(tmp_path)
    back = JudgeHead.from_pretrained(tmp_path)
    back.save_pretrained(tmp_path)
    # Its own results are hours of work, and the full card comes back with them; plots are drawn again.
    assert {path.name for path in tmp_path.glob("*.*")} == {
        "README.md", "config.json", "model.safetensors", "results.json", "results-2.json",
    }  # fmt: skip
    assert "gsm8k" not in card_of(tmp_path)
    assert ".svg" not in card_of(tmp_path)
    save_head(back, tmp_path, {"roc.svg": "<svg/>"})
    assert card_of(tmp_path) == full
    assert (tmp_path / "pareto-2.svg").exists()
    random_head(llama(0), seed=9).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.*")} == {"README.md", "config.json", "model.safetensors"}


def test_results_that_tell_no_weights_are_of_those_beside_them(head: JudgeHead, tmp_path: Path) -> None:
    save_head(head, tmp_path / "a", results=FULL)
    back = JudgeHead.from_pretrained(tmp_path / "a")
    save_head(random_head(llama(0), seed=9), tmp_path / "a", results=changed(task="another's"))
    save_head(back, tmp_path / "b")
    assert not (tmp_path / "b" / "results.json").exists()
    back.save_pretrained(tmp_path / "a")
    assert not (tmp_path / "a" / "results.json").exists()


def test_results_are_of_the_head_with_these_weights(head: JudgeHead, target: LlamaForCausalLM, tmp_path: Path) -> None:
    other = random_head(target, seed=5)
    assert other.weights_hash != head.weights_hash
    own = changed(judge="/elsewhere/judge", judge_hash=head.weights_hash)
    save_head(head, tmp_path / "a", results=own)
    assert "* Judge: `/elsewhere/judge`\n" in card_of(tmp_path / "a")
    back = JudgeHead.from_pretrained(tmp_path / "a")
    back.config.threshold = 0.125
    assert back.weights_hash == head.weights_hash
    with pytest.raises(
        JudgeDecodingError, match=r"^These results belong to another judge head, /elsewhere/judge, by its"
    ):
        save_head(other, tmp_path / "b", results=own)
    assert not (tmp_path / "b").exists()
    # What a head was loaded with is no longer true of it when its weights are others.
    back.linear.bias.add_(1.0)
    save_head(back, tmp_path / "c")
    assert "Nothing has been measured" in card_of(tmp_path / "c")
    assert not (tmp_path / "c" / "results.json").exists()


def test_the_hash_is_of_weight_and_bias_alone(head: JudgeHead, target: LlamaForCausalLM) -> None:
    again = random_head(target)
    again.set_familiarity(None)
    assert again.weights_hash == head.weights_hash
    assert re.fullmatch("[0-9a-f]{64}", head.weights_hash)
    again.linear.weight[0, 7] += 1e-3
    assert again.weights_hash != head.weights_hash


def test_bad_results_beside_a_head_are_no_matter_until_it_is_saved(head: JudgeHead, tmp_path: Path) -> None:
    save_head(head, tmp_path)
    (tmp_path / "results.json").write_bytes(b"\xff")
    (tmp_path / "results-2.json").mkdir()
    back = JudgeHead.from_pretrained(tmp_path)
    with pytest.raises(JudgeDecodingError, match=r"results\.json"):
        save_head(back, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    save_head(back, tmp_path / "b", results=[])


# ---- the command


@pytest.fixture
def folder(head: JudgeHead, tmp_path: Path) -> Path:
    save_head(head, tmp_path / "judge", {"roc.svg": "<svg/>"})
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
    assert run("card", folder, "--results", folder / "results-2.json", "--overwrite")[0] == 0
    assert re.findall("### (.*here)\n", card_of(folder)) == ["there"]
    assert not (folder / "results-2.json").exists()


def test_the_command_replaces_a_bare_card(run: Run, folder: Path) -> None:
    JudgeHead.from_pretrained(folder).save_pretrained(folder)
    assert "## Results" not in card_of(folder)
    assert run("card", folder)[0] == 0
    assert "Nothing has been measured" in card_of(folder)


def test_a_card_by_hand_and_other_results_are_kept(run: Run, folder: Path, tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{name}.json", changed(task=name)) for name in ("first", "second"))
    assert run("card", folder, "--results", first)[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    is_one_sentence(run("card", folder, "--results", second), "results.json is not among the results")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert run("card", folder, "--results", second, "--results", first)[0] == 0
    with (folder / "README.md").open("a") as file:
        file.write("My own words.\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    is_one_sentence(run("card", folder), "README.md was changed by hand")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert run("card", folder, "--results", first, "--overwrite")[0] == 0
    assert re.findall("### (.*)\n", card_of(folder))[-1:] == ["first"]
    assert "My own words" not in card_of(folder)


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
    assert ("without a hash of its weights; check that it is" in err) == noted
    sure = changed(judge=judge, judge_hash=head.weights_hash)
    assert run("card", folder, "--results", write(tmp_path / "a.json", sure), "--overwrite")[2] == ""


def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.json", FULL), tmp_path / "bad.json"
    bad.write_text("{}")
    other = write(tmp_path / "other.json", changed(judge_hash="0" * 64))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    is_one_sentence(run("card", folder, "--results", good, "--results", bad), "bad.json")
    is_one_sentence(
        run("card", folder, "--results", good, "--results", other), "other.json belong to another judge head"
    )
    is_one_sentence(run("card", folder, "--results", tmp_path / "none.json"), "Cannot read the results")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    shutil.copy(other, folder / "results.json")
    ends_in_one_sentence(run("card", folder), "to another judge head")


def test_without_matplotlib_there_is_a_note_and_no_plot(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(head_pictures, "find_spec", lambda _: None)
    code, _, err = run("card", folder, "--results", write(tmp_path / "a.json", FULL))
    assert (code, err.count("\n")) == (0, 1)
    assert "matplotlib" in err
    assert not (folder / "pareto.svg").exists()
    assert "pareto" not in card_of(folder)


def test_the_embedded_head_goes_by_its_name(run: Run, tmp_path: Path) -> None:
    from judge_decoding.reference.pair import JUDGE as EMBEDDED

    shutil.copytree(EMBEDDED, tmp_path / EMBEDDED.name)
    results = write(tmp_path / "a.json", changed(judge="reference"))
    done = run("card", tmp_path / EMBEDDED.name, "--results", results, "--overwrite")
    assert done[0] == 0
    assert done[2] == ""
    assert torch.equal(
        JudgeHead.from_pretrained(tmp_path / EMBEDDED.name).linear.weight,
        JudgeHead.from_pretrained(EMBEDDED).linear.weight,
    )
