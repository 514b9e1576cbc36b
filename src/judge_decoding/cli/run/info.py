"""Implementation of ``judge-decoding info`` where the head must be loaded, called with checked options."""

from __future__ import annotations

from pathlib import Path

from judge_decoding.cli.console import Terminal
from judge_decoding.judge.config import JudgeHeadConfig
from judge_decoding.judge.head import JudgeHead
from judge_decoding.loading.models import load_model


def checked_config(place: str | Path, target: str | None) -> JudgeHeadConfig:
    """The configuration of a head that is loaded, and checked against a target if one is given."""
    with Terminal(err=True).status("loading the target"):
        model = load_model(target) if target is not None else None
    return JudgeHead.from_pretrained(place, model).config
