"""Read questions from JSONL, plain text, or a data set on the Hub or in a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from judge_decoding.errors import JudgeDecodingError, RowError, reason
from judge_decoding.io.files import lines, parse_json
from judge_decoding.io.inputs import check_folder

Rows = Iterator[tuple[str, Any]]
"""Rows with their names, such as "line 3"."""

_PROMPT_FIELDS = ("question", "prompt")
_REFERENCE_FIELD = "reference"
_HOLE = re.compile(r"\{([A-Za-z_][\w.-]*)\}")


@dataclass(frozen=True, slots=True)
class Question:
    """A question, as a person would write it to a chat model, and the whole ``prompt`` as the target reads it.

    ``reference`` is a right answer, or its unit tests; empty if there is none.
    """

    text: str
    prompt: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Fields:
    r"""The fields of a row that contain question and reference.

    Nested fields are named with dots: ``turns.0``, ``answers.text.0``.

    Attributes:
        prompt: field of the question; by default ``question`` or ``prompt``.
        reference: field of the reference; by default ``reference``, if it exists.
        template: the prompt template, such as ``Q: {question}\nA:``; ``{question}`` is the question, and any other
            field can be used too.
        reference_template: a template for the reference from several fields, such as ``{test}\ncheck({entry_point})``.
    """

    prompt: str | None = None
    reference: str | None = None
    template: str | None = None
    reference_template: str | None = None

    def __post_init__(self) -> None:
        for name, template in (("template", self.template), ("reference template", self.reference_template)):
            if template is not None and not _HOLE.search(template):
                raise JudgeDecodingError(
                    f"The {name} {template!r} has no field such as {{question}}; say where the text goes."
                )
        if self.prompt is not None and self.template is not None and "question" not in _HOLE.findall(self.template):
            raise JudgeDecodingError(
                f"The template {self.template!r} has no {{question}}, so the field {self.prompt} would be ignored; "
                "say where it goes, or leave the field out."
            )
        if self.reference is not None and self.reference_template is not None:
            raise JudgeDecodingError("Give either the reference's field or a template of it, not both.")

    def read(self, row: Any) -> tuple[str, str]:  # noqa: ANN401  (any JSON value)
        """Return question and reference of a row.

        Raises:
            RowError: a field is missing, or is neither a text nor a number.
        """
        if not isinstance(row, Mapping):
            raise RowError('is not a JSON object; write one such as {"question": "..."}')
        field = self.prompt or next((name for name in _PROMPT_FIELDS if name in row), _PROMPT_FIELDS[0])
        text = _text(row, field)
        if self.template is not None:
            own = {**row, "question": text}
            text = _fill(self.template, own)
        if not text.strip():
            raise RowError(f"has nothing in its field {field}")
        if self.reference_template is not None:
            return text, _fill(self.reference_template, row)
        if self.reference is not None:
            return text, _text(row, self.reference)
        return text, _text(row, _REFERENCE_FIELD) if row.get(_REFERENCE_FIELD) is not None else ""


def _fill(template: str, row: Mapping[str, Any]) -> str:
    return _HOLE.sub(lambda hole: _text(row, hole[1]), template.replace("\\n", "\n"))


def _text(row: Mapping[str, Any], field: str) -> str:
    value: Any = row
    for name in [field] if field in row else field.split("."):
        try:
            value = value[int(name)] if isinstance(value, list) else value[name]
        except (KeyError, IndexError, TypeError, ValueError):
            raise RowError(f"has no field {field}; it has {', '.join(map(str, row)) or 'none'}") from None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(
            f"has {type(value).__name__} in its field {field}; give a field that contains text, such as {field}.0"
        )
    return str(value)


def file_rows(path: Path, on_bad: Callable[[str], None]) -> Rows:
    """Yield the rows of a JSONL file, or of a text file with one question per line.

    The first line decides the format, unless the name ends in ``.txt``. Either can be compressed with gzip.
    """
    is_text = True if path.name.removesuffix(".gz").endswith(".txt") else None
    for place, line in lines(path, "the questions", on_bad):
        if is_text is None:
            is_text = not line.lstrip().startswith("{")
        if is_text:
            yield f"line {place}", {_PROMPT_FIELDS[0]: line.strip()}
            continue
        try:
            yield f"line {place}", parse_json(line)
        except ValueError as error:
            on_bad(f"{path}, line {place} is not JSON: {error}; correct or remove the line.")


def dataset_rows(name: str, config: str | None, split: str) -> Rows:
    """Yield the rows of a data set on the Hub or in a folder, without running code from it."""
    if find_spec("datasets") is None:
        raise JudgeDecodingError(
            "Data sets need the package datasets; install it with: pip install 'judge-decoding[eval]'."
        )
    import datasets  # noqa: PLC0415  (an extra)

    datasets.disable_progress_bars()
    if Path(name).is_dir():
        for folder in (Path(name), Path(name, split)):
            if folder.is_dir():
                check_folder(folder, "the data set")
    try:
        if (Path(name) / "state.json").exists() or (Path(name) / "dataset_dict.json").exists():
            saved = datasets.load_from_disk(name)
            data = saved[split] if isinstance(saved, datasets.DatasetDict) else saved
        else:
            data = datasets.load_dataset(name, config, split=split)
        for place, row in enumerate(data):
            yield f"row {place}", row
    except Exception as error:  # pyarrow, fsspec and the Hub client all raise their own exceptions
        raise JudgeDecodingError(
            f"Cannot load the data set {name} ({split}): {reason(error)}; check its name, --dataset-config and --split."
        ) from error


def read_questions(
    rows: Rows,
    fields: Fields,
    on_bad: Callable[[str], None],
    *,
    render: Callable[[str], str] | None = None,
    limit: int | None = None,
    source: str = "The file",
) -> list[Question]:
    """Return the questions of ``rows`` (`file_rows`, `dataset_rows`), at most ``limit``, without duplicates.

    ``on_bad`` is called with a message for each row that is not a question; ``render`` applies the chat template;
    messages name the ``source``.
    """
    questions: dict[str, Question] = {}
    for where, row in rows:
        if limit is not None and len(questions) == limit:
            break
        try:
            text, reference = fields.read(row)
        except RowError as error:
            on_bad(f"{source}, {where} {error}.")
            continue
        prompt = text if render is None else render(text)
        questions.setdefault(prompt, Question(text, prompt, reference))
    if not questions:
        raise JudgeDecodingError(f"{source} has no questions; check it, or give the field with --prompt-field.")
    return list(questions.values())
