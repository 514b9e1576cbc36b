"""From prompts to a head that is ready to use: answers, labels, training, calibration, and what it gives."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from judge_decoding.core.results import ItemResult
from judge_decoding.data.cases import Case, read_cases
from judge_decoding.data.sets import place_of
from judge_decoding.decoder import JudgeDecoder
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.fit.config import FitConfig
from judge_decoding.fit.places import check_places
from judge_decoding.fit.table import JUDGE, TARGET, Answers, Table, measure_table, ticks
from judge_decoding.io.files import parse_json, read_text, write_json
from judge_decoding.io.locks import one_run
from judge_decoding.judge.head import JudgeHead
from judge_decoding.labelling.labels.equivalence import label_by_equivalence
from judge_decoding.labelling.labels.pilot import Forecast, Spent, label_rest
from judge_decoding.labelling.labels.progress import Progress as Labels
from judge_decoding.labelling.labels.swaps import draft_model
from judge_decoding.rules import Exact
from judge_decoding.training.thresholds import Question, Task, calibrate, identity
from judge_decoding.training.training import Progress, train_head

FEW = 100
"""Prompts below which the accuracy that chose the threshold is called rough."""


@dataclass(frozen=True, slots=True)
class FitForecast:
    """What `fit_head` will take, measured on a few prompts.

    Attributes:
        labelling: the labels.
        prompts: how many prompts choose the threshold and the draft length.
        thresholds: how many are tried.
        seconds: about how long that takes.
    """

    labelling: Forecast
    prompts: int
    thresholds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `fit_head` made.

    Attributes:
        head: the head, with its threshold and draft length.
        cases: the labelled answers it was trained on.
        labelling: what labelling took now; None if the labels were there already.
        prompts: how many prompts chose the threshold.
        table: the target alone, standard verification and the judge.
        warnings: what makes the figures doubtful.
    """

    head: JudgeHead
    cases: list[Case]
    labelling: Spent | None
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
    agree: Callable[[FitForecast], bool] = lambda _: True,
    progress: Progress = lambda _what, _done, _total: None,
    labelled: Callable[[Sequence[Case], Spent | None], None] = lambda _cases, _spent: None,
) -> Fitted:
    """Make a judge head for a target and a draft from prompts alone, and save it to ``out``.

    The target answers most of the prompts, and its tokens that the draft would replace are labelled by equivalence:
    does the answer come to the same result with the draft's? A head is trained on them. The other prompts choose its
    threshold and draft length, and show what it gives.

    The head is saved with a bare card; `write_card` puts the full one in its place.

    All that is done is kept in the folder ``<out>.work``: stopped at any moment, the same call goes on.

    Args:
        decoder: target and draft model, or a function that loads them, called when all else is checked.
        prompts: whole prompts, as the target reads them.
        out: folder for the head.
        config: how to make it.
        references: a right answer for each prompt, None or "" where there is none; there the target's own answer is
            taken for right.
        agree: called with the forecast before the cost is spent; if it gives False, that is all.
        progress: told what is being done, and how much of how much is; a total of 0 is not known.
        labelled: called when the labels are there, with the cases and what labelling took now.

    Raises:
        JudgeDecodingError: the folder cannot be written, there are too few prompts, the draft is no model, the forecast
            is not agreed to, the draft never differs, no threshold is good enough, another run is at the folder, or the
            work that was begun was begun with other settings.
    """
    config, out = config or FitConfig(), Path(out)
    work = check_places(out)
    teaching, tuning = divide(prompts, references, config)
    with one_run(out):
        progress("loading the models", 0, 0)
        pair = decoder if isinstance(decoder, JudgeDecoder) else decoder()
        draft_model(pair)
        progress("loading the models", 1, 1)

        cases, spent = _labels(pair, teaching, tuning, config, work, agree, progress)
        labelled(cases, spent)
        head = train_head(pair.target, pair.tokenizer, cases, cache=work / "features", progress=progress)
        head.to(pair.target.device)
        task = _task(pair, tuning, config, work, progress)
        _calibrate(pair, head, task, config, work, progress)
        kept = Answers(work / "answers.jsonl", {"of": _table_of(pair, head, task, config)})
        table = measure_table(pair, head, task, config, kept, progress)
        head.config.num_draft_tokens = table.methods[JUDGE].num_draft_tokens
        warnings = [*head.config.calibration["warnings"], *_doubts(tuning, task, table, config)]
        head.config.calibration |= {"warnings": warnings, "table": table.to_dict()}
        head.save_pretrained(out)
        return Fitted(head, cases, spent, len(task.prompts), table, warnings)


