"""One rule for options that would do nothing: they are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.spelling import listed

if TYPE_CHECKING:
    from judge_decoding.judge.head import JudgeHead


def given(context: typer.Context, options: tuple[str, ...]) -> list[str]:
    """Those of ``options``, such as ``--seed``, that are on the command line; a flag that is switched off is not."""
    found = []
    for option in options:
        (parameter,) = (one for one in context.command.params if option in one.opts)
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and context.params[parameter.name or ""] is not False:
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


def check_judge_used(
    context: typer.Context, rules: str | Sequence[str] | None, head: JudgeHead | None, num_draft_tokens: object
) -> None:
    """Refuse a judge head beside rules that do not read it, unless its own draft length is used.

    Args:
        context: the command's.
        rules: one or more spellings; None or none for the judge's own.
        head: the judge head.
        num_draft_tokens: what was given in place of the head's draft length.

    Raises:
        JudgeDecodingError: the head would do nothing.
    """
    from judge_decoding.rules.spelling import needs_head

    spellings = [rules] if isinstance(rules, str) else list(rules or ())
    if not spellings or head is None or any(map(needs_head, spellings)):
        return
    if num_draft_tokens or head.config.num_draft_tokens is None:
        told = listed([f"'{one}'" for one in spellings])
        check_used(context, f"With --rule {told}", "--judge", remedy="leave --rule out for the judge's own rule")
