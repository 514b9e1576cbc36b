"""Options that would have no effect are refused."""

from __future__ import annotations

import typer

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.spelling import listed


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

    Args:
        context: the command's.
        where: that place, as the start of a sentence, such as "Without --draft" or "At temperature 0".
        options: such as ``--seed``.
        remedy: what gives them a use, such as "give a draft model"; beside it the options can be left out.

    Raises:
        JudgeDecodingError: some of them are on the command line.
    """
    if found := given(context, options):
        advice = (
            f"{remedy}, or leave {'them' if len(found) > 1 else 'it'} out" if remedy else f"leave {listed(found)} out"
        )
        raise JudgeDecodingError(f"{where} there is no use for {listed(found)}; {advice}.")