def divide(
    prompts: Sequence[str], references: Sequence[str | None] | None, config: FitConfig
) -> tuple[list[str], list[tuple[str, str]]]:
    """The prompts that are labelled, and those that choose the threshold, with their references ("" for none).

    Where a prompt goes depends on its text and the seed alone.

    Raises:
        JudgeDecodingError: one of the two would be empty, or there is another number of references than of prompts.
    """
    given = [None] * len(prompts) if references is None else references
    if len(given) != len(prompts):
        raise JudgeDecodingError(f"There are {len(prompts)} prompts and {len(given)} references; give one a prompt.")
    known: dict[str, str] = {}
    for prompt, reference in zip(prompts, given, strict=True):
        known.setdefault(prompt, reference or "")
    # Not as court split does, whose parts may come here.
    salt = f"fit {config.seed}"
    teaching = [prompt for prompt in known if place_of(prompt, salt) >= config.share]
    tuning = [(prompt, found) for prompt, found in known.items() if place_of(prompt, salt) < config.share]
    if not tuning or not teaching:
        raise JudgeDecodingError(f"{len(known)} prompts are too few to divide; give more, or another share.")
    return teaching, tuning


def _labels(
    pair: JudgeDecoder,
    teaching: list[str],
    tuning: Sequence[tuple[str, str]],
    config: FitConfig,
    work: Path,
    agree: Callable[[FitForecast], bool],
    progress: Progress,
) -> tuple[list[Case], Spent | None]:
    """The labels of an earlier run, or new ones and what they took."""
    path, mark = work / "labels.jsonl", work / "labels.settings.json"
    settings = {
        "target": str(pair.target.config.name_or_path), "draft": str(draft_model(pair).config.name_or_path),
        "dtype": str(pair.target.dtype), "weights": identity(pair)[:12], "result": config.result_name,
        "max_new_tokens": config.max_new_tokens, "seed": config.seed, "share": config.share,
    }  # fmt: skip
    about = {"settings": settings, "questions": hashlib.sha256("\0".join(teaching).encode()).hexdigest()}
    if path.exists() and _noted(mark) == about:
        with suppress(JudgeDecodingError):  # one that was begun with other settings is for another run
            Labels(path, settings).part.unlink(missing_ok=True)
        return read_cases(path), None

    def label(todo: list[str], done: Callable[[str, list[Case], int], None]) -> None:
        label_by_equivalence(
            pair, todo, config.function,
            max_new_tokens=config.max_new_tokens, batch_size=config.batch_size, done=done,
        )  # fmt: skip

    def ask(labelling: Forecast) -> None:
        seconds = _seconds_to_choose(pair, [prompt for prompt, _ in tuning], config, progress)
        if not agree(FitForecast(labelling, len(tuning), len(config.thresholds), seconds)):
            raise JudgeDecodingError(f"The forecast was not agreed to; what is done is kept in {work}.")

    labels = Labels(path, settings)
    spent = label_rest(teaching, label, labels, agree=ask, tell=progress)
    # Noted before the part goes: a kill in between must not label everything again.
    return labels.finish(teaching, lambda: write_json(mark, about)), spent


def _noted(path: Path) -> object:
    try:
        return parse_json(read_text(path, "the settings of the labels"))
    except (JudgeDecodingError, ValueError):
        return None


