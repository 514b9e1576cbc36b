"""``judge-decoding fit``: from prompts to a ready-to-use head, in one command."""

from __future__ import annotations

import json as json_module
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Shown

from judge_decoding.cli.calibrate_on import check_calibrate_on
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.court_files import read_prompts
from judge_decoding.cli.decoding_options import FixedBudget, Seed
from judge_decoding.cli.models import BatchSize, Device, DraftModelOption, DtypeOption, FirstLayers, Target
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Json, LogTo, Overwrite, Yes, check_outputs, out_option
from judge_decoding.cli.panels import MODELS, TRAINING
from judge_decoding.cli.steps import resumable, steps
from judge_decoding.cli.task_options import (
    CalibrateData,
    CalibrateLimit,
    CalibrateOn,
    Chat,
    CheckerOption,
    Limit,
    Margin,
    PromptField,
    PromptsOption,
    ReferenceField,
    Template,
)
from judge_decoding.cli.terminal import say_json, warn
from judge_decoding.core.tracking import check_tracker
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import check_output_folders
from judge_decoding.io.questions import Fields, Question, file_rows
from judge_decoding.judge.files import files_of_head
from judge_decoding.names import REFERENCE, embedded_path

if TYPE_CHECKING:  # they load torch
    from judge_decoding.fit.pipeline import Fitted
    from judge_decoding.fit.table import Table


