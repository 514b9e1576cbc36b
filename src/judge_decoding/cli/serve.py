"""``judge-decoding serve``: print and start vLLM's command for a recipe."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used
from judge_decoding.cli.options import OTHER, option
from judge_decoding.cli.terminal import say
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.serving.plan import Memory
from judge_decoding.serving.recipe import load


def serve(
    context: typer.Context,
    recipe: options.RecipeName,
    dry_run: Annotated[bool, option(OTHER, "Print the command and stop.", "--dry-run")] = False,
    force: Annotated[bool, option(OTHER, "Start it even if plan says that it does not fit.", "--force")] = False,
) -> None:
    """Print the vLLM command for a recipe and exec it; more arguments for vLLM after '--'."""
    one = load(recipe)
    command = [*one.command(), *context.args]
    if dry_run:
        check_used(context, "With --dry-run", "--force")
        say(shlex.join(command))
        return
    memory = Memory.of(one)
    if not memory.fits and not force:
        raise JudgeDecodingError(
            f"The recipe {recipe} does not fit: {-memory.spare / 1e9:.1f} GB are missing on each GPU; see "
            f"judge-decoding plan {shlex.quote(recipe)}, or give --force."
        )
    if shutil.which(command[0]) is None:
        raise JudgeDecodingError(
            "There is no command vllm here; install it with pip install 'judge-decoding[vllm]', or see the command "
            "with --dry-run."
        )
    from judge_decoding.judge.head import JudgeHead  # noqa: PLC0415  (loads torch)

    try:
        JudgeHead.from_pretrained(one.head)
    except JudgeDecodingError as error:
        make = shlex.join(one.fit_command())
        raise JudgeDecodingError(f"{str(error).removesuffix('.')}, or make the head with: {make}.") from error
    say(shlex.join(command))
    os.execvp(command[0], command)
