"""``judge-decoding bench``: the speed of every decoding method on this machine, side by side."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from judge_decoding.cli import options
from judge_decoding.cli.checks import check_used
from judge_decoding.cli.options import RUN, option, out_option
from judge_decoding.cli.outputs import check_outputs
from judge_decoding.cli.task_options import TaskOptions
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.judge.files import RUN_FILE
from judge_decoding.names import has_draft


@dataclass(frozen=True, kw_only=True)
class BenchOptions(TaskOptions):
    """Compare decoding methods: tokens per second, accepted draft tokens, and whether their tokens differ.

    Plain and assisted generation of transformers, and this package's decoding without a draft, by standard verification
    and with the judge take turns in one process on the same prompts. docs/performance.md explains every column.
    """

    task: options.TaskName = "arithmetic"
    target: options.Target = "reference"
    draft_layers: options.FirstLayers = None
    num_draft_tokens: options.DraftLengths = None
    batch_size: options.BatchSizes = None
    repetitions: Annotated[int, option(RUN, "Measurements of everything, after a warm-up.", min=1)] = 5
    limit: options.DrawnOf = 16
    tune: options.Tune = 6
    threads: Annotated[int | None, option(RUN, "Threads of torch; by default its own choice.", min=1)] = None
    backend: Annotated[str, option(RUN, "static measures both back ends; eager compiles nothing.")] = "static"
    vllm_python: Annotated[
        str | None,
        option(RUN, "Python interpreter with vLLM, to be measured too; by default this one if it has vLLM."),
    ] = None
    out: Annotated[Path | None, out_option("Folder for results.json and bench.md.")] = None

    def run(self) -> None:
        """Check the options, and measure."""
        if self.out is not None:
            outputs = [self.out / name for name in ("results.json", "bench.md", RUN_FILE)]
            inputs = [self.data, self.target, self.draft, self.judge]
            check_outputs(outputs, inputs, overwrite=self.overwrite, folder=True)
        if self.vllm_python is not None and shutil.which(self.vllm_python) is None:
            raise JudgeDecodingError(f"There is no program {self.vllm_python}; give a Python with vLLM.")
        if self.draft is not None and self.draft_layers is not None:
            raise JudgeDecodingError("A draft is given by --draft and by --draft-layers; give one of them.")
        if self.draft_layers is None and not has_draft(self.target, self.draft):
            check_used(
                self.context, "Without --draft and --draft-layers", "--judge", "--num-draft-tokens",
                remedy="give one of the two",
            )  # fmt: skip
        if self.out is None:
            check_used(self.context, "Without --out", "--overwrite", remedy="give a folder")
        from judge_decoding.cli.run.bench import run  # noqa: PLC0415  (loads torch)

        run(self)
