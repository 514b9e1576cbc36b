"""The files of a card: the card itself, the results it shows, and their plots."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_bytes, write_text

if TYPE_CHECKING:
    from judge_decoding.core.results import Results

CARD = "README.md"
PICTURES = {
    "reliability.svg": "Share of correct tokens at each score",
    "roc.svg": "Correct tokens kept against wrong tokens kept, over all thresholds",
}
"""The pictures a card can show, by file name."""
PATTERNS = ("results.json", "results-*.json", "pareto.svg", "pareto-*.svg")
"""The files beside the card."""
_NAMES = re.compile(r"(results(-([2-9]|[1-9]\d+))?\.json)|(pareto(-([2-9]|[1-9]\d+))?\.svg)")

AnyResults: TypeAlias = "Results | str | Path"
"""Results, or the file that has them."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A results file that was beside a head when it was loaded; looked into when the head is saved again."""

    path: Path
    content: bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """Results, and the file that goes beside the card."""

    results: Results
    text: str


def files_of_card(folder: Path) -> list[Path]:
    """What a card in ``folder`` is written to, and what is there that it replaces or removes."""
    return [folder / CARD, *(path for path in folder.glob("*.*") if _NAMES.fullmatch(path.name) and path.is_file())]


def kept_results(folder: Path) -> tuple[Kept, ...]:
    """The results files in a head's folder."""
    found = [path for path in folder.glob("results*.json") if _NAMES.fullmatch(path.name) and path.is_file()]
    found.sort(key=lambda path: (len(path.name), path.name))  # 2 before 10
    return tuple(Kept(path, read_bytes(path, "the results")) for path in found)


def given_results(given: AnyResults | Sequence[AnyResults], weights_hash: str) -> list[Measured]:
    """What a user gave as results of the head whose weights have this hash.

    Raises:
        JudgeDecodingError: a file cannot be read, has no results, or tells that they are of another head.
    """
    from judge_decoding.core.results import Results

    several = [given] if isinstance(given, str | Path | Results) else given
    found = []
    for one in several:
        if isinstance(one, Results):
            measured = Measured(one, one.model_dump_json(indent=2) + "\n")
        else:
            measured = _parsed(Kept(Path(one), read_bytes(Path(one), "the results")))
        if not _fits(measured.results, weights_hash):
            raise JudgeDecodingError(
                f"{'These results' if isinstance(one, Results) else one} are of another judge head, "
                f"{measured.results.judge or 'one without a name'}, by its weights; measure this head with evaluate, "
                "or name its own results."
            )
        found.append(measured)
    return found


def still_valid(kept: Sequence[Kept], weights_hash: str) -> list[Measured]:
    """Those of the kept results that are of the head as it is now, if they tell its weights.

    Raises:
        JudgeDecodingError: a file has no results.
    """
    return [one for one in map(_parsed, kept) if _fits(one.results, weights_hash)]


def _parsed(kept: Kept) -> Measured:
    from judge_decoding.core.results import parse_results

    return Measured(parse_results(kept.content, kept.path), kept.content.decode("utf-8"))


def _fits(results: Results, weights_hash: str) -> bool:
    return results.judge_hash in ("", weights_hash)


def texts_of_card(config: dict[str, Any], pictures: Container[str], measured: Sequence[Measured]) -> dict[str, str]:
    """The results that a card shows, their plots, and last the card itself, by file name."""
    # What a card says is of no use to those who only load a head.
    from judge_decoding.report.card import model_card
    from judge_decoding.report.card_results import file_name

    texts, plots = {}, []
    for place, one in enumerate(measured, start=1):
        texts[file_name(place)] = one.text
        svg = _plot(one.results)
        plots.append(file_name(place, "pareto", "svg") if svg else None)
        if svg:
            texts[file_name(place, "pareto", "svg")] = svg
    return texts | {CARD: model_card(config, pictures, [one.results for one in measured], plots)}


def write_card(folder: Path, config: dict[str, Any], pictures: Container[str], measured: Sequence[Measured]) -> None:
    """Write the card, the results it shows and their plots; those of other results that were there before go.

    Raises:
        JudgeDecodingError: the folder cannot be written.
    """
    texts = texts_of_card(config, pictures, measured)
    for name, text in texts.items():
        write_text(folder / name, text)
    for path in files_of_card(folder):
        if path.name not in texts:
            path.unlink()


def _plot(results: Results) -> str:
    """Accuracy against speed; "" without accuracy or matplotlib."""
    from judge_decoding.report.head_pictures import can_draw
    from judge_decoding.report.plots import pareto_svg

    if not can_draw() or any(row.accuracy is None for row in results.rows):
        return ""
    return pareto_svg(results.rows)