def fit(
    context: typer.Context,
    prompts: PromptsOption,
    out: Annotated[Path, out_option("Folder for the judge head.")],
    target: Target,
    draft: DraftModelOption = None,
    make_draft: Annotated[
        bool,
        typer.Option(
            "--make-draft",
            help="First make a draft model from the target's first layers, in the folder OUT-draft.",
            rich_help_panel=MODELS,
        ),
    ] = False,
    draft_layers: FirstLayers = None,
    prompt_field: PromptField = None,
    reference_field: ReferenceField = None,
    template: Template = None,
    chat: Chat = None,
    limit: Limit = None,
    checker: CheckerOption = "number",
    margin: Margin = 1.0,
    share: Annotated[
        float,
        typer.Option(help="Share of the prompts for calibration; the others are labelled.", rich_help_panel=TRAINING),
    ] = 0.4,
    calibrate_on: CalibrateOn = None,
    calibrate_data: CalibrateData = None,
    calibrate_limit: CalibrateLimit = None,
    max_new_tokens: FixedBudget = 256,
    batch_size: BatchSize = 16,
    seed: Seed = 0,
    dtype: DtypeOption = "auto",
    device: Device = None,
    log_to: LogTo = None,
    yes: Yes = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Fit a judge head from prompts: answers, labels, training, calibration and a report; resumes.

    The target answers most of the prompts. Tokens that the draft would replace are labelled by equivalence: does the
    answer keep its final result with the draft's token? A head is trained on these labels. The other prompts, or a
    task, choose its threshold and draft length.
    """
    if calibrate_on is None:
        check_used(
            context, "Without --calibrate-on", "--calibrate-data", "--calibrate-limit", remedy="give a task with it"
        )
    else:
        check_used(context, "With --calibrate-on, where all prompts are labelled,", "--share", "--reference-field")
        check_calibrate_on(context, calibrate_on, ("--calibrate-data",))
    check_tracker(log_to)
    if make_draft:
        check_used(context, "With --make-draft", "--draft")
    else:
        check_used(context, "Without --make-draft", "--draft-layers", remedy="add it")
    if not 0 < share < 1:
        raise JudgeDecodingError(f"--share is {share}; it must be between 0 and 1.")
    if out.exists() and not out.is_dir():
        raise JudgeDecodingError(f"Cannot write a head to {out}: it is a file; give a folder.")
    labels = out.with_name(f"{out.name}.work") / "labels.jsonl"
    check_outputs(
        files_of_head(out), [prompts, target, draft, calibrate_on, calibrate_data], overwrite=overwrite,
        folder=True, work=[labels, labels.with_name("labels.jsonl.part")],
    )  # fmt: skip
    work, made = check_output_folders(out, "a head", "labels.jsonl"), out.with_name(f"{out.name}-draft")
    questions, chatted = _questions(prompts, (prompt_field, reference_field, template), target, limit, chat=chat)
    with resumable(work), steps(lines=True) as screen:
        screen("loading the models", 0, 0)
        from judge_decoding.cli.run.fit import run  # noqa: PLC0415  (loads torch)

        found = run(
            context, questions, out, target, draft, checker, margin, share, calibrate_on, calibrate_data,
            calibrate_limit, max_new_tokens, batch_size, seed, dtype, device, work, screen,
            made if make_draft else None, draft_layers, chat=chat, yes=yes, log_to=log_to,
        )  # fmt: skip
    _report(found, out, target, str(made) if make_draft else draft, chat=chatted, json=json)


def _questions(
    path: Path, fields: tuple[str | None, str | None, str | None], target: str, limit: int | None, *, chat: bool | None
) -> tuple[list[Question], bool]:
    """Read the prompts; and whether they went through the target's chat template."""
    render = None
    if chat is not False:
        from judge_decoding.cli.run.rendering import renderer  # noqa: PLC0415  (loads torch)

        render = renderer(chat, target, fields[2])
    one = None if render is None else lambda text: render([{"role": "user", "content": text}])
    return read_prompts(str(path), partial(file_rows, path), Fields(*fields), one, limit), render is not None


def _report(found: Fitted, out: Path, target: str, draft: str | None, *, chat: bool, json: bool) -> None:
    """Print the result, and how to use it."""
    if json:
        say_json(json_module.dumps({"head": str(out), **found.to_dict()}, indent=2))
        return
    title, notes = _of(found.table, found.prompts)
    shown = Shown(box=None, title_justify="left", title=title)
    for name in ("", "accuracy", "draft\nlength", "accepted draft\ntokens per round", "tokens per\nsecond", "speed-up"):
        shown.add_column(name, justify="right" if name else "left", no_wrap=True)
    names = {"target": "target alone", "exact": "standard", "judge": "judge decoding"}
    for key, name in names.items():
        row = found.table.methods[key]
        shown.add_row(
            name, f"{row.accuracy:.1%}",
            str(row.num_draft_tokens or "-"), f"{row.accepted_per_round:.2f}" if row.num_draft_tokens else "-",
            f"{row.tokens_per_second:.0f}", f"{row.speedup:.2f}x",
        )  # fmt: skip
    console = Terminal()
    console.print()
    console.print(shown)
    for note in notes:
        console.print(note, highlight=False)
    for sentence in found.warnings:
        warn(f"Warning: {sentence}")
    small = draft or REFERENCE  # only the reference target comes with a draft
    use = _USE.format(
        out=str(out), target=target, draft=small, served=embedded_path(target, "target"),
        prompt='[{"role": "user", "content": "Your prompt"}]' if chat else '"Your prompt"',
        form="" if chat else "--no-chat ",
        speculative=shlex.quote(json_module.dumps(
            {
                "method": "draft_model", "model": embedded_path(small, "draft"),
                "num_speculative_tokens": found.head.config.num_draft_tokens,
            }
        )),
        additional=shlex.quote(json_module.dumps({"judge": {"head": str(out)}})),
    )  # fmt: skip
    console.print(use, highlight=False, soft_wrap=True)


def _of(table: Table, prompts: int) -> tuple[str, list[str]]:
    """Return the table's title and footnotes, which state the prompts that its figures are about."""
    if table.prompts == prompts:
        title = f"On the {prompts} prompts that chose the threshold"
    else:
        title = f"On {table.prompts} of the {prompts} prompts that chose the threshold"
    if table.timed_prompts == table.prompts:
        speeds = "Tokens per second: one at a time, the three methods in turn."
    else:
        speeds = f"Tokens per second: {table.timed_prompts} of these, one at a time, the three methods in turn."
    lengths = (
        f"Draft lengths: the fastest on {table.length_prompts} other prompt{'s' if table.length_prompts > 1 else ''}."
    )
    if not table.apart:
        lengths = f"Draft lengths: the fastest on {table.length_prompts} of these, so the speeds are slightly too high."
    return title, [speeds, lengths]


_USE = """
These prompts chose the threshold; measure others before you rely on it.

In Python:
  from judge_decoding import JudgeDecoder
  decoder = JudgeDecoder.from_pretrained({target!r}, draft={draft!r}, judge={out!r})
  print(decoder.generate({prompt}).text)

In transformers:
  model.generate(**inputs, custom_generate={out!r}, trust_remote_code=True, draft={draft!r})

On the command line:
  judge-decoding generate --target {target} --draft {draft} --judge {out} {form}"Your prompt"

As a server, with vLLM:
  vllm serve {served} --speculative-config {speculative} --additional-config {additional}
"""
