"""Make TokenCourt cases of descriptions: the checker locates what is wrong in each.

A wrong, invented or doubled fact is the span of its words; a missing one is an error of the end token. Questions are
the user's message, so that ``judge-decoding train --chat`` renders them by the target's own template.

    python recipes/smollm2_e2e/make_cases.py TEXTS.jsonl ... --only data/split.json:fit --out cases.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from judge_decoding import JudgeDecodingError
from judge_decoding.data.cases import Case, write_cases
from judge_decoding.errors import RowError
from judge_decoding.io.files import lines, parse_json
from judge_decoding.tasks.e2e import find_errors, question


def label(mr: str, text: str, writer: str = "") -> Case:
    """The case of one description, its errors located.

    Raises:
        RowError: ``mr`` is no meaning representation.
    """
    text = text.strip()
    errors = sorted({(one.start, one.end) for one in find_errors(mr, text)})
    return Case(question=question(mr), answer=text, errors=tuple(errors), source="checker", writer=writer)


def label_file(path: Path, only: set[str] | None = None) -> Iterable[Case]:
    """The cases of a file of ``{mr, text, system}``; the writer is the system, or the file's name.

    Raises:
        JudgeDecodingError: the file cannot be read, or a line is no description.
    """
    for number, line in lines(path, "the descriptions", lambda _: None):
        try:
            row = parse_json(line)
            mr, text = row["mr"], row["text"]
            if only is None or mr in only:
                yield label(mr, text, str(row.get("system") or path.stem))
        except (ValueError, KeyError, TypeError, AttributeError, RowError) as error:
            raise JudgeDecodingError(
                f"{path}, line {number} is no description; write lines such as "
                '{"mr": "name[Cotto]", "text": "It is Cotto."}.'
            ) from error


def main() -> None:
    """Write the file and print what is in it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--only", help="FILE:PART, a part of the split: other meaning representations are left out")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    only = None
    if args.only:
        file, _, part = args.only.rpartition(":")
        only = set(json.loads(Path(file).read_text(encoding="utf-8"))[part])
    try:
        cases = {(case.question, case.answer): case for path in args.texts for case in label_file(path, only)}
    except JudgeDecodingError as error:
        parser.error(str(error))
    write_cases(args.out, cases.values())
    ends = sum((len(case.answer),) * 2 in case.errors for case in cases.values())
    wrong = Counter((case.writer, "wrong" if case.errors else "right") for case in cases.values())
    print(f"{len(cases)} cases -> {args.out}, {ends} of them end too early; {dict(wrong)}")


if __name__ == "__main__":
    main()
