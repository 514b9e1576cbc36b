"""``judge-decoding fit``: from prompts to a ready-to-use head, in one command."""

from __future__ import annotations

import json as json_module
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Shown

from judge_decoding.cli.calibrate_on import CalibrateData, CalibrateLimit, CalibrateOn, check_calibrate_on
from judge_decoding.cli.console import Terminal
from judge_decoding.cli.court_files import read_prompts
from judge_decoding.cli.models import Device, DtypeOption
from judge_decoding.cli.options import check_used
from judge_decoding.cli.outputs import Overwrite, Yes, check_outputs
from judge_decoding.cli.steps import goes_on, steps
from judge_decoding.cli.terminal import say_json, warn
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
    prompts: Annotated[Path, typer.Option(help="Prompts: JSONL (question, perhaps reference), or text, one a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the head.")],
    target: Annotated[str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded pair.")],
    draft: Annotated[str | None, typer.Option(help="Draft model with the target's vocabulary.")] = None,
    make_draft: Annotated[
        bool,
        typer.Option("--make-draft", help="Make one first, of the target's first layers, in the folder OUT-draft."),
    ] = False,
    draft_layers: Annotated[int | None, typer.Option(help="How many of them, with --make-draft; else 4.")] = None,
    prompt_field: Annotated[str | None, typer.Option(help="Field of the prompt; else question or prompt.")] = None,
    reference_field: Annotated[
        str | None, typer.Option(help="Field of a right answer; else reference, or the target's own answer.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help=r"The prompt from the fields, such as 'Q: {question}\nA:'.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt through the target's chat template.")] = False,
    limit: Annotated[int | None, typer.Option(min=2, help="Take only the first so many prompts.")] = None,
    result: Annotated[
        str, typer.Option(help="What tells if answers agree: number, choice, text, regex:PATTERN or module:function.")
    ] = "number",
    points: Annotated[float, typer.Option(min=0, max=100, help="Points of accuracy that may be lost.")] = 1.0,
    share: Annotated[float, typer.Option(help="Share of the prompts to calibrate on; the others are labelled.")] = 0.4,
    calibrate_on: CalibrateOn = None,
    calibrate_data: CalibrateData = None,
    calibrate_limit: CalibrateLimit = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Token budget of an answer.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers that share a forward.")] = 16,
    seed: Annotated[int, typer.Option(help="Divides the prompts.")] = 0,
    dtype: DtypeOption = "auto",
    device: Device = None,
    yes: Yes = False,
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Answers, labels, training, calibration and a short report, in one command that resumes.

    The target answers most of the prompts, and its tokens that the draft would replace are labelled by equivalence:
    does the answer come to the same result with the draft's? A head is trained on them; the other prompts choose its
    threshold and draft length, or a task does.
    """
    if calibrate_on is None:
        check_used(
            context, "Without --calibrate-on", "--calibrate-data", "--calibrate-limit", remedy="name a task with it"
        )
    else:
        check_used(context, "With --calibrate-on, where all prompts are labelled,", "--share", "--reference-field")
        check_calibrate_on(context, calibrate_on, ("--calibrate-data",))
    if make_draft:
        check_used(context, "With --make-draft", "--draft")
    else:
        check_used(context, "Without --make-draft", "--draft-layers", remedy="give it, too")
    if not 0 < share < 1:
        raise JudgeDecodingError(f"--share is {share}; it must be between 0 and 1.")
    if out.exists() and not out.is_dir():
        raise JudgeDecodingError(f"Cannot write a head to {out}: it is a file; name a folder.")
    labels = out.with_name(f"{out.name}.work") / "labels.jsonl"
    check_outputs(
        files_of_head(out), [prompts, target, draft, calibrate_on, calibrate_data], overwrite=overwrite, folder=True,
        work=[labels, labels.with_name("labels.jsonl.part")],
    )  # fmt: skip
    work, made = check_output_folders(out, "a head", "labels.jsonl"), out.with_name(f"{out.name}-draft")
    questions = _questions(prompts, (prompt_field, reference_field, template), target if chat else None, limit)
    with goes_on(work), steps(lines=True) as screen:
        screen("loading the models", 0, 0)
        from judge_decoding.cli.run.fit import run  # noqa: PLC0415  (loads torch)

        found = run(
            questions, out, target, draft, result, points, share, calibrate_on, calibrate_data, calibrate_limit,
            max_new_tokens, batch_size, seed, dtype, device, work, screen, made if make_draft else None, draft_layers,
            chat=chat, yes=yes,
        )  # fmt: skip
    _report(found, out, target, str(made) if make_draft else draft, chat=chat, json=json)


def _questions(
    path: Path, fields: tuple[str | None, str | None, str | None], template_of: str | None, limit: int | None
) -> list[Question]:
    render = None
    if template_of is not None:
        from judge_decoding.cli.run.rendering import renderer  # noqa: PLC0415  (loads torch)

        chat = renderer(template_of)

        def render(text: str) -> str:
            return chat([{"role": "user", "content": text}])

    return read_prompts(str(path), partial(file_rows, path), Fields(*fields), render, limit)


def _report(found: Fitted, out: Path, target: str, draft: str | None, *, chat: bool, json: bool) -> None:
    """Print the result, and how to use it."""
    if json:
        say_json(json_module.dumps({"head": str(out), **found.to_dict()}, indent=2))
        return
    title, notes = _of(found.table, found.prompts)
    shown = Shown(box=None, title_justify="left", title=title)
    for name in ("", "accuracy", "draft\nlength", "accepted draft\ntokens per round", "tokens per\nsecond", "speed-up"):
        shown.add_column(name, justify="right" if name else "left")
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
        speeds = "Tokens per second: one by one, the three ways in turns."
    else:
        speeds = f"Tokens per second: {table.timed_prompts} of these, one by one, the three ways in turns."
    lengths = f"Draft lengths: the fastest on {table.length_prompts} other prompts."
    if not table.apart:
        lengths = f"Draft lengths: the fastest on {table.length_prompts} of these, which flatters the speeds a little."
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
  judge-decoding generate {target} --draft {draft} --judge {out} {form}"Your prompt"

As a server, with vLLM:
  vllm serve {served} --speculative-config {speculative} --additional-config {additional}
"""