def _seconds_to_choose(pair: JudgeDecoder, prompts: Sequence[str], config: FitConfig, progress: Progress) -> float:
    """About how long thresholds, draft lengths and the table take: two answers are timed, a batch and one alone."""
    some, tick = prompts[: config.batch_size], ticks(progress, "timing a few answers", 2)

    def seconds(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        spent = time.perf_counter() - begin
        tick()
        return spent

    together = seconds(
        lambda: pair.generate_batch(some, config.max_new_tokens, batch_size=len(some), rule=Exact(), temperature=0)
    )
    alone = seconds(lambda: pair.generate(some[0], config.max_new_tokens, rule=Exact(), temperature=0))
    # The thresholds, the target's own answers twice, and the three ways of the table.
    batches = (len(config.thresholds) + 5) * len(prompts) / len(some)
    lengths = len(config.exact_lengths) + len(config.judge_lengths)
    timed = min(config.length_prompts, len(prompts)) * lengths + 3 * min(config.timed_prompts, len(prompts))
    return together * batches + alone * timed


def _task(
    pair: JudgeDecoder, tuning: Sequence[tuple[str, str]], config: FitConfig, work: Path, progress: Progress
) -> Task:
    """The calibration task; where there is no reference the target's own answer is the right one."""
    bare = [prompt for prompt, reference in tuning if not reference]
    own = Answers(work / "own_answers.jsonl", {"of": identity(pair, bare, config.max_new_tokens)})
    todo = [i for i in range(len(bare)) if (TARGET, str(i)) not in own.known]
    for first in range(0, len(todo), config.batch_size):
        progress("the target's own answers", len(bare) - len(todo) + first, len(bare))
        some = todo[first : first + config.batch_size]
        made = pair.generate_batch(
            [bare[i] for i in some], config.max_new_tokens, batch_size=len(some), rule=Exact(), temperature=0
        )
        for i, one in zip(some, made, strict=True):
            stats = one.stats
            own.add(TARGET, ItemResult(str(i), None, stats.rounds, stats.tokens, stats.accepted), {"text": one.text})
    texts = {prompt: own.told[TARGET, str(i)]["text"] for i, prompt in enumerate(bare)}
    return Task.of(
        [Question(question=prompt, reference=reference or texts[prompt]) for prompt, reference in tuning],
        config.function,
    )


def _calibrate(
    pair: JudgeDecoder, head: JudgeHead, task: Task, config: FitConfig, work: Path, progress: Progress
) -> None:
    try:
        calibrate(
            pair, head, task, config.points,
            thresholds=config.thresholds, max_new_tokens=config.max_new_tokens, batch_size=config.batch_size,
            part=work / "calibration.json", keep_part=True,
            progress=ticks(progress, "calibrating the threshold", (len(config.thresholds) + 1) * len(task.prompts)),
        )  # fmt: skip
    except JudgeDecodingError as error:
        head.save_pretrained(work / "head")
        raise JudgeDecodingError(
            f"{str(error).rstrip('.')}. The head without a calibrated threshold is in {work / 'head'}."
        ) from error


def _table_of(pair: JudgeDecoder, head: JudgeHead, task: Task, config: FitConfig) -> str:
    """What the answers of the table depend on; where they are counted and timed, too."""
    plain = replace(config, result="number")
    return identity(
        pair, list(task.prompts), task.key, config.result_name, repr(plain), head.config.threshold, head=head
    )


def _doubts(tuning: Sequence[tuple[str, str]], task: Task, table: Table, config: FitConfig) -> list[str]:
    """Why the figures are to be taken with care."""
    found, judge, target = [], table.methods[JUDGE], table.methods[TARGET]
    bare = sum(not reference for _, reference in tuning)
    if bare:
        found.append(
            f"{bare} of the {len(tuning)} calibration prompts have no reference: there accuracy is having the same "
            "result as the target's own answer."
        )
    if len(task.prompts) < FEW:
        found.append(
            f"Only {len(task.prompts)} prompts chose the threshold, so the accuracy is rough; give more prompts."
        )
    lost = 100 * (target.accuracy - judge.accuracy)
    if lost > config.points + 1e-9:
        found.append(
            f"The threshold was chosen at another draft length: at {judge.num_draft_tokens} the judge loses {lost:.1f} "
            f"points on the table's prompts, more than the {config.points:g} allowed; choose a higher threshold."
        )
    return found
