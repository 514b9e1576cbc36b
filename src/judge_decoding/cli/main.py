"""``judge-decoding``: the commands, and how their errors are shown."""

from __future__ import annotations

import gc
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from judge_decoding.cli import last
from judge_decoding.cli.group import LazyCommand, lazy_app
from judge_decoding.cli.terminal import fail, guarded, say
from judge_decoding.errors import JudgeDecodingError

_PASS_ON = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    "add_help_option": False,
}
"""Settings for a command that passes all arguments, also ``--help``, to another program."""

app = lazy_app(
    {
        "demo": LazyCommand("demo:demo", "See judge decoding work, offline, in under two minutes."),
        "generate": LazyCommand("generate:generate", "Answer one prompt with any pair of models."),
        "play": LazyCommand(
            "play:play", "Watch a target alone and judge decoding answer side by side, on a local web page."
        ),
        "draft": LazyCommand(
            "draft:draft",
            "Make a draft model from the target's first layers, trained to say what the target says; it resumes.",
        ),
        "fit": LazyCommand(
            "fit:fit", "Answers, labels, training, calibration and a short report, in one command that resumes."
        ),
        "evaluate": LazyCommand(
            "evaluate:evaluate", "Tell what a way of decoding costs in quality and gives in speed, on a task."
        ),
        "sweep": LazyCommand(
            "sweep:sweep",
            "Compare rules, settings and draft lengths on a task: accuracy against speed, with intervals.",
        ),
        "bench": LazyCommand(
            "bench:bench",
            "Measure ways of decoding side by side: tokens per second, accepted draft tokens, and whose tokens differ.",
        ),
        "report": LazyCommand("report:report", "Look at answers token by token, in one self-contained web page."),
        "score": LazyCommand(
            "score:score",
            "Tell how many tokens a round each rule would keep of answers that you have as text only.",
        ),
        "train": LazyCommand("train:train", "Train a judge head for a target on labelled answers."),
        "card": LazyCommand(
            "card:card",
            "Write a head's model card anew, with what was measured; the head itself stays as it is.",
        ),
        "info": LazyCommand(
            "info:info", "Tell what a judge head is, how well it was calibrated, and whether it fits a target."
        ),
        "rules": LazyCommand(
            "rules:rules",
            "List the verification rules, those of installed packages too, as ``generate --rule`` takes them.",
        ),
        "plan": LazyCommand(
            "plan:plan",
            "Weights, cache and draft against each GPU's memory, and tokens per second by a roofline. Exit code 1: no "
            "fit.",
        ),
        "serve": LazyCommand(
            "serve:serve",
            "Print vLLM's command for a recipe and become it; more arguments for vLLM after '--'.",
            {"context_settings": {"allow_extra_args": True}},
        ),
        "lm-eval": LazyCommand(
            "lm_eval:lm_eval",
            "Run the lm-evaluation-harness, which then has the model 'judge'; all arguments are its own.",
            _PASS_ON,
        ),
        "court": LazyCommand("court:court_app", "Make, check and show the labelled answers that teach a judge."),
    },
    help="Speculative decoding that keeps correct tokens, not only the target's own words.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
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
    # Progress bars of libraries would mix with ours and with streamed text.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Repeated garbage collection over hundreds of thousands of new, permanent objects takes a sixth of the time to
    # import transformers. Tensors are freed by reference counting, without the collector.
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
        # The reader of a pipe has closed it, as ``| head`` does; there is nobody to report to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except SystemExit:
        raise
    except OSError as error:  # an invalid file name, or a disk that is full or gone
        if not error.filename:
            last.report(error)
            sys.exit(last.EXIT)
        fail(f"Error: {error.filename}: {error.strerror}; choose another place.")
        sys.exit(2)
    except BaseException as error:  # noqa: BLE001  (panics in the tokenizers' Rust code are not an Exception)
        last.report(error)
        sys.exit(last.EXIT)


if __name__ == "__main__":
    main()
