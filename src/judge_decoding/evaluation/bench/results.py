"""The output of ``bench``: a row for each decoding method and batch size, and what is needed to reproduce them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from judge_decoding.core.results import ResultsBase
from judge_decoding.evaluation.bench.contenders import ContenderLabel, MethodFamily
from judge_decoding.evaluation.bench.measure import Measurement


class Ratio(BaseModel):
    """How much faster one decoding method is than another.

    Attributes:
        of: name of the method in the numerator.
        over: name of the method in the denominator.
        batch_size: batch size of both.
        medians: ratio of their median tokens per second.
        paired: median of the ratios of single repetitions.
        low, high: the smallest and the largest of those ratios.
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
    """One decoding method at one batch size.

    Attributes:
        name: name of the row.
        family: the kind of method.
        backend: back end of our own loop; "static" for assisted generation with a static cache.
        batch_size: number of prompts decoded together.
        num_draft_tokens: draft length; 0 without a draft, or where a policy or a default chooses.
        note: how the draft length was chosen.
        same_tokens: whether its tokens must equal those of plain greedy decoding.
        unlike: number of prompts whose tokens differ from plain greedy decoding.
        tokens: new tokens in one repetition, end tokens included.
        tokens_per_second: the median over the repetitions; from prompt ids to token ids, reading the prompts included.
        low, high: the lowest and the highest tokens per second.
        speeds: tokens per second of each repetition.
        over_generate: speed ratio to plain ``generate``; None for itself.
        over_assisted: speed ratio to assisted generation at its best; None if that was not measured.
        accepted_per_round: accepted draft tokens per round; None where it is not known.
        tokens_per_forward: tokens per target forward and prompt.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    family: MethodFamily
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
    """All results of a benchmark.

    Attributes:
        prompts: number of decoded prompts.
        tuned_on: number of other prompts on which the best draft lengths were chosen.
        repetitions: number of repetitions, not counting the warm-up.
        threads: number of torch threads.
        rows: one row per method, batch size by batch size; plain ``generate`` comes first in each.
        comparisons: the speed ratios of interest.
        left_out: methods that were not measured, with the reason.
    """

    prompts: int = 0
    tuned_on: int = 0
    repetitions: int = 0
    threads: int = 0
    rows: tuple[BenchRow, ...] = Field(min_length=1)
    comparisons: tuple[Ratio, ...] = ()
    left_out: dict[str, str] = Field(default_factory=dict)


def ratio(of: str, over: str, batch_size: int, own: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of two methods' tokens per second, given as one number per repetition."""
    pairs = [a / b for a, b in zip(own, theirs, strict=True)]
    return Ratio(
        of=of, over=over, batch_size=batch_size, medians=median(own) / median(theirs), paired=median(pairs),
        low=min(pairs), high=max(pairs),
    )  # fmt: skip


def row(label: ContenderLabel, own: Measurement, batch_size: int, *, same_tokens: bool) -> BenchRow:
    """Return the row of a method, without the comparisons."""
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
