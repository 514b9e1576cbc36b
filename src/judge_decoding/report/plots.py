"""Plot a sweep: what each setting of each rule costs in accuracy and gains in speed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from judge_decoding.core.results import MATCHED, ResultRow
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.report import head_pictures
from judge_decoding.visible import one_line

CAPTION = (
    "Accuracy with 95% intervals against speed, a point for each setting. Further to the top and right is better; to "
    "the settings on the grey line no other is better in both, as far as these figures go; "
    "hollow points are verified without loss: by the target itself, or, where they are called matched, by the target "
    "sampled under the truncation of the rule of the same colour."
)

# Okabe and Ito's palette, safe for colour-blind readers; the marker shape encodes the same information.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_SMALL = 7
"""Font size of the labels, in points."""
_SHAPES = "os^DvPXph*"
_AXES = (("tokens_per_forward", "mean acceptance length"), ("tokens_per_second", "tokens per second"))


def check_plots() -> None:
    """Check before a long run that its plots can be drawn at the end.

    Raises:
        JudgeDecodingError: matplotlib is not installed.
    """
    if not head_pictures.can_draw():
        raise JudgeDecodingError("This needs matplotlib; install it with: pip install 'judge-decoding[eval]'.")


def pareto_svg(rows: Sequence[ResultRow]) -> str:
    """Plot accuracy against tokens per target forward and against tokens per second, as an SVG element for a page.

    The SVG is self-contained, and the same rows give the same text. Untimed results have only the first panel.

    Raises:
        JudgeDecodingError: matplotlib is not installed, or the rows have no accuracy.
    """
    if any(row.accuracy is None for row in rows):
        raise JudgeDecodingError(
            "The rows have no accuracy, so there is nothing to plot; use a task whose answers can be checked."
        )
    shown = [(field, title) for field, title in _AXES if all(getattr(row, field) is not None for row in rows)]
    check_plots()
    import matplotlib as mpl  # noqa: PLC0415  (an extra)
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)

    rules = list(dict.fromkeys(row.rule for row in rows))
    families = list(dict.fromkeys(rule.removesuffix(MATCHED) for rule in rules))
    # Text instead of shapes is smaller, and can be searched and read aloud. "$" is a dollar sign, not a formula.
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "sweep", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.6, 5), layout="constrained", dpi=72)  # so that one pixel is one point
        panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, (field, title) in zip(panels, shown, strict=True):
            for rule in rules:
                own, number = [row for row in rows if row.rule == rule], families.index(rule.removesuffix(MATCHED))
                colour = _COLOURS[number % len(_COLOURS)]
                ends = [(row.accuracy or 0.0, row.accuracy_low or 0.0, row.accuracy_high or 0.0) for row in own]
                axes.errorbar(
                    [getattr(row, field) for row in own],
                    [share for share, _, _ in ends],
                    yerr=[[share - low for share, low, _ in ends], [high - share for share, _, high in ends]],
                    fmt=_SHAPES[number % len(_SHAPES)],
                    color=colour,
                    markerfacecolor="white" if all(row.lossless for row in own) else colour,
                    markeredgewidth=1.4,
                    markersize=6,
                    elinewidth=0.9,
                    capsize=2,
                    label=_label(rule),
                )
            front = _front([(getattr(row, field), row.accuracy or 0.0) for row in rows])
            axes.plot(*zip(*front, strict=True), color="#9aa0aa", linewidth=1, zorder=0, label="no other is better")
            axes.set_xlabel(title)
            axes.grid(color="#e4e6eb", linewidth=0.7)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0.12)
        panels[0].set_ylabel("accuracy")
        panels[0].yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6, frameon=False)
        figure.draw_without_rendering()  # the points have no positions before this
        for axes, (field, _) in zip(panels, shown, strict=True):
            at = [(getattr(row, field), row.accuracy) for row in rows]
            labels = [_label(row.setting) for row in rows]
            offsets = _apart(labels, [axes.transData.transform(point) for point in at])
            for label, point, offset in zip(labels, at, offsets, strict=True):
                axes.annotate(label, point, offset, textcoords="offset points", fontsize=_SMALL, color="#333333")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :].replace("<svg", '<svg role="img" aria-label="Accuracy against speed"', 1)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front: the points (speed, accuracy) that no other point dominates."""
    front: list[tuple[float, float]] = []
    for speed, accuracy in sorted(points, reverse=True):
        if not front or accuracy > front[-1][1]:
            front.append((speed, accuracy))
    return front[::-1]


def _apart(labels: Sequence[str], spots: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return each label's offset from its point, in points: the first free position, or the one with least overlap."""
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    offsets = []
    for label, (x, y) in zip(labels, spots, strict=True):
        width = 0.6 * _SMALL * len(label)
        places = [(side, step) for step in (4.0, -10.0, 13.0, -19.0, 22.0, -28.0) for side in (5.0, -5.0 - width)]
        boxes = {(dx, dy): (x + dx, y + dy, x + dx + width, y + dy + _SMALL) for dx, dy in places}
        best = min(boxes, key=lambda place: sum(_overlap(boxes[place], other) for other in taken))
        offsets.append(best)
        if label:
            taken.append(boxes[best])
    return offsets


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the overlap area of two boxes (left, bottom, right, top)."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _label(text: str) -> str:
    """Shorten ``text`` to one line without control characters, which an SVG must not contain."""
    line = one_line(text)
    return line if len(line) <= 24 else line[:23] + "…"
