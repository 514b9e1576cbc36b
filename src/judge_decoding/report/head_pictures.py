"""Draw how far a head can be trusted: its reliability diagram and its ROC curve."""

from __future__ import annotations

import io
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.intervals import fewest_digits
from judge_decoding.statistics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from judge_decoding.judge.config import JudgeHeadConfig

# From Okabe and Ito's palette, which is safe for colour-blind readers.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def head_pictures(config: JudgeHeadConfig) -> dict[str, str]:
    """Draw SVGs, by file name, from the figures in a head's configuration, for `save_head`.

    Raises:
        JudgeDecodingError: matplotlib is missing, or the head has no such figures.
    """
    if not can_draw():
        raise JudgeDecodingError("Pictures need matplotlib; install it with: pip install 'judge-decoding[eval]'.")
    figures = config.calibration
    if "reliability" not in figures or "roc" not in figures:
        raise JudgeDecodingError("This head's configuration has no reliability diagram and no ROC; train it again.")
    return {"reliability.svg": _reliability(figures), "roc.svg": _roc(figures, config.threshold)}


def _reliability(figures: dict[str, Any]) -> str:
    """Plot the share of correct tokens, and the number of tokens, over the score."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)

    rows = figures["reliability"]
    figure = Figure(figsize=(5, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    shares = [row["correct"] for row in rows]
    ends = [wilson(round(row["correct"] * row["tokens"]), row["tokens"]) for row in rows]
    spread = [
        [max(share - low, 0) for share, (low, _) in zip(shares, ends, strict=True)],
        [max(high - share, 0) for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    top.errorbar(
        [row["score"] for row in rows], shares, yerr=spread, color=_BLUE, marker="o", capsize=3,
        label="this head, 95% intervals",
    )  # fmt: skip
    _frame(top, "", "share of tokens that are correct")
    top.set_title(f"Reliability out of fold (calibration error {figures['ece']:.3f})", fontsize=10)
    top.legend(loc="lower right", fontsize=8)
    bottom.bar(
        [row["low"] for row in rows], [row["tokens"] for row in rows],
        width=[row["high"] - row["low"] for row in rows], align="edge", color=_BLUE, edgecolor="white",
    )  # fmt: skip
    bottom.set_yscale("log")
    bottom.set_ylim(0.5, 10 ** math.ceil(math.log10(max(row["tokens"] for row in rows) + 1)))
    bottom.set_xlabel("score (probability of correct)")
    bottom.set_ylabel("tokens")
    return _svg(figure)


def _roc(figures: dict[str, Any], threshold: float) -> str:
    """Plot the correct tokens kept over the wrong tokens kept, with the threshold marked."""
    from matplotlib.figure import Figure  # noqa: PLC0415  (an extra)

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="chance")
    points = figures["roc"]
    axes.plot(points["wrong_kept"], points["correct_kept"], color=_BLUE, label="this head")
    if figures.get("caught_wrong") is not None:
        axes.plot(
            1 - figures["caught_wrong"], figures["kept_correct"], color=_ORANGE, marker="D", linestyle="none",
            label=f"at the threshold {fewest_digits(threshold)}",
        )  # fmt: skip
    _frame(axes, "share of wrong tokens kept", "share of correct tokens kept")
    axes.set_aspect("equal")
    axes.set_title(f"ROC out of fold (AUC {figures['auc']:.3f})", fontsize=10)
    axes.legend(loc="lower right", fontsize=8)
    return _svg(figure)


def _frame(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#dddddd", linewidth=0.5)


def _svg(figure: Figure) -> str:
    import matplotlib  # noqa: PLC0415  (an extra)

    out = io.StringIO()
    # The same figures must give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "judge-decoding", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()
