"""``judge-decoding play``: a local page on which a target alone and judge decoding answer side by side."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_dtype, check_web_server
from judge_decoding.cli.options import MODELS, OUTPUT, option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.names import REFERENCE, complete, embedded_path


class NamedPair(NamedTuple):
    """Models by name or folder, and what they are called together."""

    name: str
    target: str
    draft: str
    judge: str | None


@dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """Watch a target alone and judge decoding answer side by side, on a local web page."""

    pair: Annotated[
        list[str] | None,
        option(
            MODELS,
            "Models to choose from: 'reference', the embedded pair, or [NAME=]TARGET,DRAFT[,JUDGE], by folder or "
            "Hub name. All are loaded at the start. Repeatable.",
        ),
    ] = None
    cases: Annotated[Path, option(OUTPUT, "TokenCourt file (JSONL) to which answers marked on the page are added.")] = (
        Path("play-cases.jsonl")
    )
    annotator: options.Annotator = None
    dtype: options.DtypeOption = "auto"
    device: options.Device = None
    backend: options.BackendOption = "eager"
    port: options.Port = 8766
    browser: options.Browser = True

    def run(self) -> None:
        """Check the options, and serve the page."""
        check_dtype(self.dtype)
        pairs = parse_pairs(self.pair or [REFERENCE])
        check_outputs([], [name for each in pairs for name in each[1:]], overwrite=False, work=[self.cases])
        check_web_server("The playground needs")
        from judge_decoding.cli.run.play import run  # noqa: PLC0415  (loads torch, and an extra)

        run(self, pairs)


def parse_pairs(spellings: list[str]) -> list[NamedPair]:
    """Parse the values of ``--pair``.

    Raises:
        JudgeDecodingError: one has no draft, or more than three models, or two have the same name.
    """
    found = [_parse(spelling) for spelling in spellings]
    names = [each.name for each in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise JudgeDecodingError(
            f"Two pairs are called {twice}; call one of them otherwise, as in --pair NAME={twice}."
        )
    return found


def _parse(spelling: str) -> NamedPair:
    match = re.fullmatch(r"(?:([\w. -]+)=)?(.*)", spelling, re.DOTALL)
    assert match is not None
    name, models = match[1], [model.strip() for model in match[2].split(",")]
    if len(models) > 3 or not all(models):
        raise JudgeDecodingError(f"The pair {spelling!r} cannot be read; write it as in NAME=TARGET,DRAFT,JUDGE.")
    target, draft, judge = [*models, None, None][:3]
    assert target is not None
    draft, judge = complete(target, draft, judge)
    if draft is None:
        raise JudgeDecodingError(
            f"The pair {spelling!r} has no draft; write it as in NAME=TARGET,DRAFT,JUDGE (prompt-lookup drafts without "
            "a model)."
        )
    embedded_path(target, "target")
    return NamedPair((name or Path(target).name or target).strip(), target, draft, judge)
