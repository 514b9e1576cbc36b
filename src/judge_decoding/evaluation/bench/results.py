"""What ``bench`` writes: a row for each way of decoding and batch size, and what is needed to have them again."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from judge_decoding.core.results import ResultsBase
from judge_decoding.evaluation.bench.measure import Measured
from judge_decoding.evaluation.bench.ways import Family, Label


class Ratio(BaseModel):
    """How much faster one way is than another.

    Attributes:
        of: the name of the one.
        over: the name of the other.
        batch_size: of both.
        medians: ratio of their median tokens per second.
        paired: median of the ratios of the single repetitions.
        low, high: the least and the largest of those.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    of: str
    over: str
    batch_size: int
    medians: float
    paired: float
    low: float
    high: float


class BenchRow(BaseModel):
    """One way of decoding.

    Attributes:
        name: of the row.
        family: what decodes.
        backend: of our own loop.
        batch_size: prompts that are decoded together.
        num_draft_tokens: draft length; 0 without a draft, or where a policy or a default chooses.
        note: how the draft length came about.
        same_tokens: its tokens have to be those of plain greedy decoding.
        unlike: how many prompts got other tokens than that.
        tokens: new tokens in one repetition, end tokens included.
        tokens_per_second: the median over the repetitions; from prompt ids to token ids, reading the prompts included.
        low, high: the least and the most.
        speeds: of each repetition.
        over_generate: against plain ``generate``; None for itself.
        over_assisted: against assisted generation at its best; None where there is none.
        accepted_per_round: accepted draft tokens per round; None where it is not known.
        tokens_per_forward: tokens per target forward and prompt.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    family: Family
    backend: str = ""
    batch_size: int = Field(ge=1)
    num_draft_tokens: int = Field(default=0, ge=0)
    note: str = ""
    same_tokens: bool
    unlike: int = Field(ge=0)
    tokens: int = Field(ge=0)
    tokens_per_second: float
    low: float
    high: float
    speeds: tuple[float, ...] = Field(min_length=1)
    over_generate: Ratio | None = None
    over_assisted: Ratio | None = None
    accepted_per_round: float | None = None
    tokens_per_forward: float | None = None


class BenchResults(ResultsBase):
    """All of it.

    Attributes:
        prompts: how many were decoded.
        tuned_on: on how many others the best draft lengths were chosen.
        repetitions: how often, beside a warm-up.
        threads: of torch.
        rows: a row a way, batch size by batch size; plain ``generate`` is the first of each.
        comparisons: the ratios one would ask for.
        left_out: what was not measured, and why.
    """

    prompts: int = 0
    tuned_on: int = 0
    repetitions: int = 0
    threads: int = 0
    rows: tuple[BenchRow, ...] = Field(min_length=1)
    comparisons: tuple[Ratio, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)


def ratio(of: str, over: str, batch_size: int, own: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio of two ways' tokens per second, each a number a repetition."""
    pairs = [a / b for a, b in zip(own, theirs, strict=True)]
    return Ratio(
        of=of, over=over, batch_size=batch_size, medians=median(own) / median(theirs), paired=median(pairs),
        low=min(pairs), high=max(pairs),
    )  # fmt: skip


def row(label: Label, own: Measured, batch_size: int, *, same_tokens: bool) -> BenchRow:
    """The row of a way, without what compares it."""
    per_forward = accepted = None
    if own.stats.rounds:
        per_forward = own.stats.tokens_per_forward
        accepted = own.stats.accepted_per_round if own.stats.drafted else None
    elif label.family == "generate":
        per_forward = 1.0
    elif own.forwards and batch_size == 1:
        per_forward = sum(own.new_tokens) / own.forwards
    return BenchRow(
        name=label.name, family=label.family, backend=label.backend, batch_size=batch_size,
        num_draft_tokens=label.num_draft_tokens, note=label.note, same_tokens=same_tokens, unlike=len(own.unlike),
        tokens=own.new_tokens[-1], tokens_per_second=own.speed, low=min(own.speeds), high=max(own.speeds),
        speeds=tuple(own.speeds), accepted_per_round=accepted, tokens_per_forward=per_forward,
    )  # fmt: skip
