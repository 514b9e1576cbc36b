"""Deprecated spellings of options, and operands that stand for an option: both become the option's own spelling.

A deprecated spelling works for one release, with a warning that names the new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Old(NamedTuple):
    """A deprecated option that takes a value.

    Attributes:
        new: the option that replaces it.
        values: which values are meant; others belong to an option of the same name that still exists.
        rewrite: the words that replace option and value, if these are not the new option and the same value.
        bare: whether the option can also stand without a value, as a flag of the same name does.
    """

    new: str
    values: str = r"(?s).*"
    rewrite: Callable[[str], list[str]] | None = None
    bare: bool = False

    def words(self, value: str) -> list[str]:
        """The words that replace the option and its value."""
        return [self.new, value] if self.rewrite is None else self.rewrite(value)


_CHECKER = Old("--checker", rewrite=lambda value: ["--checker", "exact" if value == "text" else value])

EVERYWHERE: Mapping[str, Old] = {"--output": Old("--out")}
OLD: Mapping[str, Mapping[str, Old]] = {
    "demo": {"--problems": Old("--limit"), "--json": Old("--out", r"[^-].*", bare=True)},
    "generate": {
        "--json": Old("--out", r".+\.jsonl?", bare=True),  # the word after a flag can be the prompt
        "--draft-length": Old("--draft-schedule"),
    },
    "draft": {"--layers": Old("--draft-layers")},
    "fit": {"--points": Old("--margin"), "--result": _CHECKER},
    "bench": {"--prompts": Old("--limit")},
    "report": {"--most": Old("--show")},
    "score": {"--shown": Old("--show")},
    "train": {
        "--result": _CHECKER,
        "--aim": Old(
            "--aim accuracy --margin",
            r"\s*accuracy\s*=.*",
            lambda value: ["--aim", "accuracy", "--margin", value.partition("=")[2].strip()],
        ),
    },
    "court collect": {"--config": Old("--dataset-config")},
    "court annotate": {"--head": Old("--judge")},
    "court view": {"--limit": Old("--show")},
    "court rethreshold": {"--threshold": Old("--label-threshold")},
    "court label likelihood": {"--threshold": Old("--label-threshold")},
    "court label equivalence": {"--result": _CHECKER},
}
"""Deprecated options by command."""

OPERANDS: Mapping[str, tuple[str, ...]] = {
    "generate": ("--target",), "draft": ("--target",), "train": ("--target",), "info": ("--judge",),
    "card": ("--judge",), "push": ("--judge",), "court import": ("--format", "-f"), "court export": ("--format", "-f"),
}  # fmt: skip
"""The option, in all of its spellings, that a command's first operand stands for unless the option is given."""


class Spelled(NamedTuple):
    """A command line in today's spelling.

    Attributes:
        words: its words.
        notes: a sentence for each deprecated spelling in it.
    """

    words: list[str]
    notes: list[str]


def spelled(
    command: str, words: Sequence[str], takes_value: Callable[[str], bool], *, operand: bool = True, needed: int = 0
) -> Spelled:
    """Rewrite deprecated options, and the first operand if it stands for an option.

    Args:
        command: the words of the command.
        words: what follows them.
        takes_value: whether an option of the command, such as ``--seed`` or ``-o``, takes a value.
        operand: whether the first operand may stand for an option.
        needed: how many operands the command cannot do without. It stands for an option only if so many are left:
            ``train cases.jsonl`` lacks a target, not the cases.
    """
    old = {**EVERYWHERE, **OLD.get(command, {})}
    out: list[str] = []
    notes: list[str] = []
    places: list[int] = []
    count = 0
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            if rest:
                places.append(len(out) + 1)
            count += len(rest)
            out += [word, *rest]
            break
        if not word.startswith("-") or word == "-":
            places.append(len(out))
            count += 1
            out.append(word)
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:], "")
        one = old.get(name)
        setting = value if equals else rest[0] if rest else ""
        if one is not None and re.fullmatch(one.values, setting) and (equals or rest):
            out += one.words(setting)
            notes.append(f"{name} is now {one.new}; the old spelling works until the next release.")
            rest = rest if equals else rest[1:]
            continue
        out.append(word)
        if not equals and takes_value(name) and rest:
            out.append(rest.pop(0))
    names = OPERANDS.get(command, ())
    given = any(word.partition("=")[0] in names or word[:2] in names for word in out)
    if operand and names and count > needed and not given:
        option, place = names[0], places[0]
        if place and out[place - 1] == "--":
            out[place - 1 : place + 1] = [f"{option}={out[place]}", "--"]
        else:
            out[place : place + 1] = [option, out[place]]
    return Spelled(out, notes)
