"""``judge-decoding lm-eval``: the lm-evaluation-harness with the additional model ``judge``."""

from __future__ import annotations

import sys
from importlib import import_module

import typer

from judge_decoding.errors import JudgeDecodingError, reason


def lm_eval(context: typer.Context) -> None:
    """Run the lm-evaluation-harness with the additional model 'judge'; all arguments are the harness's."""
    import_module("judge_decoding.integrations.lm_eval")  # registers the model, and says if the harness is missing
    from lm_eval.__main__ import cli_evaluate  # noqa: PLC0415  (an extra)

    ours, sys.argv = sys.argv, ["lm-eval", *context.args]  # the harness reads sys.argv
    try:
        cli_evaluate()
    except JudgeDecodingError:
        raise
    except ValueError as error:  # the harness reports invalid arguments this way
        raise JudgeDecodingError(f"The harness refuses this: {reason(error)}; change its arguments.") from error
    finally:
        sys.argv = ours
