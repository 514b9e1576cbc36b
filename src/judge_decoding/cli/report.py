"""``judge-decoding report``: answers as a web page, with each token marked by why it was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judge_decoding.cli.court_files import Warnings
from judge_decoding.cli.outputs import Overwrite, check_outputs
from judge_decoding.cli.terminal import say
from judge_decoding.core.results import read_results
from judge_decoding.core.samples import read_samples
from judge_decoding.io.files import write_text
from judge_decoding.report.answers import answers_page
from judge_decoding.report.plots import CAPTION, pareto_svg


def report(
    files: Annotated[
        list[Path],
        typer.Argument(help="Answers with their rounds (JSONL), as `evaluate` and `generate --json` write them."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML page to write.")],
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "Judge decoding, token by token",
    most: Annotated[int, typer.Option(min=1, help="Show no more than the first so many answers.")] = 200,
    sweep: Annotated[
        Path | None, typer.Option(help="JSON with the rows of a sweep: accuracy against speed is plotted.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Look at answers token by token, in one self-contained web page."""
    check_outputs([output], [*files, sweep], overwrite=overwrite)

    figures = []
    if sweep is not None:
        figures.append((CAPTION, pareto_svg(read_results(sweep).rows)))
    warnings = Warnings()
    try:
        samples = [sample for path in files for sample in read_samples(path, on_bad=warnings)]
    finally:
        warnings.close()
    write_text(output, answers_page(title, samples, figures=figures, most=most))
    told = "1 answer" if len(samples) == 1 else f"{len(samples)} answers"
    say(f"{told} read, the first {most} of them shown in {output}." if len(samples) > most else
               f"{told} shown in {output}.")  # fmt: skip
