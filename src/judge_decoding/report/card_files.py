"""Save a head with its full card, which reports measured results in words, tables and plots."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from judge_decoding.core.results import Results, parse_results
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_bytes, write_text
from judge_decoding.judge.files import CARD, PICTURES, RUN_FILE, files_of_card, results_in
from judge_decoding.judge.head import JudgeHead
from judge_decoding.report import head_pictures
from judge_decoding.report.card import model_card
from judge_decoding.report.card_results import file_name
from judge_decoding.report.plots import pareto_svg

AnyResults: TypeAlias = Results | str | Path
"""Results, or the file that contains them."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Results, and the file that is stored next to the card."""

    results: Results
    text: str


def save_head(
    head: JudgeHead,
    folder: str | Path,
    pictures: Mapping[str, str] | None = None,
    results: AnyResults | Sequence[AnyResults] | None = None,
) -> None:
    """Write a head as `JudgeHead.save_pretrained` does, with its full card.

    Args:
        head: the head to save.
        folder: the output folder.
        pictures: SVGs for the card by file name, as drawn by `judge_decoding.report.head_pictures`. Earlier pictures
            in the folder are removed.
        results: results of ``evaluate`` or ``sweep`` with this head, as files or `Results`, for the card; they are
            also stored in the folder (``results.json``, ``results-2.json``, ...). None uses those in the folder that
            the head was loaded from, if they belong to these weights. Other earlier results are removed.

    Raises:
        JudgeDecodingError: the folder cannot be written, or a file has no results or those of another head.
    """
    # The results may be in the output folder, so read them first.
    folder, measured, drawn = Path(folder), _measured(head, results), pictures or {}
    head.save_pretrained(folder)
    for name in PICTURES:
        if name in drawn:
            write_text(folder / name, drawn[name])
    _write(folder, _texts(head, drawn, measured))


def write_card(head: JudgeHead, folder: str | Path, results: AnyResults | Sequence[AnyResults] | None = None) -> None:
    """Write the full card of a head into its existing folder; ``results`` as for `save_head`.

    Weights, configuration and pictures are left unchanged.

    Raises:
        JudgeDecodingError: as for `save_head`.
    """
    folder = Path(folder)
    repeats = (folder / RUN_FILE).is_file()
    _write(folder, _texts(head, _pictures_in(folder), _measured(head, results), repeats=repeats))


def card_as_written(head: JudgeHead, folder: str | Path) -> str:
    """Return the card that `write_card` would write now; a different card in the folder was edited by hand."""
    repeats = (Path(folder) / RUN_FILE).is_file()
    return _texts(head, _pictures_in(Path(folder)), _measured(head, None), repeats=repeats)[CARD]


def _measured(head: JudgeHead, results: AnyResults | Sequence[AnyResults] | None) -> list[_Measured]:
    """Return the results for the card: the given ones, or those of these weights in the folder the head came from.

    Raises:
        JudgeDecodingError: a file cannot be read or has no results, or a given one belongs to another head.
    """
    if results is None:
        if head.folder is None:
            return []
        there = [_read(path) for path in results_in(head.folder)]
        return [one for one in there if head.owns(one.results.judge_hash, head.folder)]
    found = []
    for one in [results] if isinstance(results, str | Path | Results) else results:
        if isinstance(one, Results):
            measured = _Measured(one, one.model_dump_json(indent=2) + "\n")
        else:
            measured = _read(Path(one))
        if measured.results.judge_hash not in ("", head.weights_hash):
            raise JudgeDecodingError(
                f"{'These results' if isinstance(one, Results) else one} belong to another judge head, "
                f"{measured.results.judge or 'one without a name'}, by its weights; measure this head with evaluate, "
                "or give its own results."
            )
        found.append(measured)
    return found


def _read(path: Path) -> _Measured:
    content = read_bytes(path, "the results")
    return _Measured(parse_results(content, path), content.decode("utf-8"))


def _pictures_in(folder: Path) -> list[str]:
    return [name for name in PICTURES if (folder / name).is_file()]


def _texts(
    head: JudgeHead, pictures: Container[str], measured: Sequence[_Measured], *, repeats: bool = False
) -> dict[str, str]:
    """Return the files by name: the results that the card shows, their plots, and last the card itself."""
    texts: dict[str, str] = {}
    plots: list[str | None] = []
    for place, one in enumerate(measured, start=1):
        texts[file_name(place)] = one.text
        svg = _plot(one.results)
        plots.append(file_name(place, "pareto", "svg") if svg else None)
        if svg:
            texts[file_name(place, "pareto", "svg")] = svg
    card = model_card(head.config, pictures, [one.results for one in measured], plots, repeats=repeats)
    return texts | {CARD: card}


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write a card and its files; remove the files of earlier results."""
    for name, text in texts.items():
        write_text(folder / name, text)
    for path in files_of_card(folder):
        if path.name not in texts:
            path.unlink()


def _plot(results: Results) -> str:
    """Plot accuracy against speed; return "" without accuracy or matplotlib."""
    if not head_pictures.can_draw() or any(row.accuracy is None for row in results.rows):
        return ""
    return pareto_svg(results.rows)
