"""``judge-decoding report``: answers as a web page, with each token marked by why it was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli import options
from judge_decoding.cli.options import OUTPUT, option, out_option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.shared import warnings
from judge_decoding.cli.terminal import say
from judge_decoding.core.results import read_results
from judge_decoding.core.samples import read_samples
from judge_decoding.io.files import write_text
from judge_decoding.report.answers import answers_page
from judge_decoding.report.plots import CAPTION, pareto_svg


def report(
    files: Annotated[
        list[Path],
        typer.Argument(help="Answers with their rounds (JSONL), as `evaluate` and `generate --out` write them."),
    ],
    out: Annotated[Path, out_option("Web page to write.")],
    title: Annotated[str, option(OUTPUT, "Heading of the page.")] = ("Judge decoding, token by token"),
    show: options.Show = 200,
    sweep: Annotated[Path | None, option(OUTPUT, "Results of `sweep`, to plot accuracy against speed.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Show answers token by token in one self-contained web page."""
    check_outputs([out], [*files, sweep], overwrite=overwrite)

    figures = []
    if sweep is not None:
        figures.append((CAPTION, pareto_svg(read_results(sweep).rows)))
    with warnings() as on_bad:
        samples = [sample for path in files for sample in read_samples(path, on_bad=on_bad)]
    write_text(out, answers_page(title, samples, figures=figures, most=show))
    answers = "1 answer" if len(samples) == 1 else f"{len(samples)} answers"
    say(f"{answers} read, the first {show} of them shown in {out}." if len(samples) > show else
               f"{answers} shown in {out}.")  # fmt: skip
