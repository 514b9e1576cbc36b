"""Options that contradict each other or would have no effect are refused, before torch is loaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import typer

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.spelling import listed

DTYPES = ("auto", "float32", "bfloat16", "float16")


def given(context: typer.Context, options: tuple[str, ...]) -> list[str]:
    """Those of ``options``, such as ``--seed``, that the user gives; a flag that is switched off is not among them."""
    found = []
    for option in options:
        (parameter,) = (one for one in context.command.params if option in one.opts)
        source = context.get_parameter_source(parameter.name or "")
        by_user = source is not None and source.name in ("COMMANDLINE", "DEFAULT_MAP")
        if by_user and context.params[parameter.name or ""] is not False:
            found.append(option)
    return found


def check_used(context: typer.Context, where: str, *options: str, remedy: str = "") -> None:
    """Refuse options that are given where they do nothing.

    ``where`` is that place, as the start of a sentence, such as "Without --draft". ``remedy`` gives them a use, such as
    "give a draft model"; beside it the options can be left out.

    Raises:
        JudgeDecodingError: some of them are given.
    """
    if found := given(context, options):
        advice = (
            f"{remedy}, or leave {'them' if len(found) > 1 else 'it'} out" if remedy else f"leave {listed(found)} out"
        )
        raise JudgeDecodingError(f"{where} there is no use for {listed(found)}; {advice}.")


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that is not one of `DTYPES`."""
    if dtype not in DTYPES:
        raise JudgeDecodingError(f"dtype is {dtype}; it must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")


def check_one_rule(rule: str | None, threshold: float | None) -> None:
    """Refuse a rule beside a threshold of the judge."""
    if rule is not None and threshold is not None:
        raise JudgeDecodingError("Give either a rule or the judge's threshold, not both.")


def is_file(spelling: str) -> bool:
    """Whether ``--calibrate-on`` is a file, and no task's name."""
    name = spelling.partition("(")[0]
    return Path(spelling).exists() or not name.replace("-", "_").isidentifier()


def check_calibrate_on(
    context: typer.Context, spelling: str, of_tasks: tuple[str, ...], of_files: tuple[str, ...] = ()
) -> None:
    """Refuse options for tasks by name where ``--calibrate-on`` is a file, and the other way round."""
    if is_file(spelling):
        check_used(context, "Where --calibrate-on is a file", *of_tasks, remedy="give a task there")
    else:
        check_used(context, "Where --calibrate-on is a task by name", *of_files, remedy="give a file there")


def sandbox_spelling(name: str | None, *, none: bool) -> str:
    """What ``--sandbox`` and ``--no-sandbox`` ask for, as `sandbox_of` spells it."""
    if none and name is not None:
        raise JudgeDecodingError("--sandbox and --no-sandbox contradict each other; leave one of them out.")
    return "none" if none else name or "bwrap"


def check_web_server(what: str) -> None:
    """Refuse what needs a web server where there is none; ``what`` is the start of a sentence about it."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise JudgeDecodingError(f"{what} a web server; install it with: pip install 'judge-decoding[court]'.")
