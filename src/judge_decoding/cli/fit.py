"""``judge-decoding fit``: from prompts to a head that is ready to use, in one command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judge_decoding.cli.models import Device
from judge_decoding.cli.outputs import Overwrite, check_outputs

if TYPE_CHECKING:
    from judge_decoding.court.questions import Question
    from judge_decoding.decoding.decoder import Generation, JudgeDecoder
    from judge_decoding.evaluation.thresholds import Task
    from judge_decoding.judge.head import JudgeHead

FEW = 100
"""Prompts below which the accuracy that chose the threshold is called rough."""
TIMED = 6
"""Prompts that each draft length is timed on."""
EXACT_LENGTHS = (2, 4, 6, 8)
JUDGE_LENGTHS = (4, 8, 12, 16, 24)


def fit(
    prompts: Annotated[Path, typer.Option(help="Prompts: JSONL (question, perhaps reference), or text, one a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the head.")],
    target: Annotated[str, typer.Option(help="Target model: Hub name or folder; 'reference' is the embedded pair.")],
    draft: Annotated[str | None, typer.Option(help="Draft model with the target's vocabulary.")] = None,
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
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Token budget of an answer.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers that share a forward.")] = 16,
    seed: Annotated[int, typer.Option(help="Divides the prompts.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Device = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask after the cost was told.")] = False,
    overwrite: Overwrite = False,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Answers, labels, training, calibration and a short report, in one command that resumes.

    The target answers most of the prompts, and its tokens that the draft would replace are labelled by equivalence:
    does the answer come to the same result with the draft's? A head is trained on them; the other prompts choose its
    threshold and draft length.
    """
    from judge_decoding.court.labels.progress import Progress
    from judge_decoding.court.results import result_function
    from judge_decoding.court.sets import place_of
    from judge_decoding.errors import JudgeDecodingError
    from judge_decoding.judge.head import files_of_head

    if not 0 < share < 1:
        raise JudgeDecodingError(f"--share is {share}; it must be between 0 and 1.")
    if out.exists() and not out.is_dir():
        raise JudgeDecodingError(f"Cannot write a head to {out}: it is a file; name a folder.")
    work = out.with_name(f"{out.name}.work")
    labels = work / "labels.jsonl"
    check_outputs(
        files_of_head(out), [prompts, target, draft], overwrite=overwrite, folder=True,
        work=[labels, labels.with_name("labels.jsonl.part")],
    )  # fmt: skip
    same = result_function(result)
    questions = _questions(prompts, (prompt_field, reference_field, template), target if chat else None, limit)
    # Not as court split does, whose parts may come here.
    salt = f"fit {seed}"
    tuning = [one for one in questions if place_of(one.prompt, salt) < share]
    teaching = [one.prompt for one in questions if place_of(one.prompt, salt) >= share]
    if not tuning or not teaching:
        raise JudgeDecodingError(f"{len(questions)} prompts are too few to divide; give more, or another --share.")
    settings = {
        "target": target, "draft": draft, "result": result, "max_new_tokens": max_new_tokens, "seed": seed,
        "share": share,
    }  # fmt: skip
    finished = work / "labels.jsonl"
    done = _is_done(finished, settings, teaching)
    if not done and not finished.with_name("labels.jsonl.part").exists():
        check_outputs([finished], overwrite=overwrite, folder=True)  # the labels of another fit
    progress = None if done else Progress(finished, settings)

    from judge_decoding.cli.court_files import bar
    from judge_decoding.cli.court_swaps import by_equivalence, duration, load_decoder, run
    from judge_decoding.court.cases import read_cases
    from judge_decoding.evaluation.thresholds import THRESHOLDS, measure
    from judge_decoding.rules.judge import Judge

    pair = load_decoder(target, draft, dtype, device)

    def more() -> str:
        """What comes after the labels: one forward an answer to train, and answers to calibrate."""
        some = [one.prompt for one in tuning[:batch_size]]
        together = _seconds(lambda: pair.generate_batch(some, max_new_tokens, batch_size=batch_size))
        alone = _seconds(lambda: pair.generate(some[0], max_new_tokens))
        batches = len(tuning) * (len(THRESHOLDS) + 3) / len(some)
        timed = min(TIMED, len(tuning)) * (len(EXACT_LENGTHS) + len(JUDGE_LENGTHS) + 2)
        cost = duration(together * batches + alone * timed)
        return (
            f" Then the head is trained (one forward an answer), and {len(tuning)} prompts are answered at "
            f"{len(THRESHOLDS)} thresholds and some draft lengths: about {cost}."
        )

    if progress is not None:
        label = by_equivalence(pair, same, max_new_tokens, batch_size)
        cases, told = run(teaching, label, progress, yes=yes, more=more)
        typer.echo(told, err=True)
        _mark_done(finished, settings, teaching)
    else:
        cases = read_cases(finished)
        typer.echo(f"The labels are there already: {finished}.", err=True)
    head = _train(pair, cases, work)
    task = _task(pair, tuning, same, max_new_tokens, batch_size)
    _calibrate(pair, head, task, points, max_new_tokens, batch_size, work)
    rows = _speeds(pair, head, task.prompts[:TIMED], max_new_tokens)
    head.config.num_draft_tokens = rows["judge"]["num_draft_tokens"]
    with bar("at its draft length", len(task.prompts)) as advance:
        outcome = measure(
            pair, task, Judge(head), max_new_tokens=max_new_tokens, batch_size=batch_size, progress=advance,
            num_draft_tokens=head.config.num_draft_tokens,
        )  # fmt: skip
    figures = head.config.calibration
    figures |= {"speeds": rows, "speeds_of": f"{min(TIMED, len(task.prompts))} calibration prompts", **outcome}
    bare = sum(not one.reference for one in tuning)
    if bare:
        figures["warnings"].append(
            f"{bare} of the {len(tuning)} calibration prompts have no reference: there accuracy is having the same "
            "result as the target's own answer."
        )
    if len(task.prompts) < FEW:
        figures["warnings"].append(
            f"Only {len(task.prompts)} prompts chose the threshold, so the accuracy is rough; give more prompts."
        )
    head.save_pretrained(out)
    _report(head, rows, len(cases), len(task.prompts), out, pair, chat=chat, json=json)


