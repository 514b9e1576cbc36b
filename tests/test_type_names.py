"""One name, one thing: no class or type has the name of another one."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import judge_decoding

PACKAGE = Path(judge_decoding.__file__).parent
ALLOWED = {
    "T": "the type variable of a generic function, as everywhere in Python",
}
"""Names that several modules may define, with the reason."""


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, also those under a condition."""
    for one in body:
        yield one
        for part in ("body", "orelse", "finalbody", "handlers"):
            if not isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from statements(getattr(one, part, []))


def types(source: str) -> set[str]:
    """The classes, type aliases and type variables of a module: what is defined there, with a name in capitals."""
    found = set()
    for one in statements(ast.parse(source).body):
        if isinstance(one, ast.ClassDef):
            found.add(one.name)
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        found |= {name for name in names if name == "T" or (name.lstrip("_")[:1].isupper() and not name.isupper())}
    return found


def test_classes_and_types_are_found() -> None:
    source = (
        "class A: ...\nif x:\n    class B: ...\nC = list[int]\n_Dd: type = int\nT = TypeVar('T')\nLIMIT = 3\nlow = 1\n"
    )
    assert types(source) == {"A", "B", "_Dd", "T"}
    assert types("Cc = list[int]\ndef f():\n    Local = int\n") == {"Cc"}


def test_a_name_means_one_thing_in_the_whole_package() -> None:
    homes = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in types(path.read_text(encoding="utf-8")):
            homes[name].append(str(path.relative_to(PACKAGE)))
    assert len(homes) > 300
    twice = {name: paths for name, paths in homes.items() if len(paths) > 1}
    assert {name: paths for name, paths in twice.items() if name not in ALLOWED} == {}
    assert set(twice) == set(ALLOWED), "an allowed name is defined once only; remove it from the list"
