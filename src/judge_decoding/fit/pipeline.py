"""From prompts to a head that is ready to use: answers, labels, training, calibration and measurement."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from os.path import normpath
from pathlib import Path
from typing import Any

from judge_decoding.core.progress import StageProgress
from judge_decoding.core.results import ItemResult
from judge_decoding.core.tracking import Logger, log_fields
from judge_decoding.data.cases import Case, read_cases
from judge_decoding.data.leaks import check_not_trained_on, occur_in
from judge_decoding.data.sets import split_position
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.evaluation.evaluate import forms
from judge_decoding.evaluation.record import KeptRecord, RecordedAnswer
from judge_decoding.evaluation.thresholds import calibrate, calibration_items, described, identity, log_calibration
from judge_decoding.fit.config import FitConfig
from judge_decoding.fit.table import JUDGE, TARGET, Table, measure_table
from judge_decoding.io.files import check_output_folders, parse_json, read_text, write_json
from judge_decoding.io.locks import one_run
from judge_decoding.judge.head import JudgeHead
from judge_decoding.labelling.labels.equivalence import label_by_equivalence
from judge_decoding.labelling.labels.progress import Forecast, LabellingCost, LabellingProgress, label_rest
from judge_decoding.labelling.labels.swaps import check_draft_model
from judge_decoding.names import embedded_path
from judge_decoding.rules import Exact
from judge_decoding.tasks.base import Item
from judge_decoding.tasks.prompt_format import PromptFormat
from judge_decoding.tasks.prompts import Prompts
from judge_decoding.training.draft_options import prompts_hash
from judge_decoding.training.training import ticks, train_head

FEW = 100
"""With fewer prompts than this, a warning calls the accuracy that chose the threshold rough."""


@dataclass(frozen=True, slots=True)
class FitForecast:
    """The cost of `fit_head`, estimated on a few prompts.

    Attributes:
        labelling: the forecast for the labels.
        prompts: how many prompts choose the threshold and the draft length.
        thresholds: how many thresholds are tried.
        seconds: about how long it takes to choose the threshold and to measure the table.
    """

    labelling: Forecast
    prompts: int
    thresholds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """The result of `fit_head`.

    Attributes:
        head: the head, with its threshold and draft length.
        cases: the labelled answers it was trained on.
        labelling: what labelling cost in this run; None if the labels already existed.
        prompts: how many prompts chose the threshold.
        table: the target alone, standard verification and the judge.
        warnings: reasons to doubt the figures.
    """

    head: JudgeHead
    cases: list[Case]
    labelling: LabellingCost | None
    prompts: int
    table: Table
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        config = self.head.config
        return {
            "threshold": config.threshold, "num_draft_tokens": config.num_draft_tokens, "cases": len(self.cases),
            "auc": config.calibration["auc"], "calibration_prompts": self.prompts, **self.table.to_dict(),
            "warnings": self.warnings,
        }  # fmt: skip


def fit_head(
    decoder: JudgeDecoder | Callable[[], JudgeDecoder],
    prompts: Sequence[str],
    out: str | Path,
    config: FitConfig | None = None,
    *,
    references: Sequence[str | None] | None = None,
    calibrate_on: tuple[PromptFormat, Sequence[Item]] | None = None,
    agree: Callable[[FitForecast], bool] = lambda _: True,
    progress: StageProgress = lambda _what, _done, _total: None,
    labelled: Callable[[Sequence[Case], LabellingCost | None], None] = lambda _cases, _spent: None,
    logger: Logger | None = None,
) -> Fitted:
    """Make a judge head for a target and a draft from prompts alone, and save it to ``out``.

    The target answers most of the prompts. Its tokens that the draft would replace are labelled by equivalence: does
    the answer keep its result with the draft's token? A head is trained on these labels. The other prompts choose its
    threshold and draft length, and measure it.

    The head is saved with a bare card; `write_card` replaces it with the full one.

    All work is kept in the folder ``<out>.work``: after an interruption, the same call resumes.

    Args:
        decoder: target and draft model, or a function that loads them, called after all other checks.
        prompts: whole prompts, as the target reads them.
        out: folder for the head.
        config: how to make it.
        references: a right answer for each prompt, None or "" if there is none; the target's own answer then counts as
            right.
        calibrate_on: a separate task that chooses threshold and draft length; then all prompts are labelled, and there
            are no references.
        agree: called with the forecast before the cost is incurred; if it returns False, the work stops.
        progress: called with the name of the current stage, how much of it is done, and its total (0 if unknown).
        labelled: called when the labels exist, with the cases and what labelling cost in this run.
        logger: receives what `train_head` logs, then accuracy and accepted draft tokens at each threshold, and the rows
            of the table; see `log_to`.

    Raises:
        JudgeDecodingError: the folder cannot be written, there are too few prompts, the draft is not a model, the
            forecast is not agreed to, the draft never differs, a question of the task is also labelled, no threshold is
            good enough, another run is using the folder, or the earlier work in it has other settings.
    """
    config, out = config or FitConfig(), Path(out)
    work = check_output_folders(out, "a head", "labels.jsonl")
    if calibrate_on is None:
        prompt_format = PromptFormat(Prompts(config.result), max_new_tokens=config.max_new_tokens)
        teaching, tuning = divide(prompts, references, config)
    else:
        prompt_format, teaching = calibrate_on[0], [*dict.fromkeys(prompts)]
        tuning = calibration_items(prompt_format.task, calibrate_on[1])
    with one_run(out):
        progress("loading the models", 0, 0)
        pair = decoder if isinstance(decoder, JudgeDecoder) else decoder()
        check_draft_model(pair)
        progress("loading the models", 1, 1)
        check_not_trained_on(forms(tuning, prompt_format, pair.tokenizer), teaching)

        cases, spent = _labels(pair, teaching, (prompt_format, tuning), config, work, agree, progress)
        labelled(cases, spent)
        # A prompt on which the draft agrees everywhere gives no case, and is no less familiar for it.
        head = train_head(
            pair.target, pair.tokenizer, cases, prompts=teaching, cache=work / "features", progress=progress,
            logger=logger,
        )  # fmt: skip
        head.to(pair.target.device)
        blank = {item.key for item in tuning if not item.reference} if calibrate_on is None else set()
        items = _answered(pair, tuning, config, work, progress) if blank else tuning
        items = calibration_items(prompt_format.task, items)
        _calibrate(pair, head, prompt_format, items, config, work, progress)
        log_calibration(logger, head)
        kept = KeptRecord(work / "answers.jsonl", {"of": _table_of(pair, head, prompt_format, items, config)})
        table = measure_table(pair, head, prompt_format, items, config, kept, progress)
        for name, figures in table.methods.items():
            log_fields(logger, f"table/{name}", asdict(figures))
        head.config.num_draft_tokens = table.methods[JUDGE].num_draft_tokens
        warnings = [
            *head.config.calibration["warnings"],
            *_doubts(sum(item.key in blank for item in items), len(items), table, config),
        ]
        head.config.calibration |= {"warnings": warnings, "table": table.to_dict()}
        head.save_pretrained(out)
        return Fitted(head, cases, spent, len(items), table, warnings)


def divide(
    prompts: Sequence[str], references: Sequence[str | None] | None, config: FitConfig
) -> tuple[list[str], list[Item]]:
    """The prompts that are labelled, and those that choose the threshold, with their references ("" for none).

    The group of a prompt depends on its text and the seed alone. But a prompt that contains, or is contained in, one
    that chooses the threshold is not labelled.

    Raises:
        JudgeDecodingError: one of the two groups would be empty, or the numbers of references and prompts differ.
    """
    given = [None] * len(prompts) if references is None else references
    if len(given) != len(prompts):
        raise JudgeDecodingError(f"There are {len(prompts)} prompts and {len(given)} references; give one per prompt.")
    known: dict[str, str] = {}
    for prompt, reference in zip(prompts, given, strict=True):
        known.setdefault(prompt, reference or "")
    # The salt differs from that of court split, whose parts may be the input here.
    salt = f"fit {config.seed}"
    tuning = [
        Item(str(number), (prompt,), found)
        for number, (prompt, found) in enumerate(known.items())
        if split_position(prompt, salt) < config.share
    ]
    others = [prompt for prompt in known if split_position(prompt, salt) >= config.share]
    shared = occur_in([[prompt] for prompt in others], (item.turns[0] for item in tuning))
    teaching = [prompt for prompt, there in zip(others, shared, strict=True) if not there]
    if not tuning or not teaching:
        raise JudgeDecodingError(f"{len(known)} prompts are too few to split; give more, or another share.")
    return teaching, tuning


def draft_prompts(prompts: Sequence[str], config: FitConfig, *, all_of_them: bool = False) -> list[str]:
    """The prompts that a draft may be trained on before `fit_head`: the ones that will be labelled.

    The others choose the threshold and measure the head; training the draft on them would flatter the figures. With
    ``all_of_them``, a task chooses the threshold, so that all prompts are labelled.
    """
    return [*dict.fromkeys(prompts)] if all_of_them else divide(prompts, None, config)[0]


def earlier_draft(folder: Path, target: str, layers: int, prompts: Sequence[str]) -> bool:
    """Whether ``folder`` holds a draft of so many layers that an earlier run made from ``target`` with these prompts.

    Raises:
        JudgeDecodingError: the folder holds another model.
    """
    path = folder / "config.json"
    if not path.exists():
        return False
    try:
        config = parse_json(read_text(path, "the draft's configuration"))
        made_of = normpath(str(config["draft_of"])) == normpath(embedded_path(target, "target"))
        same = made_of and (config["draft_layers"], config["draft_prompts"]) == (layers, prompts_hash(prompts))
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise JudgeDecodingError(
            f"{folder} already exists, and is not a draft of {layers} layers of {target} made with these prompts; "
            "remove it, or give it with --draft instead of --make-draft."
        )
    return True


def _labels(
    pair: JudgeDecoder,
    teaching: list[str],
    tuning: tuple[PromptFormat, Sequence[Item]],
    config: FitConfig,
    work: Path,
    agree: Callable[[FitForecast], bool],
    progress: StageProgress,
) -> tuple[list[Case], LabellingCost | None]:
    """The labels of an earlier run, or new labels and their cost."""
    path, mark = work / "labels.jsonl", work / "labels.settings.json"
    settings = {
        "target": str(pair.target.config.name_or_path), "draft": str(check_draft_model(pair).config.name_or_path),
        "dtype": str(pair.target.dtype), "weights": identity(pair)[:12], "result": config.result_name,
        "max_new_tokens": config.max_new_tokens, "seed": config.seed, "share": config.share,
    }  # fmt: skip
    about = {"settings": settings, "questions": hashlib.sha256("\0".join(teaching).encode()).hexdigest()}
    if path.exists() and _noted(mark) == about:
        with suppress(JudgeDecodingError):  # a part with other settings belongs to another run
            LabellingProgress(path, settings).part.unlink(missing_ok=True)
        return read_cases(path), None

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        label_by_equivalence(
            pair, todo, config.function,
            max_new_tokens=config.max_new_tokens, batch_size=config.batch_size, done=done,
        )  # fmt: skip

    def ask(labelling: Forecast) -> None:
        prompt_format, items = tuning
        seconds = _seconds_to_choose(pair, prompt_format, items, config, progress)
        if not agree(FitForecast(labelling, len(items), len(config.thresholds), seconds)):
            raise JudgeDecodingError(f"The run was not confirmed; finished work is kept in {work}.")

    labels = LabellingProgress(path, settings)
    spent = label_rest(teaching, label, labels, agree=ask, report=progress)
    # The mark is written before the part is removed, so that a kill in between does not repeat all labelling.
    return labels.finish(teaching, lambda: write_json(mark, about)), spent


def _noted(path: Path) -> object:
    try:
        return parse_json(read_text(path, "the settings of the labels"))
    except (JudgeDecodingError, ValueError):
        return None


def _seconds_to_choose(
    pair: JudgeDecoder, prompt_format: PromptFormat, items: Sequence[Item], config: FitConfig, progress: StageProgress
) -> float:
    """Estimate the time for thresholds, draft lengths and the table by timing a batch and a single answer."""
    prompts = [prompt_format.prompt(item) for item in items]
    some, tick = prompts[: config.batch_size], ticks(progress, "timing a few answers", 2)

    def seconds(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        spent = time.perf_counter() - begin
        tick()
        return spent

    together = seconds(
        lambda: pair.generate_batch(some, prompt_format.budget, batch_size=len(some), rule=Exact(), temperature=0)
    )
    alone = seconds(lambda: pair.generate(some[0], prompt_format.budget, rule=Exact(), temperature=0))
    # The thresholds, the target's own answers twice, and the three methods of the table.
    batches = (len(config.thresholds) + 5) * len(prompts) / len(some)
    lengths = len(config.exact_lengths) + len(config.judge_lengths)
    timed = min(config.length_prompts, len(prompts)) * lengths + 3 * min(config.timed_prompts, len(prompts))
    return together * batches + alone * timed


def _answered(
    pair: JudgeDecoder, tuning: Sequence[Item], config: FitConfig, work: Path, progress: StageProgress
) -> list[Item]:
    """The items; those without a reference get the target's own answer as the right one."""
    bare = [item.turns[0] for item in tuning if not item.reference]
    own = KeptRecord(work / "own_answers.jsonl", {"of": identity(pair, bare, config.max_new_tokens)})
    todo = [i for i in range(len(bare)) if (TARGET, str(i)) not in own.done]
    for first in range(0, len(todo), config.batch_size):
        progress("the target's own answers", len(bare) - len(todo) + first, len(bare))
        some = todo[first : first + config.batch_size]
        made = pair.generate_batch(
            [bare[i] for i in some], config.max_new_tokens, batch_size=len(some), rule=Exact(), temperature=0
        )
        for i, one in zip(some, made, strict=True):
            stats = one.stats
            result = ItemResult(str(i), None, stats.rounds, stats.tokens, stats.accepted)
            own.add((TARGET, str(i)), RecordedAnswer(result, {"text": one.text}))
    texts = {prompt: own.done[TARGET, str(i)].extra["text"] for i, prompt in enumerate(bare)}
    return [replace(item, reference=item.reference or texts[item.turns[0]]) for item in tuning]