def _questions(
    path: Path, fields: tuple[str | None, str | None, str | None], template_of: str | None, limit: int | None
) -> list[Question]:
    from judge_decoding.cli.court_files import read_prompts
    from judge_decoding.cli.models import embedded
    from judge_decoding.court.questions import Fields, file_rows

    render = None
    if template_of is not None:
        from judge_decoding.decoding import prompts
        from judge_decoding.decoding.loading import load_tokenizer

        tokenizer = load_tokenizer(embedded(template_of, "target"))

        def render(text: str) -> str:
            return prompts.render([{"role": "user", "content": text}], tokenizer)

    return read_prompts(str(path), partial(file_rows, path), Fields(*fields), render, limit)


def _about(settings: Mapping[str, Any], questions: Sequence[str]) -> dict[str, Any]:
    import hashlib

    return {"settings": dict(settings), "questions": hashlib.sha256("\0".join(questions).encode()).hexdigest()}


def _is_done(labels: Path, settings: Mapping[str, Any], questions: Sequence[str]) -> bool:
    """Whether these labels were made before, by the same settings for the same questions."""
    import json

    about = labels.with_suffix(".settings.json")
    try:
        return labels.exists() and json.loads(about.read_text(encoding="utf-8")) == _about(settings, questions)
    except (OSError, ValueError):
        return False


def _mark_done(labels: Path, settings: Mapping[str, Any], questions: Sequence[str]) -> None:
    from judge_decoding.files import write_json

    write_json(labels.with_suffix(".settings.json"), _about(settings, questions))


def _train(pair: JudgeDecoder, cases: Sequence[Any], work: Path) -> JudgeHead:
    from judge_decoding.cli.court_files import bars
    from judge_decoding.judge.training import train_head

    with bars() as tell:
        return train_head(pair.target, pair.tokenizer, cases, cache=work / "features", progress=tell)


def _task(
    pair: JudgeDecoder,
    questions: Sequence[Question],
    same: Callable[[str], str | None],
    max_new_tokens: int,
    batch_size: int,
) -> Task:
    """The calibration task; where there is no reference the target's own answer is the right one."""
    from judge_decoding.cli.court_files import bar
    from judge_decoding.evaluation import thresholds
    from judge_decoding.rules.exact import Exact

    bare = [one.prompt for one in questions if not one.reference]
    own: dict[str, str] = {}
    if bare:
        with bar("the target's own answers", len(bare)) as advance:
            made = pair.generate_batch(bare, max_new_tokens, batch_size=batch_size, rule=Exact(), progress=advance)
        own = {prompt: answer.text for prompt, answer in zip(bare, made, strict=True)}
    return thresholds.Task.of(
        [
            thresholds.Question(question=one.prompt, reference=one.reference or own[one.prompt])
            for one in questions
        ],
        same,
    )  # fmt: skip


def _calibrate(
    pair: JudgeDecoder, head: JudgeHead, task: Task, points: float, max_new_tokens: int, batch_size: int, work: Path
) -> None:
    from judge_decoding.cli.court_files import bar
    from judge_decoding.cli.models import kept_if_not_calibrated
    from judge_decoding.evaluation.thresholds import THRESHOLDS, calibrate

    total = (len(THRESHOLDS) + 1) * len(task.prompts)
    with bar("calibrating", total) as advance, kept_if_not_calibrated(head, work / "head"):
        calibrate(
            pair, head, task, points,
            max_new_tokens=max_new_tokens, batch_size=batch_size, part=work / "calibration.part", progress=advance,
        )  # fmt: skip


