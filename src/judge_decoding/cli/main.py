"""``judge-decoding``: the commands, and how their errors are shown."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from judge_decoding.cli import crash
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
        "demo": LazyCommand("demo:DemoOptions", "Show judge decoding on included models, offline, in minutes."),
        "generate": LazyCommand("generate:GenerateOptions", "Answer one prompt with any pair of models."),
        "play": LazyCommand(
            "play:PlayOptions", "Watch a target alone and judge decoding answer side by side, on a local web page."
        ),
        "draft": LazyCommand(
            "draft:DraftOptions",
            "Train a draft model made from the target's first layers; an interrupted run resumes.",
        ),
        "fit": LazyCommand(
            "fit:FitOptions",
            "Fit a judge head from prompts: answers, labels, training, calibration and a report; resumes.",
        ),
        "evaluate": LazyCommand(
            "evaluate:EvaluateOptions", "Measure the accuracy and speed of one decoding configuration on a task."
        ),
        "sweep": LazyCommand(
            "sweep:SweepOptions",
            "Compare rules, settings and draft lengths on a task: accuracy against speed, with intervals.",
        ),
        "bench": LazyCommand(
            "bench:BenchOptions",
            "Compare decoding methods: tokens per second, accepted draft tokens, and whether their tokens differ.",
        ),
        "report": LazyCommand("report:report", "Show answers token by token in one self-contained web page."),
        "score": LazyCommand(
            "score:ScoreOptions",
            "Count the tokens per round that each rule would keep of existing answers.",
        ),
        "train": LazyCommand("train:TrainOptions", "Train a judge head for a target on labelled answers."),
        "card": LazyCommand(
            "card:card",
            "Rewrite a head's model card with measured results; the head itself does not change.",
        ),
        "push": LazyCommand(
            "card:push",
            "Upload a head's folder to the Hugging Face Hub: weights, configuration, card, pictures and results.",
        ),
        "info": LazyCommand(
            "info:info", "Show a judge head's origin, calibration and target, and whether it fits a target."
        ),
        "rules": LazyCommand(
            "rules:rules",
            "List the verification rules, also those of installed packages, or explain one.",
        ),
        "plan": LazyCommand(
            "plan:plan",
            "Estimate a recipe's memory per GPU and tokens per second. Exit code 1 if it does not fit.",
        ),
        "serve": LazyCommand(
            "serve:serve",
            "Print the vLLM command for a recipe and exec it; more arguments for vLLM after '--'.",
            {"context_settings": {"allow_extra_args": True}},
        ),
        "lm-eval": LazyCommand(
            "lm_eval:lm_eval",
            "Run the lm-evaluation-harness with the additional model 'judge'; all arguments are the harness's.",
            _PASS_ON,
        ),
        "court": LazyCommand("court:court_app", "Make, check and show the labelled answers that train a judge."),
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
    # transformers imports torchao where it is installed, which then reports parts of its own that do not fit here.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Repeated garbage collection over hundreds of thousands of new, permanent objects takes a sixth of the time to
    # import transformers. Tensors are freed by reference counting, without the collector.
    gc.set_threshold(50_000)
    # As it ends, the interpreter would look through all of them once more.
    atexit.register(gc.freeze)
    with guarded():
        _run()


def _run() -> None:
    try:
        app(prog_name="judge-decoding")  # also as `python -m judge_decoding.cli.main`
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
            crash.report(error)
            sys.exit(crash.EXIT)
        fail(f"Error: {error.filename}: {error.strerror}; choose another place.")
        sys.exit(2)
    except BaseException as error:  # noqa: BLE001  (panics in the tokenizers' Rust code are not an Exception)
        crash.report(error)
        sys.exit(crash.EXIT)


if __name__ == "__main__":
    main()
