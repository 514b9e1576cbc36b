"""``judge-decoding court starter``: the labelled answers that come with the package."""

from __future__ import annotations

from judge_decoding.cli.outputs import Cases, Overwrite, check_outputs
from judge_decoding.cli.terminal import say
from judge_decoding.data.cases import starter_cases, write_cases


def starter(
    out: Cases,
    overwrite: Overwrite = False,
) -> None:
    """Write the starter set: answers of real models to reasoning questions, with errors located by people."""
    check_outputs([out], overwrite=overwrite)
    cases = starter_cases()
    write_cases(out, cases)
    wrong = sum(bool(case.errors) for case in cases)
    say(f"{len(cases)} cases, {wrong} of them wrong, written to {out}.")
