"""``judge-decoding lm-eval``: the lm-evaluation-harness, which then knows the model ``judge``."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from judge_decoding.errors import JudgeDecodingError, reason

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""How the command is registered: every argument is the harness's own, ``--help`` too."""


def lm_eval(context: typer.Context) -> None:
    """Run the lm-evaluation-harness, which then has the model 'judge'; all arguments are its own."""
    import_module("judge_decoding.integrations.lm_eval")  # registers the model
    from lm_eval.__main__ import cli_evaluate

    ours, sys.argv = sys.argv, ["lm-eval", *context.args]  # it reads them there
    try:
        cli_evaluate()
    except JudgeDecodingError:
        raise
    except ValueError as error:  # what the harness says of its arguments
        raise JudgeDecodingError(f"The harness refuses this: {reason(error)}; change its arguments.") from error
    finally:
        sys.argv = ours
