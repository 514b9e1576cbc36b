"""``judge-decoding play``: a local page on which a target alone and judge decoding answer side by side."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from judge_decoding.cli.login import login
from judge_decoding.cli.models import BackendOption, Device, DtypeOption, check_dtype
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.page_options import Annotator, Browser, Port
from judge_decoding.cli.panels import MODELS, OUTPUT
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.names import REFERENCE, complete, embedded_path


class NamedPair(NamedTuple):
    """Models by name or folder, and what they are called together."""

    name: str
    target: str
    draft: str
    judge: str | None


def play(
    pair: Annotated[
        list[str] | None,
        typer.Option(
            help="Models to choose from: 'reference', the embedded pair, or [NAME=]TARGET,DRAFT[,JUDGE], by folder or "
            "Hub name. All are loaded at the start. Repeatable.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    cases: Annotated[
        Path,
        typer.Option(
            help="TokenCourt file (JSONL) to which answers marked on the page are added.", rich_help_panel=OUTPUT
        ),
    ] = Path("play-cases.jsonl"),
    annotator: Annotator = None,
    dtype: DtypeOption = "auto",
    device: Device = None,
    backend: BackendOption = "eager",
    port: Port = 8766,
    browser: Browser = True,
) -> None:
    """Watch a target alone and judge decoding answer side by side, on a local web page."""
    check_dtype(dtype)
    pairs = parse_pairs(pair or [REFERENCE])
    named = [name for each in pairs for name in each[1:]]
    check_outputs([], named, overwrite=False, work=[cases])
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise JudgeDecodingError(
            "The playground needs a web server; install it with: pip install 'judge-decoding[court]'."
        )

    from judge_decoding.cli.run.play import run  # noqa: PLC0415  (loads torch, and an extra)

    run(pairs, cases, annotator or login(), dtype, device, backend, port, browser=browser)


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
