"""Long labelling that can be stopped at any moment and goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from judge_decoding.court.cases import Case, write_cases
from judge_decoding.errors import JudgeDecodingError
from judge_decoding.files import lines


class Progress:
    """What has been labelled so far, in ``<output>.part``: one question a line behind a line with the settings.

    Args:
        output: where the cases go when all is done.
        settings: what must not change in between.

    Raises:
        JudgeDecodingError: a part was begun with other settings, or cannot be read or written.
    """

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        self.output, self.part = output, output.with_name(output.name + ".part")
        self.done: dict[str, list[Case]] = {}
        if self.part.exists():
            self._load(settings)
        else:
            self._append({"settings": settings})

    def _load(self, settings: dict[str, Any]) -> None:
        rows = list(lines(self.part, "the unfinished file", lambda _: None))
        try:
            begun = json.loads(rows[0][1])["settings"]
        except (IndexError, ValueError, KeyError, TypeError) as error:
            raise JudgeDecodingError(f"{self.part} is no unfinished labelling; remove it to begin anew.") from error
        if begun != settings:
            name = next(name for name in {**begun, **settings} if begun.get(name) != settings.get(name))
            raise JudgeDecodingError(
                f"{self.part} was begun with {name} {begun.get(name)}, not {settings.get(name)}; go on with that, or "
                "remove the file to begin anew."
            )
        for _, line in rows[1:]:
            try:
                row = json.loads(line)
                self.done[row["question"]] = [Case.model_validate(case) for case in row["cases"]]
            except (ValueError, KeyError, TypeError, ValidationError):
                continue  # cut off when it was stopped: that question is done again
        # The next line must not be glued to one that was cut off.
        if self.part.read_bytes()[-1:] != b"\n":
            with self.part.open("a", encoding="utf-8") as file:
                file.write("\n")

    def add(self, question: str, cases: list[Case]) -> None:
        """A question is done."""
        self.done[question] = cases
        rows = [case.model_dump(mode="json", exclude_defaults=True) for case in cases]
        self._append({"question": question, "cases": rows})

    def finish(self) -> list[Case]:
        """Write all cases to the output, in the order they were labelled, and remove the part.

        Raises:
            JudgeDecodingError: there is no case.
        """
        cases = [case for done in self.done.values() for case in done]
        if not cases:
            raise JudgeDecodingError(
                "There is nothing to label: the draft says everywhere what the target says; use another draft or more "
                "questions."
            )
        write_cases(self.output, cases)
        self.part.unlink()
        return cases

    def _append(self, row: dict[str, Any]) -> None:
        try:
            self.part.parent.mkdir(parents=True, exist_ok=True)
            with self.part.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        except OSError as error:
            raise JudgeDecodingError(f"Cannot write {self.part}: {error.strerror}; choose another place.") from error
