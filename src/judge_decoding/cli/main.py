"""``judge-decoding``: the commands, and how their errors look."""

from __future__ import annotations

import gc
import os
import sys
from typing import Annotated

import typer

from judge_decoding.cli import last
from judge_decoding.cli.bench import bench
from judge_decoding.cli.card import card
from judge_decoding.cli.court import court_app
from judge_decoding.cli.demo import demo
from judge_decoding.cli.evaluate import evaluate
from judge_decoding.cli.fit import fit
from judge_decoding.cli.generate import generate
from judge_decoding.cli.info import info
from judge_decoding.cli.lm_eval import PASS_ON, lm_eval
from judge_decoding.cli.options import with_bounds
from judge_decoding.cli.plan import plan
from judge_decoding.cli.report import report
from judge_decoding.cli.rules import rules
from judge_decoding.cli.score import score
from judge_decoding.cli.serve import PASS_ON as TO_VLLM
from judge_decoding.cli.serve import serve
from judge_decoding.cli.sweep import sweep
from judge_decoding.cli.terminal import fail, guarded, say
from judge_decoding.cli.train import train
from judge_decoding.errors import JudgeDecodingError

app = typer.Typer(
    help="Speculative decoding that keeps correct tokens, not only the target's own words.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(generate)
app.command()(fit)
app.command()(evaluate)
app.command()(sweep)
app.command()(bench)
app.command()(report)
app.command()(score)
app.command()(train)
app.command()(card)
app.command()(info)
app.command()(rules)
app.command()(plan)
app.command(context_settings=TO_VLLM)(serve)
app.command("lm-eval", context_settings=PASS_ON, add_help_option=False)(lm_eval)
app.add_typer(court_app, name="court")
with_bounds(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"judge-decoding {version('judge-decoding')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run a command.

    What a user did wrong is one sentence on stderr and exit code 2; what nobody expected is one too, and exit code 70.
    """
    # Progress bars of the libraries below would mix with ours and with streamed text.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # To look through hundreds of thousands of new objects for garbage again and again, while modules are imported that
    # stay, is a sixth of the time that transformers takes to load. Tensors are freed by their counts, without this.
    gc.set_threshold(50_000)
    with guarded():
        _run()


def _run() -> None:
    try:
        app()
    except JudgeDecodingError as error:
        fail(f"Error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe went away, as ``| head`` does; nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except SystemExit:
        raise
    except OSError as error:  # a name that no file can have, a disk that is full or gone
        if not error.filename:
            last.tell(error)
            sys.exit(last.EXIT)
        fail(f"Error: {error.filename}: {error.strerror}; choose another place.")
        sys.exit(2)
    except BaseException as error:  # noqa: BLE001  (panics of the tokenizers' Rust code are no Exception)
        last.tell(error)
        sys.exit(last.EXIT)


if __name__ == "__main__":
    main()