def _speeds(
    pair: JudgeDecoder, head: JudgeHead, prompts: Sequence[str], max_new_tokens: int
) -> dict[str, dict[str, Any]]:
    """Tokens per second of the target alone, of standard verification and of the judge, each at its best length."""
    from judge_decoding.cli.court_files import bar
    from judge_decoding.decoding.rounds import Stats
    from judge_decoding.rules.exact import Exact
    from judge_decoding.rules.judge import Judge

    alone = pair.alone()
    ways: dict[tuple[str, int], Callable[[str], Generation]] = {
        ("target", 0): partial(alone.generate, max_new_tokens=max_new_tokens)
    }
    for name, rule, lengths in (("exact", Exact(), EXACT_LENGTHS), ("judge", Judge(head), JUDGE_LENGTHS)):
        for length in lengths:
            ways[name, length] = partial(
                pair.generate, max_new_tokens=max_new_tokens, rule=rule, num_draft_tokens=length
            )
    seconds, stats = dict.fromkeys(ways, 0.0), {way: Stats() for way in ways}
    with bar("timing draft lengths", len(ways) * len(prompts)) as advance:
        for number, prompt in enumerate(prompts):
            for way, answer in ways.items():
                if not number:
                    answer(prompt)  # warm-up
                made = answer(prompt)
                seconds[way] += made.seconds
                stats[way].merge(made.stats)
                advance()
    rows: dict[str, dict[str, Any]] = {}
    for (name, length), spent in seconds.items():
        found = stats[name, length]
        row = {
            "num_draft_tokens": length,
            "tokens_per_second": found.tokens / spent,
            "accepted_per_round": found.accepted_per_round,
            "tokens_per_forward": found.tokens_per_forward,
        }
        if name not in rows or row["tokens_per_second"] > rows[name]["tokens_per_second"]:
            rows[name] = row
    return rows


def _seconds(work: Callable[[], object]) -> float:
    import time

    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _report(
    head: JudgeHead,
    rows: Mapping[str, Mapping[str, Any]],
    cases: int,
    prompts: int,
    out: Path,
    pair: JudgeDecoder,
    *,
    chat: bool,
    json: bool,
) -> None:
    """What came out, and how to use it."""
    import json as json_module
    import shlex

    figures = head.config.calibration
    told = {
        "head": str(out), "threshold": head.config.threshold, "num_draft_tokens": head.config.num_draft_tokens,
        "cases": cases, "auc": figures["auc"], "calibration_prompts": prompts,
        "target_accuracy": figures["target_accuracy"], "accuracy": figures["accuracy"], "methods": rows,
        "warnings": figures["warnings"],
    }  # fmt: skip
    if json:
        typer.echo(json_module.dumps(told, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=None, title_justify="left", title=f"On the {prompts} prompts that chose threshold and draft length"
    )
    for name in ("", "accuracy", "draft\nlength", "accepted draft\ntokens per round", "tokens per\nsecond", "speed-up"):
        table.add_column(name, justify="right" if name else "left")
    names = {"target": "target alone", "exact": "standard", "judge": "judge decoding"}
    base = rows["target"]["tokens_per_second"]
    for key, name in names.items():
        row = rows[key]
        table.add_row(
            name,
            f"{figures['accuracy'] if key == 'judge' else figures['target_accuracy']:.1%}",
            str(row["num_draft_tokens"]) if key != "target" else "-",
            f"{row['accepted_per_round']:.2f}" if key != "target" else "-",
            f"{row['tokens_per_second']:.0f}", f"{row['tokens_per_second'] / base:.2f}x",
        )  # fmt: skip
    console = Console()
    console.print()
    console.print(table)
    for sentence in figures["warnings"]:
        typer.secho(f"Warning: {sentence}", err=True, fg=typer.colors.YELLOW)
    target, draft = str(pair.target.config.name_or_path), str(getattr(pair.draft, "name_or_path", "DRAFT"))
    use = _USE.format(
        out=str(out), target=target, draft=draft,
        prompt='[{"role": "user", "content": "Your prompt"}]' if chat else '"Your prompt"',
        form="" if chat else "--no-chat ",
        speculative=shlex.quote(json_module.dumps(
            {"method": "draft_model", "model": draft, "num_speculative_tokens": head.config.num_draft_tokens}
        )),
        additional=shlex.quote(json_module.dumps({"judge": {"head": str(out)}})),
    )  # fmt: skip
    console.print(use, markup=False, highlight=False, soft_wrap=True)


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
  vllm serve {target} --speculative-config {speculative} --additional-config {additional}
"""
