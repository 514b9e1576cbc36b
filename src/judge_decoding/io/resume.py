"""Long work that can be stopped at any moment and goes on where it was: its results so far, beside the output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import end_line, lines, parse_json
from judge_decoding.io.inputs import DOCUMENT, MOST, reading


class Unfinished:
    """Rows in ``<output>.part``, one a line, behind a line with the settings; a kill loses at most the last one.

    The file comes with the first row: a start that fails before there is one leaves nothing behind.

    Args:
        output: where the results go when all is done.
        settings: what must not change in between.

    Raises:
        JudgeDecodingError: a part was begun with other settings, or cannot be read or written.
    """

    suffix = ".part"

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.output, self.part, self.settings = output, output.with_name(output.name + self.suffix), settings
        self._begun = False
        first = _line({"settings": settings})
        if self.part.exists() and not self._holds_only(first):
            self._load(settings)
        else:
            self.part.unlink(missing_ok=True)  # of the settings a piece was written, and nothing else

    def _holds_only(self, first: bytes) -> bool:
        """Whether a kill left nothing of the part but its first line, or a piece of that."""
        with reading(self.part, "the unfinished file", MOST) as file:
            return first.startswith(file.read(len(first) + 1))

    def _load(self, settings: dict[str, Any]) -> None:
        rows = list(lines(self.part, "the unfinished file", lambda _: None, longest=DOCUMENT))
        try:
            begun = parse_json(rows[0][1])["settings"]
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise JudgeDecodingError(f"{self.part} is no unfinished work; remove it to begin anew.") from error
        if begun != settings and len(rows) == 1:  # nothing was done yet
            self.part.unlink()
            return
        if begun != settings:
            self.differs(begun)
            return
        self._begun = True
        for _, line in rows[1:]:
            try:
                self.take(parse_json(line))
            except (ValueError, KeyError, TypeError):
                continue  # cut off when it was stopped: that one is done again
        with self.part.open("ab+") as file:
            end_line(file)

    def differs(self, begun: dict[str, Any]) -> None:
        """The part was begun with other settings. If this returns, it is begun anew.

        Raises:
            JudgeDecodingError: it must not be.
        """
        name = next(name for name in {**begun, **self.settings} if begun.get(name) != self.settings.get(name))
        raise JudgeDecodingError(
            f"{self.part} was begun with {name} {begun.get(name)}, not {self.settings.get(name)}; go on with that, or "
            "remove the file to begin anew."
        )

    def will_write(self, path: Path) -> None:
        """Remember that ``path``, which is not the output, is this work's, too; see `written_before`."""
        self.append({"wrote": str(path.absolute())})

    def take(self, row: Any) -> None:  # noqa: ANN401  (any JSON value)
        """Remember a row of the part.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        raise NotImplementedError

    def append(self, row: dict[str, Any]) -> None:
        """Add a row to the part.

        Raises:
            JudgeDecodingError: it cannot be written.
        """
        try:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            with self.part.open("ab" if self._begun else "wb") as file:
                file.write(_line(row) if self._begun else _line({"settings": self.settings}) + _line(row))
        except OSError as error:
            raise JudgeDecodingError(f"Cannot write {self.part}: {error.strerror}; choose another place.") from error
        self._begun = True


def written_before(part: Path) -> list[Path]:
    """What a stopped run with this unfinished file has written besides its output, so that the next may replace it."""
    if not part.exists():
        return []
    found = lines(part, "the unfinished file", lambda _: None, longest=DOCUMENT)
    rows = (line for _, line in found if line.startswith('{"wrote": '))
    return [Path(parse_json(row)["wrote"]) for row in rows]


def _line(row: dict[str, Any]) -> bytes:
    # A lone surrogate, which a model's JSON may hold, is no UTF-8.
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")
