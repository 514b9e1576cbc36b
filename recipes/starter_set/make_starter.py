r"""The starter set from the published files: the same files give the same bytes.

    python recipes/starter_set/make_starter.py --mr-gsm8k mr_gsm8k.jsonl --bigbench-mistake dyck_languages.jsonl \
        multistep_arithmetic.jsonl tracking_shuffled_objects.jsonl word_sorting.jsonl

writes ``cases.jsonl.gz`` into the package and prints what is in it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from judge_decoding import Case
from judge_decoding.data.cases import STARTER_FILE
from judge_decoding.data.sets import merge
from judge_decoding.io.files import replacing
from judge_decoding.labelling.formats import FORMATS

LONGEST = 4000
"""Characters of an answer. Two of a bracket sequence are a token, so that a context of 2,048 holds nearly all."""


def chosen(cases: Sequence[Case]) -> list[Case]:
    """What goes into the set, each answer once, in an order that the order of the files does not change.

    Answers that end wrong and in which nobody found a mistake are left out, and long ones.
    """
    good = [case for case in cases if case.located and len(case.answer) <= LONGEST]
    return sorted(merge(good, "drop").cases, key=lambda case: (case.source, case.question, case.answer))


def packed(cases: Sequence[Case]) -> bytes:
    """The cases as a gzip file without time and name."""
    text = "".join(case.model_dump_json(exclude_defaults=True) + "\n" for case in cases)
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mr-gsm8k", type=Path, nargs="+", default=())
    parser.add_argument("--bigbench-mistake", type=Path, nargs="+", default=())
    parser.add_argument("--out", type=Path, default=STARTER_FILE)
    args = parser.parse_args()
    files = [("mr-gsm8k", path) for path in args.mr_gsm8k]
    files += [("bigbench-mistake", path) for path in args.bigbench_mistake]
    read = [case for name, path in files for case in FORMATS[name].read(path, sys.exit)]
    cases = chosen(read)
    content = packed(cases)
    with replacing(args.out) as temporary:
        temporary.write_bytes(content)
    print("| source | writer | cases |\n|---|---|---|")
    for (source, writer), count in sorted(Counter((case.source, case.writer) for case in cases).items()):
        print(f"| {source} | {writer} | {count} |")
    print(f"\n{len(cases)} of {len(read)} cases, {len(content):,} bytes\n")
    for _, path in files:
        print(f"{path.name}: sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