def _calibrate(
    pair: JudgeDecoder,
    head: JudgeHead,
    prompt_format: PromptFormat,
    items: Sequence[Item],
    config: FitConfig,
    work: Path,
    progress: StageProgress,
) -> None:
    try:
        calibrate(
            pair, head, prompt_format, items, config.points, thresholds=config.thresholds, batch_size=config.batch_size,
            part=work / "calibration.jsonl", keep_part=True,
            progress=ticks(progress, "calibrating the threshold", (len(config.thresholds) + 1) * len(items)),
        )  # fmt: skip
    except JudgeDecodingError as error:
        head.save_pretrained(work / "head")
        raise JudgeDecodingError(
            f"{str(error).rstrip('.')}. The head without a calibrated threshold is in {work / 'head'}."
        ) from error


def _table_of(
    pair: JudgeDecoder, head: JudgeHead, prompt_format: PromptFormat, items: Sequence[Item], config: FitConfig
) -> str:
    """An identity of everything the table's answers depend on, including how they are counted and timed."""
    plain = replace(config, result="number")
    return identity(pair, described(prompt_format, items), repr(plain), head.config.threshold, head=head)


def _doubts(bare: int, count: int, table: Table, config: FitConfig) -> list[str]:
    """The reasons to doubt the figures; of ``count`` prompts, ``bare`` have no reference."""
    found, judge, target = [], table.methods[JUDGE], table.methods[TARGET]
    if bare:
        found.append(
            f"{bare} of the {count} calibration prompts have no reference: there accuracy is having the same "
            "result as the target's own answer."
        )
    if count < FEW:
        found.append(f"Only {count} prompts chose the threshold, so the accuracy is rough; give more prompts.")
    lost = 100 * (target.accuracy - judge.accuracy)
    if lost > config.points + 1e-9:
        found.append(
            f"The threshold was chosen at another draft length: at {judge.num_draft_tokens} the judge loses {lost:.1f} "
            f"points on the table's prompts, more than the {config.points:g} allowed; choose a higher threshold."
        )
    return found
