"""A sweep as a picture: what each setting of each rule costs in accuracy and gives in speed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.files import first_problem, read_text
from judge_decoding.report.terminal import safe

CAPTION = (
    "Accuracy with 95% intervals against speed, a point for each setting. Further to the top and right is better; "
    "hollow points are lossless."
)

# Okabe and Ito's colours, told apart by all common kinds of colour vision; the shape says the same again.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_SHAPES = "os^DvPXph*"
_AXES = (("tokens_per_forward", "tokens per target forward"), ("tokens_per_second", "tokens per second"))


class SweepRow(BaseModel):
    """One setting of one rule over a whole data set.

    Attributes:
        name: what the row is called.
        rule: the family it belongs to, drawn in one colour and shape.
        setting: what tells it from others of the family, such as "0.7"; written beside its point.
        num_draft_tokens: draft length.
        accuracy, accuracy_low, accuracy_high: share of right answers, and its 95% interval; 0 to 1.
        tokens_per_forward: tokens per target forward, correction and bonus included.
        tokens_per_second: of decoding alone.
        lossless: the target's own distribution is kept.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)  # a sweep may tell more about each row

    name: str
    rule: str
    setting: str = ""
    num_draft_tokens: int = Field(ge=0)
    accuracy: float = Field(ge=0, le=1)
    accuracy_low: float = Field(ge=0, le=1)
    accuracy_high: float = Field(ge=0, le=1)
    tokens_per_forward: float = Field(ge=0)
    tokens_per_second: float = Field(ge=0)
    lossless: bool = False

    @model_validator(mode="after")
    def _interval_holds_it(self) -> SweepRow:
        if not self.accuracy_low <= self.accuracy <= self.accuracy_high:
            raise ValueError(f"the accuracy {self.accuracy} is outside its interval")
        return self


class _Sweep(BaseModel):
    rows: tuple[SweepRow, ...] = Field(min_length=1)


def read_rows(path: str | Path) -> list[SweepRow]:
    """Read the rows of a sweep: JSON, ``{"rows": [...]}``, each as `SweepRow` says.

    Raises:
        JudgeDecodingError: it cannot be read, or is no such file.
    """
    text = read_text(Path(path), "the sweep")
    try:
        return list(_Sweep.model_validate_json(text).rows)
    except ValidationError as error:
        raise JudgeDecodingError(f"{path} is not a sweep: {first_problem(error)}; make it again.") from error


def pareto_svg(rows: Sequence[SweepRow]) -> str:
    """Accuracy against tokens per target forward, and against tokens per second: an SVG element for a page.

    It refers to nothing outside itself, and the same rows give the same text.

    Raises:
        JudgeDecodingError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise JudgeDecodingError(
            "Plots need matplotlib; install it, or judge-decoding with the extra eval (judge-decoding[eval])."
        ) from error
    rules = list(dict.fromkeys(row.rule for row in rows))
    # As text and not as shapes: smaller, and it can be searched and read aloud. "$" is a dollar and no formula.
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "sweep", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (field, title) in zip(panels, _AXES, strict=True):
            for number, rule in enumerate(rules):
                own = [row for row in rows if row.rule == rule]
                colour = _COLOURS[number % len(_COLOURS)]
                axes.errorbar(
                    [getattr(row, field) for row in own],
                    [row.accuracy for row in own],
                    yerr=[
                        [row.accuracy - row.accuracy_low for row in own],
                        [row.accuracy_high - row.accuracy for row in own],
                    ],
                    fmt=_SHAPES[number % len(_SHAPES)],
                    color=colour,
                    markerfacecolor="white" if all(row.lossless for row in own) else colour,
                    markeredgewidth=1.4,
                    markersize=6,
                    elinewidth=0.9,
                    capsize=2,
                    label=_label(rule),
                )
                for place, row in enumerate(own):  # above and below by turns, as neighbours are often close
                    at, where = (getattr(row, field), row.accuracy), (5, -10 if place % 2 else 4)
                    axes.annotate(
                        _label(row.setting), at, where, textcoords="offset points", fontsize=7, color="#333333"
                    )
            axes.set_xlabel(title)
            axes.grid(color="#e4e6eb", linewidth=0.7)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0.12)
        panels[0].set_ylabel("accuracy")
        panels[0].yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace("<svg", '<svg role="img" aria-label="Accuracy against speed"', 1)


def _label(text: str) -> str:
    """One short line without control characters, which an SVG may not hold."""
    line = safe(" ".join(text.split()))
    return line if len(line) <= 24 else line[:23] + "…"
