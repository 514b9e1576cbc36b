"""Write docs/models.md: what decoding does with each causal LM class of transformers. ``make zoo`` runs it.

Families as arguments are looked at alone, and only their rows are written anew. ``--uncompiled`` saves the time that
compiling takes: about a minute a family.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import torch
import transformers
from check import EXACT, Row, check, compiled
from families import build, names

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
FOUND = Path(__file__).parent / "found.json"
"""What was found when the page was made: a test compares."""

_INTRO = """\
# Models

What judge decoding does with the causal language models of transformers {version}. Each class is built as small as its
configuration allows, with random weights, and decodes greedily in all ways: alone, with itself as the draft, with
prompt lookup, with wrong and half-right drafts, in batches that grow unevenly, and with a judge that was trained on it.
The tokens are compared with those of transformers' own `generate`. `make zoo` makes this page.

* **alone**, **draft**: *exact* is token for token what `generate` says; *refused* is one sentence before the first
  token.
* **batch**: *shared* if rows of different lengths share forward passes, *one by one* if each decodes by itself. Both
  give the same tokens.
* **compiled**: *yes* if `backend="static"` compiles the class and gives the tokens of `generate`, in batches that grow
  unevenly; *expected* if what would be compiled gives them as it is, and was not compiled for this page; otherwise the
  class runs eager and says why.
* **judge**: whether a head trains on the class and scores draft tokens in decoding as in training.

A class with windows or recurrent layers is refused or decodes one by one for the reasons that the last column gives;
[decoding.md](decoding.md#models-with-recurrent-layers) says how drafts are taken back from recurrent layers.
{summary}

"""


def look(name: str, *, really: bool = False) -> tuple[Row | None, str, str]:
    """What was found, whether it compiles (see `check.compiled`), and why it could not be tried."""
    try:
        model = build(name)
    except Exception as error:  # noqa: BLE001  (whatever a model's own code raises)
        return None, "", f"not built: {_short(error)}"
    try:
        row = check(name, model)
    except Exception as error:  # noqa: BLE001
        return None, "", f"`generate` fails: {_short(error)}"
    return row, compiled(model, really=really), ""


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:80]}".replace("|", "/")


def _said(row: Row, way: str) -> str:
    return row.found[way] if row.found[way] == EXACT else row.found[way].partition(":")[0]


def main(arguments: list[str]) -> None:
    """Look at all families and write the page, or at some and write their rows anew."""
    torch.set_num_threads(1)
    really, wanted = "--uncompiled" not in arguments, [one for one in arguments if not one.startswith("--")]
    lines, missing, found = [], [], {}
    for name in wanted or names():
        row, made, why = look(name, really=really)
        if row is None:
            missing.append(f"| {name} | {why} |")
            found[name] = "not tried"
        else:
            found[name] = "wrong" if row.wrong else "exact" if set(row.found.values()) == {EXACT} else (
                "alone" if row.found["alone"] == EXACT else "refused"
            )  # fmt: skip
            reason = next((what for what in row.found.values() if what != EXACT), "").removeprefix("refused: ")
            draft = "prompt lookup"
            shared = "-" if row.found["batch"] != EXACT else "shared" if row.batches else "one by one"
            cells = [name, _said(row, "alone"), _said(row, draft), shared, made, _said(row, "judge"), reason]
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
        print(name, found[name], *(row.wrong.items() if row else [why]), f"compiled: {made}", flush=True)
    if wanted:
        known = json.loads(FOUND.read_text(encoding="utf-8"))
        fresh = {_name(line): line for line in [*lines, *missing]}
        page = "\n".join(fresh.get(_name(line), line) for line in PAGE.read_text(encoding="utf-8").split("\n"))
        found = known | found
        page = re.sub(
            r"^\d+ classes are exact.*?\n.*?fails on it\.", _summary(found), page, flags=re.DOTALL | re.MULTILINE
        )
    else:
        page = _INTRO.format(version=transformers.__version__, summary=_summary(found))
        page += "| model type | alone | draft | batch | compiled | judge | why not |\n|---|---|---|---|---|---|---|\n"
        page += "\n".join(lines) + "\n\n## Not tried\n\n| model type | why |\n|---|---|\n" + "\n".join(missing) + "\n"
    PAGE.write_text(page, encoding="utf-8")
    FOUND.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")


def _summary(found: dict[str, str]) -> str:
    """How many classes are what."""
    counts = Counter(found.values())
    return (
        f"{counts['exact']} classes are exact in all ways, {counts['alone']} decode alone only, {counts['refused']} "
        f"are refused, and {counts['not tried']} could not be\n"
        "tried: their tiny configuration does not build, or `generate` itself fails on it."
    )


def _name(line: str) -> str:
    """The model type of a row of the page."""
    return line.split(" | ")[0].removeprefix("| ")


if __name__ == "__main__":
    main(sys.argv[1:])
