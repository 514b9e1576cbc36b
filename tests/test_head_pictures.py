"""Pictures of a head: what they say, where they go, and what happens without the library that draws them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from judge_decoding import JudgeDecodingError, JudgeHead, TrainingConfig, save_head, train_head
from judge_decoding.report import head_pictures as module
from judge_decoding.report.head_pictures import head_pictures
from test_training import word_cases
from tiny import llama, random_head, word_tokenizer

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def trained() -> JudgeHead:
    return train_head(llama(0), word_tokenizer(), word_cases(), TrainingConfig(norm="both", layers=(-1, -2)))


def said(svg: str) -> set[str]:
    """The texts of a picture; they are drawn as paths, and each stands before its own as a comment."""
    return {text.strip() for text in re.findall(r"<!--(.*?)-->", svg, re.DOTALL)}


def test_both_pictures_have_labelled_axes_and_the_figures(trained: JudgeHead) -> None:
    pictures = head_pictures(trained.config)
    assert set(pictures) == {"reliability.svg", "roc.svg"}
    figures = trained.config.calibration
    assert {
        "score (probability of correct)", "share of tokens that are correct", "tokens", "perfectly calibrated",
        f"Reliability out of fold (calibration error {figures['ece']:.3f})",
    } <= said(pictures["reliability.svg"])  # fmt: skip
    assert {
        "share of wrong tokens kept", "share of correct tokens kept", "chance",
        f"ROC out of fold (AUC {figures['auc']:.3f})", f"at the threshold {trained.config.threshold:.3g}",
    } <= said(pictures["roc.svg"])  # fmt: skip


def test_they_are_repeatable_and_name_nothing_outside(trained: JudgeHead) -> None:
    pictures = head_pictures(trained.config)
    assert pictures == head_pictures(trained.config)
    for svg in pictures.values():
        ElementTree.fromstring(svg.encode())
        links = re.findall(r'(?:href|src)="([^"]*)"', svg)
        assert all(link.startswith("#") for link in links)
        assert "<script" not in svg


def test_the_card_shows_the_pictures_beside_it_and_no_others(trained: JudgeHead, tmp_path: Path) -> None:
    save_head(trained, tmp_path, head_pictures(trained.config))
    card = (tmp_path / "README.md").read_text()
    assert all(
        f"]({name})" in card and (tmp_path / name).stat().st_size > 1000 for name in ("reliability.svg", "roc.svg")
    )
    # A head that is saved over it would show another one's pictures.
    save_head(random_head(llama(0)), tmp_path)
    assert not list(tmp_path.glob("*.svg"))
    assert ".svg" not in (tmp_path / "README.md").read_text()


def test_the_card_has_the_table_the_curve_and_the_doubts(trained: JudgeHead, tmp_path: Path) -> None:
    save_head(trained, tmp_path)
    card = (tmp_path / "README.md").read_text()
    figures = trained.config.calibration
    for row in figures["comparison"]:
        assert f"| {row['detector']} | {row['auc']:.3f} |" in card
    for row in figures["learning_curve"]:
        assert f"| {row['questions']} | {row['auc']:.3f} |" in card
    assert f"**{figures['warnings'][0]}**" in card
    assert "Out of fold: each token's score is that of a fit on the other folds' questions" in card


def test_without_matplotlib_it_says_what_to_install(trained: JudgeHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(module, "can_draw", lambda: False)
    with pytest.raises(JudgeDecodingError, match=r"pip install 'judge-decoding\[eval\]'"):
        head_pictures(trained.config)


def test_a_head_without_figures_has_no_pictures() -> None:
    with pytest.raises(JudgeDecodingError, match="no reliability diagram and no ROC; train it again"):
        head_pictures(random_head(llama(0)).config)


def test_a_head_calibrated_on_a_task_has_no_mark_on_its_roc(trained: JudgeHead) -> None:
    config = trained.config.model_copy(deep=True)
    config.calibration |= {"kept_correct": None, "caught_wrong": None}
    assert not any(text.startswith("at the threshold") for text in said(head_pictures(config)["roc.svg"]))
