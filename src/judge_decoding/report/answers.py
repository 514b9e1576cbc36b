"""Answers as one self-contained web page: each token marked by why it was kept, and an adjustable judge threshold.

Model output is embedded as text or as JSON, escaped in both cases; the page's own script inserts it as text, and the
page forbids all other scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from judge_decoding.core.rounds import Cause
from judge_decoding.core.samples import Sample
from judge_decoding.pages import file_page
from judge_decoding.report.by_task import by_task
from judge_decoding.report.verdicts import MEANING


def answers_page(
    title: str, samples: Sequence[Sample], *, figures: Sequence[tuple[str, str]] = (), most: int = 200
) -> str:
    """Return the page with the first ``most`` answers; the figures at the top cover all of them.

    ``figures`` are captions and SVGs, which must come from `plots`, since they are inserted unescaped.
    """
    shown = samples[:most]
    facts = summary(samples)
    if len(shown) < len(samples):
        facts["shown here"] = f"the first {len(shown)} answers"
    rejected = ("rejected", "the rest of a draft, thrown away (key R)")
    return file_page(
        "judge_decoding.report",
        "answers",
        title=title,
        facts=facts,
        figures=[(caption, Markup(svg)) for caption, svg in figures],
        tasks=by_task(samples),
        warns=any(sample.distance is not None for sample in samples),
        legend=[*((cause.value, MEANING[cause]) for cause in Cause), rejected],
        samples=shown,
        counts=[_counts(sample) for sample in shown],
        heads=[_head(sample.question) for sample in shown],
        data=htmlsafe_json_dumps({"samples": [_data(sample) for sample in shown]}),
    )


def summary(samples: Sequence[Sample]) -> dict[str, str]:
    """Summarise all answers in words and figures."""
    rounds = [event for sample in samples for event in sample.rounds]
    tokens, drafted = sum(len(event.token_ids) for event in rounds), sum(len(event.draft_ids) for event in rounds)
    accepted = sum(event.accepted for event in rounds)
    rescued = sum(event.causes.count(Cause.RESCUED) for event in rounds)
    facts = {"answers": str(len(samples))}
    for name, verdicts in (
        ("right", [s.correct for s in samples if s.correct is not None]),
        ("right, the target alone", [s.target_correct for s in samples if s.target_correct is not None]),
    ):
        if verdicts:
            facts[name] = f"{sum(verdicts)} of {len(verdicts)}"
    facts["mean acceptance length"] = f"{tokens / max(len(rounds), 1):.2f}"
    if drafted:
        facts["accepted draft tokens per round"] = f"{accepted / len(rounds):.2f}"
        facts["draft tokens accepted"] = f"{accepted / drafted:.1%} of {drafted}"
        facts["rescued tokens"] = f"{rescued} of {tokens} ({rescued / max(tokens, 1):.1%})"
    timed = [s for s in samples if s.seconds and s.target_seconds and s.target_tokens]
    if timed:
        own = sum(s.target_tokens or 0 for s in timed) / sum(s.target_seconds or 0.0 for s in timed)
        ours = sum(len(e.token_ids) for s in timed for e in s.rounds) / sum(s.seconds or 0.0 for s in timed)
        facts["tokens per second"] = f"{ours:.0f}, {ours / own:.2f} times the target alone"
    for name, values in (
        ("rule", [s.rule for s in samples]),
        ("target", [s.target for s in samples]),
        ("draft", [s.draft for s in samples]),
        ("judge", [s.judge for s in samples]),
        ("temperature", [f"{s.temperature:g}" for s in samples]),
        ("seed", [str(s.seed) for s in samples if s.seed is not None]),
    ):
        if distinct := _distinct(values):
            facts[name] = distinct
    return facts


def _distinct(values: Iterable[str]) -> str:
    different = [value for value in dict.fromkeys(values) if value]
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def _counts(sample: Sample) -> str:
    tokens = sum(len(event.token_ids) for event in sample.rounds)
    rescued = sum(event.causes.count(Cause.RESCUED) for event in sample.rounds)
    return f"{rescued} rescued · mean acceptance length {tokens / max(len(sample.rounds), 1):.1f}"


def _head(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= 64 else line[:63] + "…"


def _data(sample: Sample) -> dict[str, object]:
    """Return the data for the page's script."""
    return sample.model_dump(mode="json", exclude={"stats", "question", "reference", "seconds", "target_seconds"})
