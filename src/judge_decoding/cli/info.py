"""``judge-decoding info``: what a head is and which target it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from judge_decoding.cli import options
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.head_view import describe, print_json
from judge_decoding.cli.options import MODELS, option
from judge_decoding.judge.config import has_sound_weights, read_config
from judge_decoding.names import embedded_path


def info(
    judge: options.Head,
    target: Annotated[str | None, option(MODELS, "Target model: check that the head fits it.")] = None,
    json: options.Json = False,
) -> None:
    """Show a judge head's origin, calibration and target, and whether it fits a target."""
    place = embedded_path(judge, "judge")
    folder = Path(place)
    config = read_config(folder) if target is None and folder.is_dir() else None
    if config is None or not has_sound_weights(folder, config):
        from judge_decoding.judge.head import JudgeHead  # noqa: PLC0415  (loads torch)
        from judge_decoding.loading.models import load_model  # noqa: PLC0415  (loads torch)

        with Terminal(err=True).status("loading the target"):
            model = load_model(target) if target is not None else None
        config = JudgeHead.from_pretrained(place, model).config
    if json:
        print_json(config)
    else:
        describe(config, judge, fits=target)
